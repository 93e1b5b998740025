"""How far apart people lie in feature space, beside how far each one's own features spread."""

from collections.abc import Iterable

import numpy as np

from tfadv.evaluation.moments import RunningMean, is_informative, sums_of_squares

_NOTHING = 1e-12  # of a standardised dimension's variance: nothing but rounding


def lda_metrics(batches: Iterable[np.ndarray], identities: np.ndarray) -> dict[str, float]:
    """Variance within and between people, and the LDA score of Table 3, S_b / S_w.

    S_w and S_b are the traces of the covariance within people and of that between their means,
    each person's weighed by their pictures, of features standardised per dimension: both divide by
    N, so that S_w + S_b is the number of dimensions. Dimensions that move less than float32
    resolves are left out, and so are pictures of nobody known (-1) and of people with one picture.
    The paper does not say how it scales S_w and S_b; the score does not depend on it. (Its FC
    column prints S_w / S_b, 2541.02 / 983.14 = 2.58: an erratum.)

    Few pictures each keep the score above 0 though the features say nothing of people: see
    `lda_chance`. Compare scores only on the same pictures.

    One pass, whose memory is a batch in float64, a few rows of D numbers, and one for each person
    of whom some pictures have come and others are still to come. In the order of
    `pictures_by_person` that is one person, however large the features are.

    Args:
        batches: features, float [B, ...], N rows in all.
        identities: whose they are, integers, -1 unknown, [N], in the order of the rows.

    Returns:
        `lda_within`, `lda_between` and `lda_score`. Empty where fewer than two people have two
        pictures, or all features are the same; no score where nobody's own differ.

    Raises:
        ValueError: identities are not a row of integers, there isn't one for each row of features,
            or features are not finite.
    """
    person, sizes = _people(identities)
    if len(sizes) < 2:
        return {}
    whole, unfinished = RunningMean(), {}
    within = between = 0.0
    start = 0
    for batch in batches:
        rows = person[start : start + len(batch)]
        start += len(batch)
        if len(rows) < len(batch):
            break
        for someone in np.unique(rows[rows >= 0]):
            own = np.reshape(batch, (len(batch), -1))[rows == someone]
            count, centre, squares = sums_of_squares([own])
            mean = unfinished.setdefault(someone, RunningMean())
            shift, weight = mean.merge(count, centre)
            within = within + squares + weight * np.square(shift)
            if mean.count == sizes[someone]:
                del unfinished[someone]
                shift, weight = whole.merge(mean.count, mean.value)
                between = between + weight * np.square(shift)
    if start != len(person):
        raise ValueError(f"{len(person)} identities need as many rows of features")
    return _traces(within, between, whole)


def lda_chance(identities: np.ndarray) -> dict[str, float]:
    """The `lda_score` of features that say nothing of people.

    (K - 1) / (N - K), of N pictures of K people with two each at least: what S_b and S_w are on
    average over all ways to deal the pictures out to people, one over the other.

    Args:
        identities: integers, -1 unknown, [N].

    Returns:
        The metric; empty where `lda_metrics` measures nothing.
    """
    sizes = _people(identities)[1]
    if len(sizes) < 2:
        return {}
    return {"lda_score": float((len(sizes) - 1) / (sizes.sum() - len(sizes)))}


def pictures_by_person(identities: np.ndarray) -> np.ndarray:
    """Places of the pictures that count in `lda_metrics`, one person's after the other's, [M]."""
    person, _ = _people(identities)
    order = np.argsort(person, kind="stable")
    return order[person[order] >= 0]


def _people(identities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whose each picture is, from 0 on, -1 if it doesn't count, [N]; how many each has, [K]."""
    identities = np.asarray(identities)
    if identities.ndim != 1 or not np.issubdtype(identities.dtype, np.integer):
        raise ValueError(
            f"identities must be integers [N], not {identities.dtype} {identities.shape}"
        )
    people, person, count = np.unique(identities, return_inverse=True, return_counts=True)
    counts = (people >= 0) & (count > 1)
    numbers = np.where(counts, np.cumsum(counts) - 1, -1)
    return numbers[person], count[counts]


def _traces(within: np.ndarray, between: np.ndarray, whole: RunningMean) -> dict[str, float]:
    """The metrics, from sums of squares [D] within people and between their means."""
    squares = within + between
    if not np.isfinite(squares).all():
        raise ValueError(f"{(~np.isfinite(squares)).sum()} of {squares.size} features not finite")
    kept = is_informative(whole.value, np.sqrt(squares / whole.count))
    if not kept.any():
        return {}
    s_w, s_b = (float((each[kept] / squares[kept]).sum()) for each in (within, between))
    metrics = {"lda_within": s_w, "lda_between": s_b}
    return metrics | ({"lda_score": s_b / s_w} if s_w > _NOTHING * kept.sum() else {})
