"""Kernel ridge regression, whose settings held-out people choose.

It is what ridge regression on random features comes to with ever more of them: in closed form, and
exact up to 10,000 images.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from sklearn.utils.extmath import randomized_svd

from tfadv.attacks.views import Known, View, soften

SOFTNESSES = (0.0, 0.1, 1.0, 10.0, 1000.0)  # of the whitening; 0 makes all directions equal
# Kernels, and widths in roots of the mean squared distance.
KERNELS = (("rbf", 1.0), ("rbf", 2.0), ("laplace", 2.0), ("laplace", 4.0))
# Of the penalty for each image, for kernels that are 1 at distance 0.
STRENGTHS = np.geomspace(1e-6, 1e-3, 4)
_ROUGH = ((0.0, 1.0, 1000.0), (1e-6, 1e-4, 1e-2))  # softness and strengths that order views
_FIRST = (800, 400)  # images that views are tried on, and images held out, at most
_SECOND = (1500, 800)  # the same for the other settings: the best ones depend on the number
_VIEWS = 2  # that are tried with all settings, for each kind of target
_FINALISTS = 3  # settings, each of another softness, that are tried on all images
_WEAKER = (1.0, 0.1)  # times the strength that fewer images chose
_EXACT = 10_000  # images up to which the regression is exact
_LANDMARKS = 5_000  # images that stand for all others beyond (Nyström's method)
_COMPARED = 64  # principal components of the targets that settings are chosen by
_BLOCK = 2048

Targets = Callable[[Known, Mapping[str, np.ndarray]], np.ndarray]  # of a batch, float [N, T]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What kernel ridge regression depends on.

    Attributes:
        view: of the feature.
        softness: of the whitening: a direction of variance v keeps v / (v + softness) of it.
        kernel: `rbf`, exp(-d² / 2w²), or `laplace`, exp(-d / w), of the distance d.
        width: w, in roots of the mean squared distance between two training images.
        strength: of the penalty, for each image.
    """

    view: View
    softness: float
    kernel: str = "rbf"
    width: float = 1.0
    strength: float = 1e-4

    def inputs(self, features: np.ndarray) -> np.ndarray:
        """Returns the whitened and softened vectors of features, float32 [N, R]."""
        return soften(self.view.white(features), self.view.whitening.variances, self.softness)

    def between(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Returns the kernel between inputs [N, R] and [M, R], [N, M], in their precision.

        Only in float64 is the kernel of many images positive definite as it should be.
        """
        variances = self.view.whitening.variances
        square = self.width**2 * 2 * np.sum(variances / (variances + self.softness))
        squares = squared_distances(one, other)
        squares /= square
        if self.kernel == "rbf":
            return np.exp(squares / -2, out=squares)
        return np.exp(-np.sqrt(squares, out=squares), out=squares)


class KernelRidge:
    """Kernel ridge regression from features to targets.

    Beyond 10,000 images the kernel is approximated by 5,000 of them (Williams and Seeger 2001).

    Args:
        settings: the best of them on held-out images is used, or one of little less strength.
        train: images to learn from.
        held_out: images to choose by.
        targets: of a batch of them.

    Attributes:
        setting: the chosen one.
    """

    def __init__(
        self, settings: Sequence[Setting], train: Known, held_out: Known, targets: Targets
    ):
        wanted, expected = (_targets(known, targets) for known in (train, held_out))
        self._mean = wanted.mean(0)
        wanted -= self._mean
        reduced, expected = _principal(wanted, expected - self._mean)
        lowest = np.inf
        for each in settings:
            solver = _Solver(each, train, held_out)
            for factor in _WEAKER:
                tried = dataclasses.replace(each, strength=each.strength * factor)
                error = solver.error(tried.strength, reduced, expected)
                if error < lowest:
                    lowest, self.setting, best = error, tried, solver
        self._landmarks = best.landmarks
        self._weights = best.weights(self.setting.strength, wanted).astype(np.float32)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Returns predictions, float32 [N, T]."""
        inputs = self.setting.inputs(features)
        return self.setting.between(inputs, self._landmarks) @ self._weights + self._mean


class _Solver:
    """Solves the regression with one setting and any strength.

    Attributes:
        landmarks: inputs of the images that predictions are compared with, [L, R].
    """

    def __init__(self, setting: Setting, train: Known, held_out: Known):
        self._setting = setting
        self._inputs, queries = (known.map(setting.inputs) for known in (train, held_out))
        self._is_exact = len(self._inputs) <= _EXACT
        step = 1 if self._is_exact else -(-len(self._inputs) // _LANDMARKS)
        self.landmarks = self._inputs[::step]
        precise = self.landmarks.astype(np.float64)
        self._gram = setting.between(precise, precise)
        self._products = self._gram if self._is_exact else self._transposed_times(None)
        self._seen = setting.between(queries, self.landmarks)

    def weights(self, strength: float, wanted: np.ndarray) -> np.ndarray:
        """Returns the weights of the landmarks for centred targets, float64 [L, T]."""
        penalty = np.eye(len(self._gram)) if self._is_exact else self._gram
        penalised = self._products + len(self._inputs) * strength * penalty
        if not self._is_exact:  # K'K has the square of K's condition
            penalised += 1e-10 * penalised.max() * np.eye(len(penalised))
        solved = _factorised(penalised)
        return cho_solve(solved, wanted if self._is_exact else self._transposed_times(wanted))

    def error(self, strength: float, wanted: np.ndarray, expected: np.ndarray) -> float:
        """Returns the squared error on held-out images."""
        rest = self._seen @ self.weights(strength, wanted) - expected
        return float(np.square(rest).sum(1).mean())

    def _transposed_times(self, wanted: np.ndarray | None) -> np.ndarray:
        """K'Y of the kernel K between all inputs and the landmarks, or K'K."""
        landmarks, total = self.landmarks.astype(np.float64), 0.0
        for start in range(0, len(self._inputs), _BLOCK):
            rows = slice(start, start + _BLOCK)
            kernel = self._setting.between(self._inputs[rows].astype(np.float64), landmarks)
            total = total + kernel.T @ (kernel if wanted is None else wanted[rows])
        return total


def choose_settings(
    views: Sequence[View], train: Known, held_out: Known, targets: Mapping[str, Targets]
) -> dict[str, list[Setting]]:
    """Returns the settings with the lowest errors on held-out images, for each kind of target.

    First the views are compared, on some 800 images; then the best of them with every softness,
    kernel and strength, on some 1,500. Empty if all images have the same feature.
    """
    rough = _Search(train, held_out, targets, _FIRST)
    softnesses, strengths = _ROUGH
    for view in views:
        if view.whitening.variances.size:
            for softness in softnesses:
                rough.add(Setting(view, softness), strengths)
    best = rough.best(_VIEWS, lambda setting: setting.view.name)
    chosen = {each.view.name: each.view for settings in best.values() for each in settings}
    fine = _Search(train, held_out, targets, _SECOND)
    for view, softness, (kernel, width) in itertools.product(chosen.values(), SOFTNESSES, KERNELS):
        fine.add(Setting(view, softness, kernel, width), STRENGTHS)
    return fine.best(_FINALISTS, lambda setting: setting.softness)


class _Search:
    """The errors of settings on some of the held-out images, after some of the training images."""

    def __init__(
        self, train: Known, held_out: Known, targets: Mapping[str, Targets], most: tuple[int, int]
    ):
        parts = [
            list(_every(known, -(-known.count // count)))
            for known, count in zip((train, held_out), most, strict=True)
        ]
        self._features = [np.concatenate([each["features"] for each in part]) for part in parts]
        self._targets = {}
        for kind, of_batch in targets.items():
            wanted, expected = (
                np.concatenate([of_batch(known, batch) for batch in part])
                for known, part in zip((train, held_out), parts, strict=True)
            )
            mean = wanted.mean(0)
            self._targets[kind] = _principal(wanted - mean, expected - mean)
        self._white = {}
        self._errors = {kind: {} for kind in targets}

    def add(self, setting: Setting, strengths: Sequence[float]) -> None:
        """Measures a setting with each of some strengths."""
        view = setting.view
        if view.name not in self._white:
            self._white[view.name] = [view.white(each) for each in self._features]
        inputs, queries = (
            soften(white.astype(np.float64), view.whitening.variances, setting.softness)
            for white in self._white[view.name]
        )
        kernel, seen = (setting.between(each, inputs) for each in (inputs, queries))
        wanted = np.concatenate(
            [each for each, _ in self._targets.values()], axis=1, dtype=np.float32
        )
        for strength in strengths:
            solved = _factorised(kernel + len(inputs) * strength * np.eye(len(kernel)))
            rests = seen @ cho_solve(solved, wanted)
            start = 0
            for kind, (_, expected) in self._targets.items():
                rest = rests[:, start : (start := start + expected.shape[1])] - expected
                tried = dataclasses.replace(setting, strength=strength)
                self._errors[kind][tried] = float(np.square(rest).sum(1).mean())

    def best(self, count: int, key: Callable[[Setting], Any]) -> dict[str, list[Setting]]:
        """Returns so many settings with the lowest errors, of different keys, for each kind."""
        found = {}
        for kind, errors in self._errors.items():
            kept = {}
            for setting in sorted(errors, key=errors.get):
                kept.setdefault(key(setting), setting)
            found[kind] = list(kept.values())[:count]
        return {kind: settings for kind, settings in found.items() if settings}


def squared_distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns the squared distances between vectors [N, R] and [M, R], [N, M]."""
    squares = one @ other.T
    squares *= -2
    squares += np.square(one).sum(1)[:, None]
    squares += np.square(other).sum(1)
    return np.maximum(squares, 0.0, out=squares)


def _factorised(matrix: np.ndarray) -> tuple[np.ndarray, bool]:
    return cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)


def _principal(wanted: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest principal components of centred targets, and the same of held-out ones."""
    if wanted.shape[1] <= _COMPARED:
        return wanted, expected
    directions = randomized_svd(wanted, _COMPARED, random_state=0)[2].T
    return wanted @ directions, expected @ directions


def _targets(known: Known, targets: Targets) -> np.ndarray:
    return np.concatenate([targets(known, batch) for batch in known.pairs.batches()])


def _every(known: Known, step: int) -> Iterator[dict[str, np.ndarray]]:
    for batch in known.pairs.batches():
        rows = batch["index"] % step == 0
        if rows.any():
            yield {name: values[rows] for name, values in batch.items()}
