"""How well the service does its task: Matthews correlation per attribute."""

from collections.abc import Sequence

import numpy as np

from tfadv.evaluation.metrics.bootstrap import IdentityBootstrap, percentile_interval


def mcc(labels: np.ndarray, logits: np.ndarray, thresholds: float | np.ndarray = 0.0) -> np.ndarray:
    """Returns the Matthews correlation coefficient of `logits > thresholds`, per attribute.

    The paper's utility metric ("Utility Metric", Section 4). Equal to scikit-learn's
    `matthews_corrcoef` on each column: 0 if labels or predictions are all of one value.

    Args:
        labels: 0 or 1, [N, A].
        logits: finite, [N, A].
        thresholds: one for all attributes, or one per attribute, [A].

    Returns:
        Coefficients in [-1, 1], float64 [A]; 0 is chance.

    Raises:
        ValueError: the shapes differ, a label is neither 0 nor 1, or a logit is not finite.
    """
    labels, logits = _checked(labels, logits)
    predicted = logits > np.asarray(thresholds, np.float64)
    return _mcc_from_counts(
        true_positives=(labels & predicted).sum(axis=0),
        predicted_positives=predicted.sum(axis=0),
        positives=labels.sum(axis=0),
        examples=len(labels),
    )


def tuned_thresholds(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Returns the threshold per attribute with the highest MCC on these examples.

    Exact: it tries 0 and the midpoint of every two neighbouring logits, in O(N log N). Ties go
    to 0, then to the highest threshold; so an attribute with labels of one value keeps 0.

    Args:
        labels: 0 or 1, [N, A]. Of held-out examples, not of those that are trained or reported on.
        logits: finite, [N, A].

    Returns:
        Thresholds for `mcc`, float64 [A].

    Raises:
        ValueError: as `mcc`.
    """
    at_zero = mcc(labels, logits)
    labels, logits = _checked(labels, logits)
    if len(labels) < 2:
        return np.zeros(logits.shape[1])

    order = np.argsort(-logits, axis=0)
    logits = np.take_along_axis(logits, order, axis=0).astype(np.float64)
    labels = np.take_along_axis(labels, order, axis=0)
    above, below = logits[:-1], logits[1:]
    midpoints = below + (above - below) / 2
    midpoints = np.where(midpoints < above, midpoints, below)  # rounded up onto its neighbour

    scores = _mcc_from_counts(
        true_positives=labels.cumsum(axis=0)[:-1],
        predicted_positives=np.arange(1, len(labels))[:, None],
        positives=labels.sum(axis=0),
        examples=len(labels),
    )
    scores = np.where(above > below, scores, -np.inf)  # no threshold separates equal logits
    best = scores.argmax(axis=0)[None]
    best_score = np.take_along_axis(scores, best, axis=0)[0]
    best_midpoint = np.take_along_axis(midpoints, best, axis=0)[0]
    return np.where(best_score > at_zero, best_midpoint, 0.0)


def utility_metrics(
    names: Sequence[str],
    labels: np.ndarray,
    logits: np.ndarray,
    *,
    thresholds: np.ndarray | None = None,
    task: Sequence[str] | None = None,
    bootstrap: IdentityBootstrap | None = None,
) -> dict[str, float | list[float]]:
    """Returns the utility of a service, by the names of metrics.json.

    `mcc` is the mean over all attributes of the data set. Attributes that the task does not predict
    count 0, like a coin toss: a task of one attribute has the low mean of rows 9 and 10 of Table 1.
    `mcc_task` is the mean over the attributes of the task.

    Args:
        names: of the data set's attributes, A.
        labels: 0 or 1, [N, A], in the order of `names`.
        logits: finite, [N, T], in the order of `task`.
        thresholds: from `tuned_thresholds` on other examples, [T]; adds `mcc_tuned` and
            `mcc_task_tuned`.
        task: the attributes that `logits` predict, T of `names`; all of them if None.
        bootstrap: of the N images' identities; adds the intervals of these means, `mcc_ci95` and
            so on, [low, high].

    Returns:
        `mcc/ATTRIBUTE` for each attribute of the task, `mcc`, `mcc_task`, the tuned means, and the
        intervals.

    Raises:
        ValueError: as `mcc`, labels and names disagree, or `task` names an unknown attribute.
    """
    task = list(names if task is None else task)
    if unknown := sorted(set(task) - set(names)):
        raise ValueError(f"task names attributes that the dataset lacks: {', '.join(unknown)}")
    if np.shape(labels)[1:] != (len(names),):
        raise ValueError(f"labels {np.shape(labels)} must be [N, {len(names)}], one per name")
    task_labels = np.asarray(labels)[:, [list(names).index(name) for name in task]]

    scores = mcc(task_labels, logits)
    metrics = {f"mcc/{name}": float(score) for name, score in zip(task, scores, strict=True)}
    operating_points = {"": 0.0} if thresholds is None else {"": 0.0, "_tuned": thresholds}
    for suffix, at in operating_points.items():
        scores = mcc(task_labels, logits, at)
        metrics[f"mcc{suffix}"] = float(scores.sum() / len(names))
        metrics[f"mcc_task{suffix}"] = float(scores.mean())
        if bootstrap is not None:
            resampled = resampled_mcc(task_labels, logits, at, bootstrap)
            interval = percentile_interval(resampled.sum(axis=1) / len(names))
            metrics[f"mcc{suffix}_ci95"] = list(interval)
            metrics[f"mcc_task{suffix}_ci95"] = list(percentile_interval(resampled.mean(axis=1)))
    return metrics


def resampled_mcc(
    labels: np.ndarray,
    logits: np.ndarray,
    thresholds: float | np.ndarray,
    bootstrap: IdentityBootstrap,
) -> np.ndarray:
    """Returns the MCC of each replicate, [R, A]; 0 where it is undefined, as in `mcc`."""
    labels, logits = _checked(labels, logits)
    predicted = logits > np.asarray(thresholds, np.float64)
    counts = [labels & predicted, predicted, labels, np.ones((len(labels), 1))]
    totals = bootstrap.totals(np.concatenate(counts, axis=1))
    width = labels.shape[1]
    return _mcc_from_counts(
        true_positives=totals[:, :width],
        predicted_positives=totals[:, width : 2 * width],
        positives=totals[:, 2 * width : 3 * width],
        examples=totals[:, -1:],
    )


def _checked(labels: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels as bool and logits as they are, or a ValueError that names what is wrong."""
    labels, logits = np.asarray(labels), np.asarray(logits)
    if labels.ndim != 2 or labels.shape != logits.shape:
        raise ValueError(f"labels {labels.shape} and logits {logits.shape} must both be [N, A]")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    if not np.isfinite(logits).all():
        raise ValueError(f"{(~np.isfinite(logits)).sum()} of {logits.size} logits are not finite")
    return labels.astype(bool), logits


def _mcc_from_counts(
    true_positives: np.ndarray,
    predicted_positives: np.ndarray,
    positives: np.ndarray,
    examples: int | np.ndarray,
) -> np.ndarray:
    """MCC as the correlation of two 0/1 variables; in float64, as products overflow integers."""
    covariance = examples * np.float64(true_positives) - np.float64(positives) * predicted_positives
    label_spread = np.float64(positives) * (examples - positives)
    predicted_spread = np.float64(predicted_positives) * (examples - predicted_positives)
    scale = np.sqrt(label_spread) * np.sqrt(predicted_spread)
    return np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0)
