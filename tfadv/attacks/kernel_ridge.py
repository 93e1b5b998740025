"""Kernel ridge regression, whose settings held-out people choose.

It is what ridge regression on random features comes to with ever more of them: in closed form, and
exact up to 10,000 images.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from sklearn.utils.extmath import randomized_svd

from tfadv.attacks.views import Known, View, soften

SOFTNESSES = (0.0, 0.01, 0.1, 1.0, 10.0)  # of the whitening; 0 makes all directions equal
KERNELS = ("rbf", "laplace")
WIDTHS = (0.5, 1.0, 2.0)  # times the root of the mean squared distance
STRENGTHS = np.geomspace(1e-7, 1e-1, 7)  # of the penalty, for kernels that are 1 at distance 0
_WEAKER = (1.0, 0.3, 0.1, 0.03)  # times the strength that few images chose
_SEARCHED = (1200, 600)  # images that settings are learned on and chosen on, at most
_CANDIDATES = 3  # views with their softness that are tried with all kernels, for each target
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
        width: w, in distances between softened vectors.
        strength: of the penalty, for each image.
    """

    view: View
    softness: float
    kernel: str = "rbf"
    width: float = 1.0
    strength: float = 1e-3

    def inputs(self, features: np.ndarray) -> np.ndarray:
        """Returns the whitened and softened vectors of features, float32 [N, R]."""
        return soften(self.view.white(features), self.view.whitening.variances, self.softness)

    def between(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Returns the kernel between inputs [N, R] and [M, R], float32 [N, M]."""
        squares = squared_distances(one, other)
        if self.kernel == "rbf":
            return np.exp(squares / (-2 * self.width**2), out=squares)
        return np.exp(np.sqrt(squares, out=squares) / -self.width, out=squares)


class KernelRidge:
    """Kernel ridge regression from features to targets.

    Beyond 10,000 images the kernel is approximated by 5,000 of them (Williams and Seeger 2001).

    Args:
        setting: of the regression; its strength is chosen anew among weaker ones.
        train: images to learn from.
        held_out: images to choose the strength by.
        targets: of a batch of them.
    """

    def __init__(self, setting: Setting, train: Known, held_out: Known, targets: Targets):
        inputs, wanted = _collect(setting, train, targets)
        queries, expected = _collect(setting, held_out, targets)
        self._mean = wanted.mean(0)
        wanted = wanted - self._mean
        reduced, expected = _principal(wanted, expected - self._mean)
        exact = len(inputs) <= _EXACT
        step = 1 if exact else -(-len(inputs) // _LANDMARKS)
        self._landmarks = inputs[::step]
        gram = setting.between(self._landmarks, self._landmarks).astype(np.float64)
        if exact:
            penalty, left, right = np.eye(len(gram)), gram, (reduced, wanted)
        else:
            penalty, left, right = (
                gram,
                *_normal_equations(setting, self._landmarks, inputs, (reduced, wanted)),
            )
        seen = setting.between(queries, self._landmarks)
        best = (np.inf,)
        for factor in _WEAKER:
            strength = factor * setting.strength
            solved = _factorised(left + len(inputs) * strength * penalty)
            error = np.square(seen @ cho_solve(solved, right[0]) - expected).sum(1).mean()
            if error < best[0]:
                best = (error, strength, solved)
        _, strength, solved = best
        self.setting = dataclasses.replace(setting, strength=strength)
        self._weights = cho_solve(solved, right[1]).astype(np.float32)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Returns predictions, float32 [N, T]."""
        inputs = self.setting.inputs(features)
        return self.setting.between(inputs, self._landmarks) @ self._weights + self._mean


def choose_settings(
    views: Sequence[View], train: Known, held_out: Known, targets: Mapping[str, Targets]
) -> dict[str, Setting]:
    """Returns the setting with the lowest error on held-out images, for each kind of target.

    Some 1,200 images are learned from. First every view with every softness, then the best three
    with every kernel and width.
    """
    parts = [_few(known, most) for known, most in zip((train, held_out), _SEARCHED, strict=True)]
    wanted, expected = {}, {}
    for kind, of_batch in targets.items():
        known, others = (
            np.concatenate([of_batch(images, batch) for batch in batches])
            for images, batches in zip((train, held_out), parts, strict=True)
        )
        mean = known.mean(0)
        wanted[kind], expected[kind] = _principal(known - mean, others - mean)
    features = [np.concatenate([batch["features"] for batch in part]) for part in parts]
    errors = {kind: {} for kind in targets}

    def measure(setting, inputs, queries):
        kernel = setting.between(inputs, inputs).astype(np.float64)
        seen = setting.between(queries, inputs)
        for strength in STRENGTHS:
            tried = dataclasses.replace(setting, strength=strength)
            solved = _factorised(kernel + len(inputs) * strength * np.eye(len(kernel)))
            for kind in targets:
                rest = seen @ cho_solve(solved, wanted[kind]) - expected[kind]
                errors[kind][tried] = float(np.square(rest).sum(1).mean())

    prepared = {}
    for view in views:
        white = [view.white(each) for each in features]
        for softness in SOFTNESSES:
            inputs = [soften(each, view.whitening.variances, softness) for each in white]
            width = np.sqrt(2 * inputs[0].var(0).sum())
            if width > 0:  # else all images have the same vector
                setting = Setting(view, softness, width=float(width))
                prepared[setting.view.name, softness] = inputs
                measure(setting, *inputs)
    candidates = set()
    for found in errors.values():
        best = {}
        for setting in sorted(found, key=found.get):
            best.setdefault((setting.view.name, setting.softness), setting)
        candidates |= set(list(best.values())[:_CANDIDATES])
    for candidate in candidates:
        inputs = prepared[candidate.view.name, candidate.softness]
        for kernel in KERNELS:
            for factor in WIDTHS:
                width = candidate.width * factor
                if (kernel, factor) != ("rbf", 1.0):
                    measure(dataclasses.replace(candidate, kernel=kernel, width=width), *inputs)
    return {kind: min(found, key=found.get) for kind, found in errors.items() if found}


def squared_distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns the squared distances between vectors [N, R] and [M, R], [N, M]."""
    squares = one @ other.T
    squares *= -2
    squares += np.square(one).sum(1)[:, None]
    squares += np.square(other).sum(1)
    return np.maximum(squares, 0.0, out=squares)


def _factorised(matrix: np.ndarray) -> tuple[np.ndarray, bool]:
    return cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)


def _normal_equations(
    setting: Setting, landmarks: np.ndarray, inputs: np.ndarray, targets: Sequence[np.ndarray]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """K'K and K'Y of the kernel K between all inputs and the landmarks."""
    products, right = 0.0, [0.0 for _ in targets]
    for start in range(0, len(inputs), _BLOCK):
        rows = slice(start, start + _BLOCK)
        kernel = setting.between(inputs[rows], landmarks)
        products = products + (kernel.T @ kernel).astype(np.float64)
        right = [sums + kernel.T @ each[rows] for sums, each in zip(right, targets, strict=True)]
    return products, right


def _principal(wanted: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest principal components of centred targets, and the same of held-out ones."""
    if wanted.shape[1] <= _COMPARED:
        return wanted, expected
    directions = randomized_svd(wanted, _COMPARED, random_state=0)[2].T
    return wanted @ directions, expected @ directions


def _collect(setting: Setting, known: Known, targets: Targets) -> tuple[np.ndarray, np.ndarray]:
    parts = [
        (setting.inputs(batch["features"]), targets(known, batch))
        for batch in known.pairs.batches()
    ]
    inputs, wanted = map(np.concatenate, zip(*parts, strict=True))
    return inputs, wanted


def _few(known: Known, most: int) -> list[dict[str, np.ndarray]]:
    """Batches of evenly spread images, at most so many."""
    return list(_every(known, -(-known.count // most)))


def _every(known: Known, step: int) -> Iterator[dict[str, np.ndarray]]:
    for batch in known.pairs.batches():
        rows = batch["index"] % step == 0
        if rows.any():
            yield {name: values[rows] for name, values in batch.items()}
