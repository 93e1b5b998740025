"""How well people are recognised: similarity, re-identification and verification.

A probe is what an attacker made of an image: the embedding of its reconstruction, a guessed
embedding, or a code of its feature. The gallery holds what the attacker knows of the same people:
the embeddings (or codes) of the images themselves. A probe is never compared with its own image.
"""

import itertools
from dataclasses import dataclass, field

import numpy as np
from sklearn.preprocessing import normalize as unit_rows

from tfadv.evaluation.identities import number_people
from tfadv.evaluation.metrics.bootstrap import IdentityBootstrap, percentile_interval
from tfadv.evaluation.metrics.roc import area_under, equal_error_rate, roc_curve, thinned

_BLOCK = 2**22  # scores in memory at a time
_IMPOSTOR_PAIRS = 2**22  # scored, at most
_RESAMPLED_PAIRS = 2**17  # impostor pairs of those for the intervals
_THRESHOLDS = 500  # of each kind of pair, for the intervals
_PIECE = 256  # impostor pairs in memory at a time, for the intervals
_DECIMALS = 10  # of scores; equal beyond them is a tie
_HISTOGRAM_SCORES = 20_000
_SEED = 0  # of the impostor pairs, if there are too many


@dataclass(frozen=True)
class Identification:
    """How well probes identify people.

    Attributes:
        metrics: `reid_rank1` and `reid_rank5`, the shares of probes with an image of the right
            person among the 1 and the 5 nearest images of the gallery; `verification_auc` and
            `verification_eer` of telling genuine from impostor pairs; and `NAME_ci95` of each,
            [low, high]. Empty where `can_identify` is false.
        roc: false and true accept rates, rising from 0 to 1, at most 400 points for a figure.
        genuine: scores of genuine pairs, ascending, at most 20,000 for a histogram.
        impostor: scores of impostor pairs, likewise.
        replicates: each metric on the bootstrap's resampled people, float64 [R].
    """

    metrics: dict[str, float | list[float]]
    roc: tuple[np.ndarray, np.ndarray]
    genuine: np.ndarray
    impostor: np.ndarray
    replicates: dict[str, np.ndarray] = field(default_factory=dict)


def cosine_similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the cosine similarity of each row of `a` and the same row of `b`, both [N, E].

    Returns:
        In [-1, 1], 0 where a vector is zero; float64 [N].

    Raises:
        ValueError: the shapes differ, or a value is not finite.
    """
    a, b = _checked(a, b)
    return np.clip(np.einsum("ne,ne->n", unit_rows(a), unit_rows(b)), -1.0, 1.0)


def can_identify(identities: np.ndarray) -> bool:
    """Returns whether there are both genuine and impostor pairs among known identities, [N]."""
    identities = np.asarray(identities)
    images = np.unique_counts(identities[identities >= 0]).counts
    return len(images) > 1 and images.max() > 1


def identify(
    probes: np.ndarray, gallery: np.ndarray, identities: np.ndarray, bootstrap: IdentityBootstrap
) -> Identification:
    """Looks for the person of each probe among all other images, by cosine similarity.

    Images of unknown identity are left out. People with one image are strangers in the gallery, and
    their probes are not counted. Equal scores count as their expectation in a random order, so that
    ties favour neither side.

    Verification compares all pairs, or about 2**22 impostor pairs drawn with a fixed seed if there
    are more. A person's genuine pairs together weigh what the person's images do, as in
    re-identification: pairs grow as the square of the images, and a few people with many images
    would decide alone. Intervals of re-identification keep the gallery as it is and resample the
    people of the probes.

    Args:
        probes: [N, E], probe i made from image i.
        gallery: [N, E], of the images themselves.
        identities: integers, -1 unknown, [N].
        bootstrap: of the same identities.

    Raises:
        ValueError: shapes differ, a value is not finite, or `bootstrap` is of other identities.
    """
    probes, gallery = _checked(probes, gallery)
    identities = np.asarray(identities)
    if identities.shape != (len(probes),):
        raise ValueError(f"identities {identities.shape} must be [{len(probes)}], one per probe")
    if not np.array_equal(identities, bootstrap.identities):
        raise ValueError("the bootstrap is of other identities")
    if not can_identify(identities):
        nothing = np.zeros(0)
        return Identification({}, (nothing, nothing), nothing, nothing)

    is_known = identities >= 0
    person = bootstrap.person[is_known]  # known people have the first numbers
    scores = _compare(unit_rows(probes[is_known]), unit_rows(gallery[is_known]), person)
    metrics, replicates = {}, {}
    for rank in (1, 5):
        hits = np.full(len(identities), np.nan)
        hits[is_known] = _expected_hits(rank, scores.above, scores.tied_wrong, scores.tied_right)
        metrics[f"reid_rank{rank}"] = float(np.nanmean(hits))
        replicates[f"reid_rank{rank}"] = bootstrap.means(hits)

    images = np.bincount(person)
    weights = 1 / (images[scores.genuine_person] - 1)
    roc = roc_curve(scores.genuine, scores.impostor, weights)
    resampled = _resampled_roc(scores, weights, bootstrap.weights[:, : len(images)])
    for name, measure in (("auc", area_under), ("eer", equal_error_rate)):
        metrics[f"verification_{name}"] = float(measure(*roc))
        replicates[f"verification_{name}"] = measure(*resampled)
    for name, values in replicates.items():
        metrics[f"{name}_ci95"] = list(percentile_interval(values))
    return Identification(
        metrics,
        thinned(*roc),
        scores.genuine[_evenly(len(scores.genuine), _HISTOGRAM_SCORES)],
        scores.impostor[_evenly(len(scores.impostor), _HISTOGRAM_SCORES)],
        replicates,
    )


def chance(identities: np.ndarray) -> dict[str, float]:
    """Returns what `identify` gives on average for probes that say nothing about people.

    There are no intervals; it is empty where `can_identify` is false.
    """
    if not can_identify(identities):
        return {}
    identities = np.asarray(identities)
    person = number_people(identities[identities >= 0])
    images = np.bincount(person)[person]
    right, wrong = images - 1, len(person) - images
    metrics = {"verification_auc": 0.5, "verification_eer": 0.5}
    for rank in (1, 5):
        hits = _expected_hits(rank, np.zeros_like(right), wrong, right)
        metrics[f"reid_rank{rank}"] = float(np.nanmean(hits))
    return metrics


@dataclass(frozen=True)
class _Scores:
    """The result of comparing M probes with the gallery; scores of pairs are ascending.

    The nearest image is that of the right person. People with one image have none: `tied_right` is
    0 for these, else at least 1.
    """

    above: np.ndarray  # number of images that are nearer than the nearest one, [M]
    tied_wrong: np.ndarray  # number of images of other people that are exactly as near, [M]
    tied_right: np.ndarray  # number of images of the right person that are exactly as near, [M]
    genuine: np.ndarray
    genuine_person: np.ndarray  # of each genuine pair
    impostor: np.ndarray
    resampled: np.ndarray  # scores of those impostor pairs that intervals are estimated from
    resampled_people: np.ndarray  # both people of each of those pairs, [2, pairs]


def _compare(probes: np.ndarray, gallery: np.ndarray, person: np.ndarray) -> _Scores:
    """Compares all unit vectors with all, some rows at a time."""
    count = len(person)
    columns = np.broadcast_to(np.arange(count), (count, count))  # for impostor pairs
    if count * (count - 1) > _IMPOSTOR_PAIRS:
        shape = count, _IMPOSTOR_PAIRS // count
        columns = np.random.default_rng(_SEED).integers(count, size=shape)
    is_impostor = person[columns] != person[:, None]
    ranks, genuine, genuine_person, impostor = [], [], [], []
    for rows in np.array_split(np.arange(count), -(-count * count // _BLOCK)):
        # Rounded so that equal vectors have equal scores: near the edges of a matrix the product
        # sums in another order, and the last bits differ.
        scores = np.rint(probes[rows] @ gallery.T * 10**_DECIMALS) / 10**_DECIMALS
        itself = np.arange(len(rows)), rows
        scores[itself] = -np.inf
        impostor.append(np.take_along_axis(scores, columns[rows], axis=1)[is_impostor[rows]])

        is_right = person[rows, None] == person
        is_right[itself] = False
        nearest = np.where(is_right, scores, -np.inf).max(axis=1, keepdims=True)
        tied = scores == nearest
        counted = scores > nearest, tied & ~is_right, tied & is_right
        ranks.append([np.count_nonzero(images, axis=1) for images in counted])
        genuine.append(scores[is_right])
        genuine_person.append(np.repeat(person[rows], is_right.sum(axis=1)))

    genuine, impostor = np.concatenate(genuine), np.concatenate(impostor)
    by_score = np.argsort(genuine)
    impostor, order = _sorted_with_order(impostor)
    # At even distances in sorted order, the sample has the ROC curve of all pairs.
    sample = _evenly(len(impostor), _RESAMPLED_PAIRS)
    pairs = np.flatnonzero(is_impostor)[order[sample]]
    people = person[pairs // columns.shape[1]], person[columns.ravel()[pairs]]
    return _Scores(
        *np.concatenate(ranks, axis=1),
        genuine[by_score],
        np.concatenate(genuine_person)[by_score],
        impostor,
        impostor[sample],
        np.stack(people),
    )


def _sorted_with_order(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns scores, rounded to _DECIMALS, in ascending order, and where each one was.

    Like a stable argsort in half its time: a plain sort of integers that hold both the score
    (35 bits with its sign) and the position (at most 23 bits).
    """
    bits = len(scores).bit_length()
    packed = np.rint(scores * 10**_DECIMALS).astype(np.int64) << bits
    packed |= np.arange(len(scores))
    packed.sort()
    return (packed >> bits) / 10**_DECIMALS, packed & (2**bits - 1)


def _expected_hits(
    rank: int, above: np.ndarray, wrong: np.ndarray, right: np.ndarray
) -> np.ndarray:
    """The chance that one of `right` is among the first `rank`, in a random order of the tied.

    `above` come first, then `wrong` and `right` in a random order: hypergeometric. NaN where there
    is no right one.
    """
    missed = np.ones(len(above))
    for place in range(rank):
        draws = place < rank - above  # places that are left to the tied
        share = np.maximum(wrong - place, 0) / np.maximum(wrong + right - place, 1)
        missed *= np.where(draws, share, 1.0)
    return np.where(right > 0, 1.0 - missed, np.nan)


def _resampled_roc(
    scores: _Scores, genuine_weights: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """False and true accept rates, [R, thresholds], of each replicate.

    Thresholds are quantiles of the scores, and between them the curve is a straight line. A person
    drawn w times stands for w people with the same images. So each of the person's genuine pairs
    counts w times, not w squared: a pair across two of the copies is neither genuine nor impostor,
    and is left out. An impostor pair of people drawn v and w times counts v w times.
    """
    thresholds = np.unique(
        np.concatenate(
            [s[_evenly(len(s), _THRESHOLDS)] for s in (scores.genuine, scores.resampled)]
        )
    )
    bins = len(thresholds)

    cells = scores.genuine_person * bins + _bin(scores.genuine, thresholds)
    counts = np.bincount(cells, genuine_weights, weights.shape[1] * bins).reshape(-1, bins)
    genuine_counts = weights.astype(np.float64) @ counts

    # Replicates side by side are faster than one after the other. Float32 is exact here: a piece
    # sums to a whole number below 2**24.
    by_person = np.ascontiguousarray(weights.T, np.float32)
    first, second = scores.resampled_people
    bin_of_pair = _bin(scores.resampled, thresholds)
    starts = np.searchsorted(bin_of_pair, np.arange(bins))
    pieces = np.unique([*starts, *range(0, len(bin_of_pair), _PIECE), len(bin_of_pair)])
    impostor_counts = np.zeros((bins, len(weights)))
    for start, end in itertools.pairwise(pieces):
        impostor_counts[bin_of_pair[start]] += np.einsum(
            "pr,pr->r", by_person[first[start:end]], by_person[second[start:end]]
        )
    return _accepted(impostor_counts.T), _accepted(genuine_counts)


def _bin(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The number of the highest threshold that each score reaches; all reach the lowest."""
    return np.searchsorted(thresholds, scores, "right") - 1


def _accepted(counts: np.ndarray) -> np.ndarray:
    """From pairs in each bin, [R, bins], the rates above falling thresholds, [R, bins + 1]."""
    accepted = np.pad(np.cumsum(counts[:, ::-1], axis=1), ((0, 0), (1, 0)))
    with np.errstate(invalid="ignore"):  # NaN where a replicate has no such pair
        return accepted / accepted[:, -1:]


def _evenly(count: int, limit: int) -> np.ndarray:
    """At most `limit` of the numbers below `count`, at even distances, the ends included."""
    return np.linspace(0, count - 1, min(count, limit)).round().astype(int)


def _checked(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64, or a ValueError that names what is wrong."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(f"embeddings {a.shape} and {b.shape} must both be [N, E]")
    for vectors in (a, b):
        if not np.isfinite(vectors).all():
            raise ValueError(f"{(~np.isfinite(vectors)).sum()} values of embeddings are not finite")
    return a, b
