"""How well people are recognised: similarity, re-identification and verification.

A probe is what an attacker made of a picture: the embedding of its reconstruction, M(Z), or a code
of its feature. The gallery holds what the attacker knows of the same people: the embeddings (or
codes) of the pictures themselves. A probe is never compared with its own picture.
"""

import itertools
from dataclasses import dataclass, field

import numpy as np

from tfadv.evaluation.metrics.bootstrap import IdentityBootstrap, percentile_interval
from tfadv.evaluation.metrics.roc import area_under, equal_error_rate, roc_curve, thinned

_BLOCK = 2**22  # scores in memory at a time
_IMPOSTOR_PAIRS = 2**22  # scored, at most
_RESAMPLED_PAIRS = 2**17  # impostor pairs of those for the intervals
_THRESHOLDS = 500  # of each kind of pair, for the intervals
_PIECE = 256  # impostor pairs whose weights are in memory at a time, for the intervals
_DECIMALS = 10  # of scores; equal beyond them is a tie
_PLACE_BITS = 23  # of the place of a pair; its score takes 35 of the other 41 bits
_LOWEST = -(2**40)  # below every score
_HISTOGRAM_SCORES = 20_000
_SEED = 0  # of the impostor pairs, where there are too many


@dataclass(frozen=True)
class Identification:
    """How well probes give people away.

    Attributes:
        metrics: `reid_rank1` and `reid_rank5`, the shares of probes with a picture of the right
            person among the 1 and the 5 nearest pictures of the gallery; `verification_auc` and
            `verification_eer` of telling a pair of one person from a pair of two; and of each its
            `NAME_ci95`, [low, high]. Empty where nobody has two pictures or all are of one person.
        roc: false and true accept rates, rising from 0 to 1, at most 400 points for a figure.
        genuine: scores of pairs of one person, ascending, at most 20,000 for a histogram.
        impostor: the same of pairs of two people.
        replicates: each metric on the bootstrap's resampled people, float64 [R].
    """

    metrics: dict[str, float | list[float]]
    roc: tuple[np.ndarray, np.ndarray]
    genuine: np.ndarray
    impostor: np.ndarray
    replicates: dict[str, np.ndarray] = field(default_factory=dict)


def cosine_similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine similarity of each row of `a` with the same row of `b`.

    Args:
        a: [N, E].
        b: the same.

    Returns:
        In [-1, 1], 0 where a vector is zero; float64 [N].

    Raises:
        ValueError: the shapes differ, or a value is not finite.
    """
    a, b = _checked(a, b)
    return np.clip(np.einsum("ne,ne->n", _unit(a), _unit(b)), -1.0, 1.0)


def identify(
    probes: np.ndarray, gallery: np.ndarray, identities: np.ndarray, bootstrap: IdentityBootstrap
) -> Identification:
    """Looks for the person of each probe among all other pictures, by cosine similarity.

    Pictures of unknown identity take no part, and probes of people with one picture only are
    strangers but never looked for. Equal scores count as their expectation in a random order, so
    that ties favour neither side. Verification compares all pairs, or about 2**22 impostor pairs
    drawn with a fixed seed where there are more; a person's genuine pairs weigh together what its
    pictures do, as in re-identification, so that a few people with many pictures, whose pairs grow
    as the square, don't decide alone. Intervals of re-identification keep the gallery as it is, and
    say how much the people looked for matter.

    Args:
        probes: [N, E], probe i made from picture i.
        gallery: [N, E], of the pictures themselves.
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
    known = identities >= 0
    people, person = np.unique(bootstrap.person[known], return_inverse=True)
    if not _can_identify(person):
        nothing = np.zeros(0)
        return Identification({}, (nothing, nothing), nothing, nothing)

    metrics, replicates = {}, {}
    scores = _compare(_unit(probes[known]), _unit(gallery[known]), person)
    for rank in (1, 5):
        hits = np.full(len(identities), np.nan)
        hits[known] = _expected_hits(rank, scores.above, scores.tied_wrong, scores.tied_right)
        metrics[f"reid_rank{rank}"] = float(np.nanmean(hits))
        replicates[f"reid_rank{rank}"] = bootstrap.means(hits)

    weights = 1 / (np.bincount(person)[scores.genuine_person] - 1)
    roc = roc_curve(scores.genuine, scores.impostor, weights)
    resampled = _resampled_roc(scores, weights, bootstrap.weights[:, people])
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
    """What `identify` gives on average for probes that say nothing.

    Args:
        identities: integers, -1 unknown, [N].

    Returns:
        The metrics without intervals; empty where `identify` measures nothing.
    """
    identities = np.asarray(identities)
    _, person, count = np.unique(
        identities[identities >= 0], return_inverse=True, return_counts=True
    )
    if not _can_identify(person):
        return {}
    right = count[person] - 1
    wrong = len(person) - count[person]
    return {
        f"reid_rank{rank}": float(
            np.nanmean(_expected_hits(rank, np.zeros_like(right), wrong, right))
        )
        for rank in (1, 5)
    } | {"verification_auc": 0.5, "verification_eer": 0.5}


@dataclass(frozen=True)
class _Scores:
    """What comparing M probes with the gallery gave; pairs are sorted by score, ascending.

    Attributes:
        above: how many pictures are nearer than the nearest one of the right person, [M].
        tied_wrong: how many of other people are exactly as near, [M].
        tied_right: how many of the right person are exactly as near, itself included, [M]; 0 where
            the person has no other picture.
        genuine: scores of pairs of one person.
        genuine_person: who that is.
        impostor: scores of pairs of two people.
        resampled: scores of those of them that intervals are estimated from.
        resampled_people: who they are, [2, pairs].
    """

    above: np.ndarray
    tied_wrong: np.ndarray
    tied_right: np.ndarray
    genuine: np.ndarray
    genuine_person: np.ndarray
    impostor: np.ndarray
    resampled: np.ndarray
    resampled_people: np.ndarray


def _compare(probes: np.ndarray, gallery: np.ndarray, person: np.ndarray) -> _Scores:
    """Compares all unit vectors with all, some rows at a time."""
    count = len(person)
    drawn = None
    if count * (count - 1) > _IMPOSTOR_PAIRS:
        shape = count, _IMPOSTOR_PAIRS // count
        drawn = np.random.default_rng(_SEED).integers(count, size=shape)
    ranks, genuine, impostor = [], [], []
    for rows in np.array_split(np.arange(count), -(-count * count // _BLOCK)):
        # Rounded so that equal vectors have equal scores: near the edges of a matrix the product
        # sums in another order, and the last bits differ.
        scores = np.rint(probes[rows] @ gallery.T * 10**_DECIMALS).astype(np.int64)
        itself = np.arange(len(rows)), rows
        scores[itself] = _LOWEST
        is_right = person[rows, None] == person
        if drawn is None:
            columns = np.arange(count)
            pairs = (scores << _PLACE_BITS | rows[:, None] * count + columns)[~is_right]
        else:
            columns = drawn[rows]
            pairs = np.take_along_axis(scores, columns, axis=1) << _PLACE_BITS
            pairs |= rows[:, None] * columns.shape[1] + np.arange(columns.shape[1])
            pairs = pairs[person[columns] != person[rows, None]]
        impostor.append(pairs)

        is_right[itself] = False
        probe, picture = np.nonzero(is_right)
        right = scores[probe, picture]
        nearest = np.full(len(rows), _LOWEST)
        np.maximum.at(nearest, probe, right)
        tied = (scores == nearest[:, None]).sum(axis=1)
        tied_right = np.bincount(probe, right == nearest[probe], len(rows)).astype(int)
        ranks.append([(scores > nearest[:, None]).sum(axis=1), tied - tied_right, tied_right])
        genuine.append((right, person[rows[probe]]))

    genuine, genuine_person = map(np.concatenate, zip(*genuine, strict=True))
    by_genuine = np.argsort(genuine)
    # The score and, in its last bits, the place of a pair: a plain sort takes a fraction of what
    # argsort and fetching who they are would take.
    impostor = np.concatenate(impostor)
    impostor.sort()
    # At even distances in sorted order, the sample has the curve of all pairs.
    resampled = impostor[_evenly(len(impostor), _RESAMPLED_PAIRS)]
    place = resampled & (2**_PLACE_BITS - 1)
    if drawn is None:
        first, second = np.divmod(place, count)
    else:
        first, second = place // drawn.shape[1], drawn.ravel()[place]
    return _Scores(
        *np.concatenate(ranks, axis=1),
        genuine[by_genuine] / 10**_DECIMALS,
        genuine_person[by_genuine],
        (impostor >> _PLACE_BITS) / 10**_DECIMALS,
        (resampled >> _PLACE_BITS) / 10**_DECIMALS,
        person[np.stack([first, second])],
    )


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
    drawn w times stands for w people with the same pictures. So each of its genuine pairs counts w
    times, not w squared: a pair across two of the copies is neither one person's nor two people's,
    and is left out. An impostor pair of people drawn v and w times occurs v w times.
    """
    impostor, (first, second) = scores.resampled, scores.resampled_people
    thresholds = np.unique(
        np.concatenate([s[_evenly(len(s), _THRESHOLDS)] for s in (scores.genuine, impostor)])
    )
    bins = len(thresholds)
    weights = weights.astype(np.float32)  # whole numbers, exact up to 2**24

    cells = scores.genuine_person * bins + _bin(scores.genuine, thresholds)
    counts = np.bincount(cells, genuine_weights, weights.shape[1] * bins).reshape(-1, bins)
    genuine_counts = weights.astype(np.float64) @ counts

    by_person = np.ascontiguousarray(weights.T)
    bin_of_pair = _bin(impostor, thresholds)
    starts = np.searchsorted(bin_of_pair, np.arange(bins))
    pieces = np.unique([*starts, *range(0, len(impostor), _PIECE), len(impostor)])
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
    with np.errstate(invalid="ignore"):  # no pair at all, for the lack of people: NaN
        return accepted / accepted[:, -1:]


def _evenly(count: int, limit: int) -> np.ndarray:
    """At most `limit` of the numbers below `count`, at even distances, the ends included."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(int))


def _can_identify(person: np.ndarray) -> bool:
    """Whether there are several people, numbered from 0, one of them with several pictures."""
    return len(person) > max(person, default=0) + 1 > 1


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1, or 0 as they were; float64."""
    vectors = vectors.astype(np.float64)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


def _checked(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays, or a ValueError that names what is wrong."""
    a, b = np.asarray(a), np.asarray(b)
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(f"embeddings {a.shape} and {b.shape} must both be [N, E]")
    for vectors in (a, b):
        if not np.isfinite(vectors).all():
            raise ValueError(f"{(~np.isfinite(vectors)).sum()} values of embeddings are not finite")
    return a, b
