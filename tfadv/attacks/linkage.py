"""Linkage attacks: whether two features are of the same person, from features alone."""

from pathlib import Path

import numpy as np

from tfadv.attacks.attack import Attack, FittedAttack, NotApplicableError
from tfadv.attacks.knowledge import Knowledge
from tfadv.evaluation.identities import repeated_people
from tfadv.evaluation.leakage_measures import IDENTITIES, RECOGNIZER
from tfadv.evaluation.metrics.info_nce import choose_scale
from tfadv.evaluation.metrics.roc import area_under, roc_curve
from tfadv.evaluation.whitening import Whitening

# Of the covariance within people, towards its mean over directions. The smallest ones are for what
# a defence left in directions of almost no variance.
SHRINKAGES = (1e-12, 1e-10, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 0.6, 0.9)
COMPONENTS = (8, 16, 32, 64, 128, 256, 512)
# A direction is weighted by this power of s / (1 + s), the share of its variance that lies between
# people: 0 is no weight, 1/2 its root, 1 the share itself.
EMPHASES = (0.0, 0.5, 1.0)
_COMPARED = 600  # held-out images, about: every choice compares all pairs of them


class Linkage:
    """A metric that is learned on public people: codes of features, to be compared by cosine.

    Linear discriminant analysis (Fisher 1936): directions in which people differ most, relative to
    how much each person's own features vary. Three settings are chosen by the verification AUC on
    held-out people (the first of them, if there are many): shrinkage of the covariance within
    people, number of directions, and the weight of directions that separate people less.

    Args:
        vectors: of public images, float [N, D].
        identities: int [N]; images of unknown identity, -1, are left out.
        held_out: vectors of other public people, [M, D].
        held_out_identities: int [M].
        whitening: of all `vectors`, if it is known; it is used if no image is left out.

    Attributes:
        shrinkage: the chosen one.
        components: the chosen one.
        emphasis: the chosen one.
        auc: the verification AUC on held-out people that it was chosen by.

    Raises:
        NotApplicableError: fewer than two people have two images, in either part; or all images
            have the same feature.
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
        within, means = _covariance(self._whitening(vectors) * deviations, people)
        spreads, directions = np.linalg.eigh(within)
        if not spreads.size or spreads[-1] < 1e-12:  # of standardised vectors: only rounding
            if np.abs(means).max(initial=0.0) < 1e-6:
                raise NotApplicableError("all images have the same feature")
            spreads = np.ones_like(spreads)  # features do not vary within people: any metric works
        queries, pairs = self._whitening(held_out) * deviations, _pairs(others)
        best = (-np.inf,)
        for shrinkage in SHRINKAGES:
            shrunk = (1 - shrinkage) * spreads + shrinkage * spreads.mean()
            basis = directions / np.sqrt(np.maximum(shrunk, np.finfo(np.float64).tiny))
            # The most separating direction first; K people differ in at most K - 1 directions.
            _, separations, rotation = np.linalg.svd(means @ basis, full_matrices=False)
            kept = slice(min(people.max(), COMPONENTS[-1]))
            share = np.square(separations[kept])
            share = share / (1.0 + share)
            directed = basis @ rotation[kept].T
            for emphasis in EMPHASES:
                metric = (directed * share**emphasis).astype(np.float32)
                codes = queries @ metric
                for components in sorted({min(count, len(share)) for count in COMPONENTS}):
                    auc = _auc(codes[:, :components], *pairs)
                    if auc > best[0]:
                        best = (auc, shrinkage, components, emphasis, metric[:, :components])
        self.auc, self.shrinkage, self.components, self.emphasis, metric = best
        self._metric = deviations[:, None].astype(np.float32) * metric

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Returns codes of length 1, float32 [N, K], of vectors [N, D]."""
        return _unit(self._whitening(vectors) @ self._metric)


class FeatureLinkage(Attack):
    """Compares features by a metric that is learned on public people."""

    title = "linkage"
    meaning = "Compares features with features, by a metric learned on public people."
    needs = frozenset({IDENTITIES})

    def fit(self, knowledge: Knowledge, folder: Path) -> FittedAttack:
        """Learns the metric, in each view; the best on held-out people counts."""
        train, held_out, fits = knowledge.train, knowledge.held_out, []
        for view in knowledge.views:
            vectors = [each.map(view.vectors) for each in (train, held_out)]
            try:
                metric = Linkage(
                    vectors[0], train.identities, vectors[1], held_out.identities, view.whitening
                )
            except NotApplicableError:
                if view is knowledge.views[-1] and not fits:
                    raise
                continue
            fits.append((metric, view))
        metric, view = max(fits, key=lambda each: each[0].auc)
        codes = held_out.map(lambda features: metric(view.vectors(features)))
        scale = choose_scale(codes, held_out.identities)
        return FittedAttack(
            link=lambda features: metric(view.vectors(features)),
            critic_scale=scale,
            view=view.name,
        )


class LinkageByGuesses(Attack):
    """Compares the face embeddings that are guessed from two features.

    Args:
        guess: the attack that guesses them.
    """

    needs = frozenset({RECOGNIZER})

    def __init__(self, guess: Attack):
        self._guess = guess
        self.title = f"linkage by {guess.title}es"
        self.meaning = f"Compares what the attack {guess.title} gives for two features."

    def fit(self, knowledge: Knowledge, folder: Path) -> FittedAttack:
        """Solves the regression."""
        guess = self._guess.fit(knowledge, folder)
        return FittedAttack(
            link=lambda features: guess.embed(features) - guess.mean_embedding, view=guess.view
        )


def _of_people(
    vectors: np.ndarray, identities: np.ndarray, part: str
) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of people with at least two images, and their numbers from 0."""
    positions, person = repeated_people(identities)
    if person.max(initial=0) < 1:
        raise NotApplicableError(f"no two known people have two images each {part}")
    return np.asarray(vectors)[positions], person


def _first(vectors: np.ndarray, person: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The images of the first people: at least two, and as many as there is time to compare."""
    images = np.cumsum(np.bincount(person))
    is_kept = person <= max(1, np.searchsorted(images, _COMPARED))
    return vectors[is_kept], person[is_kept]


def _covariance(vectors: np.ndarray, person: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The covariance within people, float64 [D, D], and a root of that between their means.

    The root is B, float64 [K, D], with the covariance B'B: people are often fewer than dimensions.
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
    """Where genuine and impostor pairs lie in a flat [N, N], and the weights of genuine pairs.

    With these weights all images count alike.
    """
    first, second = np.triu_indices(len(person), 1)
    is_genuine = person[first] == person[second]
    place = first * len(person) + second
    others = np.bincount(person)[person[first[is_genuine]]] - 1
    return place[is_genuine], place[~is_genuine], 1 / others


def _auc(
    codes: np.ndarray, genuine: np.ndarray, impostor: np.ndarray, weights: np.ndarray
) -> float:
    """The verification AUC of codes."""
    codes = _unit(codes)
    scores = (codes @ codes.T).ravel()
    order = np.argsort(scores[genuine])
    curve = roc_curve(scores[genuine][order], np.sort(scores[impostor]), weights[order])
    return float(area_under(*curve))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
