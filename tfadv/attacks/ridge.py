"""Attacks in closed form: ridge regression takes seconds where training a network takes minutes.

Networks that stop early miss what lies in directions of small variance. These attacks see every
direction of the standardised features, however little variance a defence left it. A penalty that
is chosen on held-out people says how far to trust it. So is the view of the feature.
"""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np

from tfadv.attacks.attack import Attack, FittedAttack
from tfadv.attacks.knowledge import Knowledge, KnownImages, embeddings_of
from tfadv.attacks.views import View
from tfadv.data.images import resized, thumbnails
from tfadv.evaluation.leakage_measures import RECOGNIZER
from tfadv.evaluation.whitening import Whitening

Batches = Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]  # of inputs and targets
Predict = Callable[[np.ndarray], np.ndarray]  # from features
Targets = Callable[[KnownImages, dict[str, np.ndarray]], np.ndarray]  # of a batch of images

STRENGTHS = np.geomspace(1e-16, 1e4, 41)  # of the penalty, where the mean eigenvalue is 1
_COMPARED = 512  # targets that strengths are compared on
_SIDE = 64  # pixels per side at which images are fitted, at most


class Ridge:
    """Ridge regression whose strength is chosen on held-out pairs, in one eigendecomposition.

    The inputs are standardised; the intercept is not penalised. In the eigenbasis the penalty is a
    factor on each direction, so that all of `STRENGTHS` cost little more than one of them. Memory
    does not grow with the number of pairs. A strength s equals scikit-learn's `Ridge(alpha=N * s)`
    on inputs from `StandardScaler`.

    Args:
        pairs: called twice; each time yields all pairs: inputs float [N, D], targets float [N, T].
        held_out: the same of held-out pairs.
        whitening: of the inputs, if it is known.
        per_target: whether each target has its own strength.

    Attributes:
        strength: the chosen one; a float, or float64 [T] with `per_target`.
        held_out_error: the mean squared error of clipped predictions on some of the held-out
            targets.
        low, high: what predictions are clipped to, [T]: the range of each target, and half of it
            on both sides.
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
        low, high = np.inf, -np.inf
        for inputs, targets in pairs:
            low, high = np.minimum(low, targets.min(0)), np.maximum(high, targets.max(0))
            products += self._whitening(inputs).T @ targets
            count += len(inputs)
            sums += targets.sum(0, dtype=np.float64)
        self.low, self.high = low - (high - low) / 2, high + (high - low) / 2
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
        low, high = (each[some] - self._mean[some] for each in (self.low, self.high))
        return np.square(np.clip(predicted, low, high) - rest).sum(0, dtype=np.float64)

    def _shrinkage(self, strength: float | np.ndarray) -> np.ndarray:
        """The share of each direction that the penalty keeps, float32 [R, 1] or [R, T]."""
        variances = self._whitening.variances[:, None]
        return (variances / (variances + strength)).astype(np.float32)


class RidgeAttack(Attack):
    """Ridge regression from features to some target."""

    def _solve(self, knowledge: Knowledge, targets: Targets) -> tuple[Predict, float, str]:
        """Returns the regression, its squared error on some held-out targets, and its view.

        It is fitted in each view; the best one on held-out images counts. Predictions are clipped:
        one image with huge values must not decide for all others.
        """

        def fit(view: View) -> Ridge:
            def pairs(known):
                for batch in known.pairs.batches():
                    yield view.vectors(batch["features"]), targets(known, batch)

            parts = (knowledge.train, knowledge.held_out)
            return Ridge(*(functools.partial(pairs, each) for each in parts), view.whitening)

        fits = ((fit(view), view) for view in knowledge.views)
        ridge, view = min(fits, key=lambda each: each[0].held_out_error)

        def predict(features):
            return np.clip(ridge(view.vectors(features)), ridge.low, ridge.high)

        return predict, ridge.held_out_error, view.name


class RidgeDecoder(RidgeAttack):
    """Ridge regression from features to pixels.

    Images are fitted at 64 pixels per side at most, by area averaging, and enlarged bilinearly, so
    that memory does not grow with their size.
    """

    title = "linear decoder"
    meaning = "Ridge regression from features to pixels, in closed form."

    def fit(self, knowledge: Knowledge, folder: Path) -> FittedAttack:
        """Solves the regression; its loss is the squared error in [-1, 1], at the fitted size."""
        size = knowledge.train.pairs.size
        side = min(size, _SIDE)

        def small(known, batch):
            return thumbnails(batch["images"], side)

        predict, _, view = self._solve(knowledge, small)

        def fitted(features):
            return np.clip(predict(features), -1.0, 1.0)

        def reconstruct(features):
            images = fitted(features).reshape(-1, side, side, 3)
            return resized(images, size, cv2.INTER_LINEAR)

        held_out, error = knowledge.held_out, 0.0
        for batch in held_out.pairs.batches():
            squares = np.square(fitted(batch["features"]) - small(held_out, batch))
            error += squares.sum(dtype=np.float64) / squares.shape[1]
        return FittedAttack(
            reconstruct=reconstruct, held_out_loss=float(error / held_out.count), view=view
        )


class RidgeFeatureMap(RidgeAttack):
    """Ridge regression from features to face embeddings."""

    title = "linear embedding guess"
    meaning = "Ridge regression from features to face embeddings, in closed form."
    needs = frozenset({RECOGNIZER})

    def fit(self, knowledge: Knowledge, folder: Path) -> FittedAttack:
        """Solves the regression."""
        embed, error, view = self._solve(knowledge, embeddings_of)
        mean = knowledge.train.embeddings.embedding.mean(0)
        return FittedAttack(embed=embed, mean_embedding=mean, held_out_loss=error, view=view)
