"""How far apart people lie in feature space, relative to the spread of each one's features."""

from collections.abc import Iterable

import numpy as np

from tfadv.evaluation.identities import repeated_people
from tfadv.evaluation.moments import RunningMean, is_informative, moments

_ROUNDING = 1e-12  # of a standardised dimension's variance


def lda_metrics(batches: Iterable[np.ndarray], identities: np.ndarray) -> dict[str, float]:
    """Returns the variance within and between people, and the LDA score of Table 3, S_b / S_w.

    S_w and S_b are the traces of the covariance within people and of the covariance between their
    means, each person weighted by their number of images. Features are standardised per dimension.
    Both covariances divide by N, so that S_w + S_b is the number of dimensions. Left out are
    dimensions that are not informative, images of unknown people and people with one image. The
    paper does not say how it scales S_w and S_b; the score does not depend on it. (Its FC column
    prints S_w / S_b, 2541.02 / 983.14 = 2.58: an erratum.)

    With few images per person, the score is above 0 even if features say nothing about people: see
    `lda_chance`. Compare scores only on the same images.

    Memory holds a batch in float64, a few rows of D numbers, and one row for each person of whom
    only a part of the images has come: one person, in the order of `images_by_person`.

    Args:
        batches: features, float [B, ...], N rows in all.
        identities: integers, -1 unknown, [N], in the order of the rows.

    Returns:
        `lda_within`, `lda_between` and `lda_score`. Empty if fewer than two people have two images,
        or all features are the same; no score if nobody's own features differ.

    Raises:
        ValueError: identities are not integers [N], there is not one for each row of features, or
            features are not finite.
    """
    positions, numbers = repeated_people(identities)
    sizes = np.bincount(numbers)
    if len(sizes) < 2:
        return {}
    person = np.full(len(identities), -1)
    person[positions] = numbers
    overall, unfinished = RunningMean(), {}
    within = between = 0.0
    start = 0
    for batch in batches:
        rows = person[start : start + len(batch)]
        start += len(batch)
        if len(rows) < len(batch):
            break
        for number in np.unique(rows[rows >= 0]):
            own = np.reshape(batch, (len(batch), -1))[rows == number]
            count, centre, squares = moments([own])
            mean = unfinished.setdefault(number, RunningMean())
            shift, weight = mean.merge(count, centre)
            within = within + squares + weight * np.square(shift)
            if mean.count == sizes[number]:
                del unfinished[number]
                shift, weight = overall.merge(mean.count, mean.value)
                between = between + weight * np.square(shift)
    if start != len(person):
        raise ValueError(f"{len(person)} identities need as many rows of features")
    return _traces(within, between, overall)


def lda_chance(identities: np.ndarray) -> dict[str, float]:
    """Returns the `lda_score` of features that say nothing about people.

    (K - 1) / (N - K), for N images of K people with at least two each: the ratio of the averages of
    S_b and S_w over all ways to assign the images to the people. Empty where `lda_metrics` measures
    nothing.
    """
    positions, numbers = repeated_people(identities)
    people = numbers.max(initial=-1) + 1
    if people < 2:
        return {}
    return {"lda_score": float((people - 1) / (len(positions) - people))}


def images_by_person(identities: np.ndarray) -> np.ndarray:
    """Returns the positions of the images that count in `lda_metrics`, person by person, [M]."""
    positions, numbers = repeated_people(identities)
    return positions[np.argsort(numbers, kind="stable")]


def _traces(within: np.ndarray, between: np.ndarray, overall: RunningMean) -> dict[str, float]:
    """The metrics, from sums of squares [D] within people and between their means."""
    squares = within + between
    if not np.isfinite(squares).all():
        raise ValueError(f"{(~np.isfinite(squares)).sum()} of {squares.size} features not finite")
    kept = is_informative(overall.value, np.sqrt(squares / overall.count))
    if not kept.any():
        return {}
    s_w, s_b = (float((part[kept] / squares[kept]).sum()) for part in (within, between))
    metrics = {"lda_within": s_w, "lda_between": s_b}
    return metrics | ({"lda_score": s_b / s_w} if s_w > _ROUNDING * kept.sum() else {})
