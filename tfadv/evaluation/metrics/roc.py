"""ROC curves: false and true accept rates as a threshold on scores falls."""

import numpy as np

_ROC_POINTS = 400


def roc_curve(
    genuine: np.ndarray, impostor: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns false and true accept rates at all thresholds where the curve changes direction.

    Args:
        genuine: scores of genuine pairs, ascending.
        impostor: scores of impostor pairs, ascending.
        weights: of the genuine pairs.
    """
    thresholds = np.unique(genuine)[::-1]
    weight_below = np.concatenate([[0.0], np.cumsum(weights)])

    def accepted(scores, share_below):
        not_above = [np.searchsorted(scores, thresholds, side) for side in ("right", "left")]
        return np.concatenate([[0.0], 1 - share_below(np.stack(not_above, -1).ravel()), [1.0]])

    return (
        accepted(impostor, lambda places: places / len(impostor)),
        accepted(genuine, lambda places: weight_below[places] / weight_below[-1]),
    )


def area_under(false_accepts: np.ndarray, true_accepts: np.ndarray) -> np.ndarray:
    """Returns the area under ROC curves, [..., points], by the trapezoidal rule."""
    heights = (true_accepts[..., 1:] + true_accepts[..., :-1]) / 2
    return (np.diff(false_accepts) * heights).sum(axis=-1)


def equal_error_rate(false_accepts: np.ndarray, true_accepts: np.ndarray) -> np.ndarray:
    """Returns the error rate at which false accepts equal false rejects, interpolated linearly.

    Of ROC curves, [..., points].
    """
    excess = false_accepts - (1.0 - true_accepts)  # rises from -1 to 1
    after = np.argmax(excess >= 0, axis=-1)[..., None]
    before = after - 1

    def at(values, index):
        return np.take_along_axis(values, index, axis=-1)[..., 0]

    rise = at(excess, after) - at(excess, before)
    share = -at(excess, before) / rise
    return at(false_accepts, before) + share * (
        at(false_accepts, after) - at(false_accepts, before)
    )


def thinned(false_accepts: np.ndarray, true_accepts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns at most 400 points of a curve, at even distances along it."""
    along = false_accepts + true_accepts
    if len(along) <= _ROC_POINTS:
        return false_accepts, true_accepts
    kept = np.unique(np.searchsorted(along, np.linspace(0.0, 2.0, _ROC_POINTS)))
    return false_accepts[kept], true_accepts[kept]
