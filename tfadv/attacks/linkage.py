"""Linkage: who a stranger is, from features alone, by a metric learned on public people."""

import numpy as np

from tfadv.evaluation.metrics.roc import area_under, roc_curve
from tfadv.evaluation.whitening import Whitening

# Of the spread within people, towards its mean over directions. The least ones for what a defence
# left in directions of next to no variance.
SHRINKAGES = (1e-12, 1e-10, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 0.6, 0.9)
COMPONENTS = (8, 16, 32, 64, 128, 256, 512)
# A direction counts as the power of the share s / (1 + s) of its spread that lies between people:
# 0, all alike; 1/2, by its root; 1, in full.
EMPHASES = (0.0, 0.5, 1.0)
_COMPARED = 600  # held-out pictures, about: every choice compares all pairs of them


class Linkage:
    """Codes of features that are close, by cosine, where the person is the same.

    Linear discriminant analysis (Fisher 1936): directions in which people differ most beside how
    much their own pictures do. Shrinkage of the spread within people, how many directions count and
    how much less those count that tell people apart less, are chosen by the verification AUC on
    held-out people, on the first of them where there are many.

    Args:
        vectors: of public pictures, float [N, D].
        identities: who is in them, int [N]; -1, nobody known, is left out.
        held_out: vectors of other public people, [M, D].
        held_out_identities: who they are, int [M].
        whitening: of all `vectors`, where it is at hand; of use where nobody is left out.

    Attributes:
        shrinkage: chosen.
        components: chosen.
        emphasis: chosen.

    Raises:
        ValueError: there are no two people with two pictures each, in either part; or everybody's
            pictures have the same features.
    """

    def __init__(
        self,
        vectors: np.ndarray,
        identities: np.ndarray,
        held_out: np.ndarray,
        held_out_identities: np.ndarray,
        whitening: Whitening | None = None,
    ):
        count = len(vectors)
        vectors, people = _of_people(vectors, identities, "to learn from")
        held_out, others = _first(*_of_people(held_out, held_out_identities, "held out"))
        if whitening is None or len(vectors) < count:
            whitening = Whitening([vectors])
        self._whitening = whitening
        # In the standardised vectors' eigenbasis: rotated, but not white.
        deviations = np.sqrt(self._whitening.variances)
        within, means = _scatter(self._whitening(vectors) * deviations, people)
        spreads, directions = np.linalg.eigh(within)
        if not spreads.size or spreads[-1] < 1e-12:  # of standardised vectors: nothing but rounding
            if np.abs(means).max(initial=0.0) < 1e-6:
                raise ValueError("everybody's pictures have the same features")
            spreads = np.ones_like(spreads)  # each person's are all alike: any metric tells them
        asked = self._whitening(held_out) * deviations
        pairs = _pairs(others)
        best = (-np.inf,)
        for shrinkage in SHRINKAGES:
            shrunk = (1 - shrinkage) * spreads + shrinkage * spreads.mean()
            basis = directions / np.sqrt(np.maximum(shrunk, np.finfo(np.float64).tiny))
            # The most telling direction first; K people differ in K - 1 directions at most.
            _, separations, rotation = np.linalg.svd(means @ basis, full_matrices=False)
            telling = slice(min(people.max(), COMPONENTS[-1]))
            share = np.square(separations[telling])
            share = share / (1.0 + share)
            directed = basis @ rotation[telling].T
            for emphasis in EMPHASES:
                metric = (directed * share**emphasis).astype(np.float32)
                codes = asked @ metric
                for components in sorted({min(count, len(share)) for count in COMPONENTS}):
                    auc = _auc(codes[:, :components], *pairs)
                    if auc > best[0]:
                        best = (auc, shrinkage, components, emphasis, metric[:, :components])
        _, self.shrinkage, self.components, self.emphasis, metric = best
        self._metric = deviations[:, None].astype(np.float32) * metric

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Returns codes of length 1, float32 [N, K], of vectors [N, D]."""
        return _unit(self._whitening(vectors) @ self._metric)


def _of_people(
    vectors: np.ndarray, identities: np.ndarray, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of people with several pictures, and their numbers from 0 on."""
    people, person, count = np.unique(identities, return_inverse=True, return_counts=True)
    is_seen_again = (count[person] > 1) & (identities >= 0)
    numbers = np.unique(person[is_seen_again], return_inverse=True)[1]
    if len(people) < 2 or numbers.max(initial=0) < 1:
        raise ValueError(f"there are no two known people with two pictures each {what}")
    return np.asarray(vectors)[is_seen_again], numbers


def _first(vectors: np.ndarray, person: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pictures of the first people, two at least, and as many as there is time to compare."""
    seen = np.cumsum(np.bincount(person))
    is_kept = person <= max(1, np.searchsorted(seen, _COMPARED))
    return vectors[is_kept], person[is_kept]


def _scatter(vectors: np.ndarray, person: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The covariance within people, float64 [D, D], and what gives that between their means.

    The latter is B, float64 [K, D], of which B'B is the covariance: people are often fewer than
    dimensions.
    """
    count = np.bincount(person)
    order = np.argsort(person, kind="stable")
    sums = np.add.reduceat(vectors[order].astype(np.float64), np.cumsum(count) - count)
    means = sums / count[:, None]
    spread = vectors - means[person]
    means = means - vectors.mean(0, dtype=np.float64)
    within = spread.T @ spread / (len(vectors) - len(count))
    return within, means * np.sqrt(count / len(vectors))[:, None]


def _pairs(person: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where pairs of one person's pictures and pairs of two people's are in a flat [N, N].

    And how much each of the former counts, so that all pictures count alike.
    """
    first, second = np.triu_indices(len(person), 1)
    is_genuine = person[first] == person[second]
    place = first * len(person) + second
    others = np.bincount(person)[person[first[is_genuine]]] - 1
    return place[is_genuine], place[~is_genuine], 1 / others


def _auc(
    codes: np.ndarray, genuine: np.ndarray, impostor: np.ndarray, weights: np.ndarray
) -> float:
    """The chance that two pictures of one person are nearer than two of strangers."""
    codes = _unit(codes)
    scores = (codes @ codes.T).ravel()
    order = np.argsort(scores[genuine])
    curve = roc_curve(scores[genuine][order], np.sort(scores[impostor]), weights[order])
    return float(area_under(*curve))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
