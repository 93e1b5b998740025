"""Attacks in closed form: ridge regression takes seconds where training a network takes minutes.

Networks that stop early miss what lies in directions of small variance. These attacks see every
direction of the standardised features, however little variance a defence left it. A penalty that
is chosen on held-out people says how far to trust it.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from tfadv.attacks.attack import (
    RECOGNIZER,
    Attack,
    FittedAttack,
)
from tfadv.attacks.knowledge import Knowledge, Pairs, PairsSubset
from tfadv.evaluation.whitening import Whitening, to_vectors

Batches = Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]  # of inputs and targets

STRENGTHS = np.geomspace(1e-16, 1e4, 41)  # of the penalty, where the mean eigenvalue is 1
_COMPARED = 512  # targets that strengths are compared on
_SIDE = 64  # pixels per side at which images are fitted, at most
_SOFTNESS = 0.1  # of the whitening before vectors are mixed at random
_EMPHASES = (0.01, 0.1)  # of random features, against 1 for the plain ones


class Ridge:
    """Ridge regression whose strength is chosen on held-out pairs, in one eigendecomposition.

    The inputs are standardised; the intercept is not penalised. In the eigenbasis the penalty is a
    factor on each direction, so that all of `STRENGTHS` cost little more than one of them. Memory
    does not grow with the number of pairs. A strength s equals scikit-learn's `Ridge(alpha=N * s)`
    on inputs from `StandardScaler`.

    Args:
        pairs: called twice; each time yields all pairs: inputs float [N, D], targets float [N, T].
        held_out: the same of held-out pairs.
        whitening: of the inputs, if it is known. With an emphasis, an input that has more of it is
            penalised less.
        per_target: whether each target has its own strength.

    Attributes:
        strength: the chosen one; a float, or float64 [T] with `per_target`.
        held_out_error: its mean squared error on some of the held-out targets.
    """

    def __init__(
        self,
        pairs: Batches,
        held_out: Batches,
        whitening: Whitening | None = None,
        *,
        per_target: bool = False,
    ):
        self._whitening = whitening or Whitening(inputs for inputs, _ in pairs())
        self._mean, self._coefficients = self._solve(pairs())
        self.strength, self.held_out_error = self._choose(held_out(), per_target)
        self._coefficients *= self._shrinkage(self.strength)

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Returns predictions, float32 [N, T]."""
        return self._whitening(inputs) @ self._coefficients + self._mean

    def _solve(self, pairs) -> tuple[np.ndarray, np.ndarray]:
        """The targets' mean [T], and the coefficients of white inputs without penalty, [R, T]."""
        count, sums, products = 0, 0.0, 0.0
        for inputs, targets in pairs:
            products += self._whitening(inputs).T @ targets
            count += len(inputs)
            sums += targets.sum(0, dtype=np.float64)
        return (sums / count).astype(np.float32), np.float32(products) / count

    def _choose(self, held_out, per_target: bool) -> tuple[float | np.ndarray, float]:
        """The strength with the smallest squared error, over all targets or for each."""
        some = slice(None, None, 1 if per_target else -(-len(self._mean) // _COMPARED) | 1)
        errors, count = 0.0, 0
        for inputs, targets in held_out:
            white, rest = self._whitening(inputs), (targets - self._mean)[:, some]
            errors = errors + np.stack(
                [self._squares(white, rest, strength, some) for strength in STRENGTHS]
            )
            count += len(inputs)
        if per_target:
            return STRENGTHS[errors.argmin(0)], float(errors.min(0).mean() / count)
        errors = errors.mean(1) / count
        return float(STRENGTHS[errors.argmin()]), float(errors.min())

    def _squares(self, white, rest, strength, some) -> np.ndarray:
        """The sum of squared errors of some targets, [T], at one strength."""
        predicted = (white * self._shrinkage(strength)[:, 0]) @ self._coefficients[:, some]
        return np.square(predicted - rest).sum(0, dtype=np.float64)

    def _shrinkage(self, strength: float | np.ndarray) -> np.ndarray:
        """The share of each direction that the penalty keeps, float32 [R, 1] or [R, T]."""
        variances = self._whitening.variances[:, None]
        return (variances / (variances + strength)).astype(np.float32)


class RandomFeatures:
    """Appends random ReLU features to vectors.

    Args:
        whitening: of vectors, float [N, D]; it makes all directions comparable before mixing.
        count: number of random features.
        seed: of the random weights.
    """

    def __init__(self, whitening: Whitening, count: int, seed: int):
        self._whitening = whitening
        variances, random = whitening.variances, np.random.default_rng(seed)
        # Half-way between white, where noise would dominate, and the plain vectors.
        scale = np.sqrt(variances / (variances + _SOFTNESS))
        weights = random.normal(size=(len(scale), count)) * scale[:, None]
        self._weights = (weights / np.linalg.norm(scale)).astype(np.float32)
        self._biases = random.normal(size=count).astype(np.float32)

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Returns vectors with their random features, float32 [N, D + count]."""
        mixed = self._whitening(vectors) @ self._weights + self._biases
        return np.concatenate([vectors, np.maximum(mixed, 0.0)], axis=1)


class ImageRidge:
    """Ridge regression from features to pixels, plain or with random features.

    Images are fitted at 64 pixels per side at most, by area averaging, and enlarged bilinearly, so
    that memory does not grow with their size.

    Args:
        train: public pairs to learn from.
        held_out: public pairs of other people, by which the strength is chosen.
        whitening: of the training features.
        random_features: number of random ReLU features; 0: none. Their emphasis is chosen on
            held-out pairs too.
        seed: of the random features.

    Attributes:
        held_out_loss: mean squared error of held-out images in [-1, 1], at the size of the fit.
    """

    def __init__(
        self,
        train: Pairs | PairsSubset,
        held_out: Pairs,
        whitening: Whitening,
        random_features: int = 0,
        seed: int = 0,
    ):
        self._size, self._side = train.size, min(train.size, _SIDE)
        self._expand = to_vectors
        whitenings: Sequence[Whitening] = [whitening]
        if random_features:
            random = RandomFeatures(whitening, random_features, seed)
            self._expand = lambda features: random(to_vectors(features))
            plain = math.prod(to_vectors(next(iter(train.batches()))["features"]).shape[1:])
            emphases = [np.repeat([1.0, each], [plain, random_features]) for each in _EMPHASES]
            whitenings = [
                Whitening((self._expand(batch["features"]) for batch in train.batches()), emphasis)
                for emphasis in emphases
            ]
        fits = [Ridge(self._pairs(train), self._pairs(held_out), each) for each in whitenings]
        self._ridge = min(fits, key=lambda fit: fit.held_out_error)
        errors = [
            np.square(self._fit(inputs) - targets).sum(dtype=np.float64) / targets.shape[1]
            for inputs, targets in self._pairs(held_out)()
        ]
        self.held_out_loss = float(sum(errors) / held_out.count)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Returns reconstructions, float32 [N, S, S, 3] in [-1, 1]."""
        images = self._fit(self._expand(features)).reshape(-1, self._side, self._side, 3)
        return resized(images, self._size, cv2.INTER_LINEAR)

    def _fit(self, inputs: np.ndarray) -> np.ndarray:
        return np.clip(self._ridge(inputs), -1.0, 1.0)

    def _pairs(self, pairs: Pairs | PairsSubset) -> Batches:
        """The inputs and targets of the regression: vectors, and small images in [-1, 1]."""

        def batches():
            for batch in pairs.batches():
                yield self._expand(batch["features"]), thumbnails(batch["images"], self._side)

        return batches


class RidgeDecoder(Attack):
    """Ridge regression from features to pixels.

    Args:
        random_features: number of random ReLU features; 0: none.
        seed: of the random features.
    """

    title = "linear decoder"
    meaning = "Ridge regression from features to pixels, in closed form."

    def __init__(self, random_features: int = 0, seed: int = 0):
        self._random_features, self._seed = random_features, seed
        if random_features:
            self.title = "random-features decoder"
            self.meaning = (
                "Ridge regression from features and random ReLU features of them to pixels."
            )

    def fit(self, knowledge: Knowledge, folder: Path) -> FittedAttack:
        """Solves the regression."""
        decode = ImageRidge(
            knowledge.train.pairs,
            knowledge.held_out.pairs,
            knowledge.whitening,
            self._random_features,
            self._seed,
        )
        return FittedAttack(reconstruct=decode, held_out_loss=decode.held_out_loss)


class RidgeFeatureMap(Attack):
    """Ridge regression from features to face embeddings.

    Args:
        random_features: number of random ReLU features; 0: none.
        seed: of the random features.
    """

    title = "linear M(Z)"
    meaning = "Ridge regression from features to face embeddings, in closed form."
    needs = frozenset({RECOGNIZER})

    def __init__(self, random_features: int = 0, seed: int = 0):
        self._random_features, self._seed = random_features, seed
        if random_features:
            self.title = "random-features M(Z)"
            self.meaning = (
                "Ridge regression from features and random ReLU features of them to face "
                "embeddings."
            )

    def fit(self, knowledge: Knowledge, folder: Path) -> FittedAttack:
        """Solves the regression."""
        expand, whitening = to_vectors, knowledge.whitening
        if self._random_features:
            random = RandomFeatures(knowledge.whitening, self._random_features, self._seed)
            expand, whitening = lambda features: random(to_vectors(features)), None
        ridge = embedding_ridge(knowledge, expand, whitening)
        return FittedAttack(
            embed=lambda features: ridge(expand(features)),
            mean_embedding=knowledge.train.embeddings.embedding.mean(0),
            held_out_loss=ridge.held_out_error,
        )


def embedding_ridge(
    knowledge: Knowledge,
    expand: Callable[[np.ndarray], np.ndarray] = to_vectors,
    whitening: Whitening | None = None,
) -> Ridge:
    """Returns ridge regression from features, expanded to vectors, to face embeddings."""

    def batches(known):
        for batch in known.pairs.batches():
            yield expand(batch["features"]), known.embeddings.embedding[batch["index"]]

    parts = (functools.partial(batches, known) for known in (knowledge.train, knowledge.held_out))
    return Ridge(*parts, whitening)


def thumbnails(images: np.ndarray, side: int) -> np.ndarray:
    """Returns uint8 images at `side` pixels per side as vectors in [-1, 1], float32 [N, D]."""
    small = resized(images, side, cv2.INTER_AREA)
    return small.reshape(len(small), -1).astype(np.float32) / 127.5 - 1.0


def resized(images: np.ndarray, side: int, method: int) -> np.ndarray:
    """Returns images [N, S, S, 3] at `side` pixels per side, by a method of OpenCV."""
    if images.shape[1] == side:
        return images
    return np.stack([cv2.resize(each, (side, side), interpolation=method) for each in images])
