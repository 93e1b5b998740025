"""Attackers that solve for their answer instead of training a network: minutes become seconds.

They see what standardised features hide from networks that stop early: every direction of the
features is brought to light, however little variance a defence left it, and a ridge penalty chosen
on held-out people says how far to trust it.
"""

import math
from collections.abc import Callable, Iterable

import cv2
import numpy as np

from tfadv.attacks.pairs import Pairs
from tfadv.evaluation.whitening import Whitening, to_vectors

Pair = tuple[np.ndarray, np.ndarray]

STRENGTHS = np.geomspace(1e-16, 1e4, 41)  # of the penalty, where the mean eigenvalue is 1
_COMPARED = 512  # targets that strengths are compared on
_SIDE = 64  # pixels a side at which pictures are fitted, at most
_SOFTNESS = 0.1  # of the whitening before vectors are mixed at random
_EMPHASES = (0.01, 0.1)  # of random features, against 1 for the plain ones
_SOFTNESSES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1)  # of the whitening before a search


class Ridge:
    """Ridge regression whose strength is chosen on held-out pairs, in one eigendecomposition.

    The inputs are standardised; the intercept isn't penalised. In the eigenbasis the penalty is a
    factor on each direction, so that the whole path of `STRENGTHS` costs little more than one of
    them. Memory doesn't grow with the number of pairs. A strength s equals scikit-learn's
    `Ridge(alpha=N * s)` on inputs from `StandardScaler`.

    Args:
        pairs: called twice; each time yields all pairs, inputs float [N, D] and targets float
            [N, T].
        held_out: the same of others.
        whitening: of the inputs, where it is at hand; one with emphasis penalises an input less
            that has more of it.
        per_target: whether each target has a strength of its own.

    Attributes:
        strength: chosen; a float, or float64 [T] with `per_target`.
        held_out_error: the mean squared error with it on some of the held-out targets.
    """

    def __init__(
        self,
        pairs: Callable[[], Iterable[Pair]],
        held_out: Callable[[], Iterable[Pair]],
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

    def _solve(self, pairs: Iterable[Pair]) -> tuple[np.ndarray, np.ndarray]:
        """The targets' mean [T] and the coefficients without penalty, [R, T], of white inputs."""
        count, sums, products = 0, 0.0, 0.0
        for inputs, targets in pairs:
            products += self._whitening(inputs).T @ targets
            count += len(inputs)
            sums += targets.sum(0, dtype=np.float64)
        return (sums / count).astype(np.float32), np.float32(products) / count

    def _choose(
        self, held_out: Iterable[Pair], per_target: bool
    ) -> tuple[float | np.ndarray, float]:
        """The strength with the smallest squared error, in all or for each target."""
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
        """What the penalty leaves of each direction, float32 [R, 1] or [R, T]."""
        variances = self._whitening.variances[:, None]
        return (variances / (variances + strength)).astype(np.float32)


class RandomFeatures:
    """Random ReLU features of vectors, beside the vectors themselves.

    Args:
        whitening: of vectors, float [N, D]: brings their directions to light before they are mixed.
        count: how many are random.
        seed: which they are.
    """

    def __init__(self, whitening: Whitening, count: int, seed: int):
        self._whitening = whitening
        variances, random = whitening.variances, np.random.default_rng(seed)
        # Half-way between white, where noise would drown all, and the plain vectors.
        scale = np.sqrt(variances / (variances + _SOFTNESS))
        weights = random.normal(size=(len(scale), count)) * scale[:, None]
        self._weights = (weights / np.linalg.norm(scale)).astype(np.float32)
        self._biases = random.normal(size=count).astype(np.float32)

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Returns vectors with their random features, float32 [N, D + count]."""
        mixed = self._whitening(vectors) @ self._weights + self._biases
        return np.concatenate([vectors, np.maximum(mixed, 0.0)], axis=1)


class ClosedFormDecoder:
    """Ridge regression from features to pixels, plain or through random features.

    Pictures are fitted at 64 pixels a side at most, by area averaging, and enlarged bilinearly, so
    that memory doesn't grow with their size.

    Args:
        train: public pairs to learn from.
        held_out: public pairs of other people, on which the strength is chosen.
        size: S, the pixels a side of a picture.
        random_features: how many random ReLU features are put beside the feature; how much they
            count is chosen on held-out pairs too.
        seed: of the random features.
        whitening: of the training features, where it is at hand.

    Attributes:
        held_out_loss: mean squared error of held-out pictures in [-1, 1], at the size of the fit.
    """

    def __init__(
        self,
        train: Pairs,
        held_out: Pairs,
        size: int,
        random_features: int = 0,
        seed: int = 0,
        whitening: Whitening | None = None,
    ):
        whitening = whitening or whiten(train)
        self._size, self._side = size, min(size, _SIDE)
        self._expand = to_vectors
        whitenings = [whitening]
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
        pictures = self._fit(self._expand(features)).reshape(-1, self._side, self._side, 3)
        return _resized(pictures, self._size, cv2.INTER_LINEAR)

    def _fit(self, inputs: np.ndarray) -> np.ndarray:
        return np.clip(self._ridge(inputs), -1.0, 1.0)

    def _pairs(self, pairs: Pairs) -> Callable[[], Iterable[Pair]]:
        """What the ridge regression is fed: vectors, and pictures of its size in [-1, 1]."""

        def batches():
            for batch in pairs.batches():
                small = _resized(batch["images"], self._side, cv2.INTER_AREA)
                targets = small.reshape(len(small), -1).astype(np.float32) / 127.5 - 1.0
                yield self._expand(batch["features"]), targets

        return batches


def _resized(pictures: np.ndarray, side: int, method: int) -> np.ndarray:
    if pictures.shape[1] == side:
        return pictures
    return np.stack([cv2.resize(each, (side, side), interpolation=method) for each in pictures])


def whiten(pairs: Pairs) -> Whitening:
    """Returns the whitening of the features of pairs, as vectors."""
    return Whitening(to_vectors(batch["features"]) for batch in pairs.batches())


class NearestNeighbour:
    """Finds the public picture whose whitened feature is nearest, by cosine similarity.

    White to the strength at which features are best inverted, so that neither noise nor the loudest
    directions decide alone.

    Args:
        train: public pairs to look among.
        held_out: public pairs of other people, on which that strength is chosen.
        whitening: of the training features, where it is at hand.
    """

    def __init__(self, train: Pairs, held_out: Pairs, whitening: Whitening | None = None):
        self._whitening = whitening or whiten(train)
        known = np.concatenate([self._white(b["features"]) for b in train.batches()])
        small, asked, wanted = (
            np.concatenate([_thumbnails(b["images"]) for b in train.batches()]),
            np.concatenate([self._white(b["features"]) for b in held_out.batches()]),
            np.concatenate([_thumbnails(b["images"]) for b in held_out.batches()]),
        )
        errors = []
        for strength in _SOFTNESSES:
            nearest = _nearest(self._soften(asked, strength), self._soften(known, strength))
            errors.append(np.square(small[nearest] - wanted).mean())
        self.strength = _SOFTNESSES[int(np.argmin(errors))]
        self._known = self._soften(known, self.strength)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Returns the places of the nearest public pictures, int [N]."""
        return _nearest(self._soften(self._white(features), self.strength), self._known)

    def _white(self, features: np.ndarray) -> np.ndarray:
        return self._whitening(to_vectors(features))

    def _soften(self, white: np.ndarray, strength: float) -> np.ndarray:
        variances = self._whitening.variances
        soft = white * np.sqrt(variances / (variances + strength)).astype(np.float32)
        return soft / np.maximum(np.linalg.norm(soft, axis=1, keepdims=True), 1e-12)


def _thumbnails(images: np.ndarray) -> np.ndarray:
    """Pictures at 16 pixels a side in [-1, 1], float32 [N, 768]: enough to compare them."""
    small = _resized(images, 16, cv2.INTER_AREA)
    return small.reshape(len(small), -1).astype(np.float32) / 127.5 - 1.0


def _nearest(asked: np.ndarray, known: np.ndarray, block: int = 1024) -> np.ndarray:
    starts = range(0, len(asked), block)
    return np.concatenate([(asked[i : i + block] @ known.T).argmax(1) for i in starts])
