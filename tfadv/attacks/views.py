"""Views of a feature: the ways in which attacks in closed form look at it.

A feature can hide what it says from whoever looks in one way only. A few images with huge values
hide all others from least squares; the last digits of a number carry a second one; a sign turns a
payload that is linear otherwise. Each view undoes one such trick, for every feature, whether it
was made to deceive or came out like that. An attack is fitted on every view, and held-out people
decide which one counts.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from sklearn.preprocessing import QuantileTransformer

from tfadv.data.images import thumbnails
from tfadv.evaluation.moments import robust_bounds, standard_scale
from tfadv.evaluation.recognition.recognizer import Embeddings
from tfadv.evaluation.whitening import LONG, Whitening

Transform = Callable[[np.ndarray], np.ndarray]  # of vectors or features [N, ...], to float [N, D]

_SAMPLE = 20_000  # images that statistics are taken from, at most, ...
_SAMPLE_VALUES = 2**26  # ... and values of their features, but ...
_FEWEST = 500  # ... no fewer images than these
_SCREENED = (700, 400)  # images that a screen learns from and is measured on, at most
_FAR = 5.0  # robust standard deviations at which values are clipped
_QUANTILES = 1000
_MOST_LEVELS = 16
_GAP = 1 / 32  # of a dimension's range: a wider gap parts two levels
_RAREST = 0.005  # share of the images that a level must have
_LOW_BITS = range(3, 23)  # of the 23 bits of a float32's fraction
_GAIN = 0.99  # a view that is made to measure must lower the screen's error to this share
_SEARCHED = 2000  # images among which discrete directions are searched
_STARTS = 256  # directions from which discrete ones are searched
_LONGEST = 1024  # directions in which discrete ones are searched
_TRIED = 24  # discrete directions that are tried
_SELECTED = (32, 256, 2048)  # dimensions of a long feature
_GATES = 3  # discrete directions that are used together, at most


class Known(Protocol):
    """What views are made of: `knowledge.KnownImages`."""

    pairs: Any
    count: int
    embeddings: Embeddings | None


class Classifier(Protocol):
    """The classifier that lies beside an encoder, as its holder can look into it."""

    def layers(self, features: np.ndarray) -> np.ndarray:
        """Returns the last hidden layer, where there is one, and the logits, float32 [N, K]."""

    def hard_predictions(self, features: np.ndarray) -> np.ndarray:
        """Returns 1 (yes) and -1 (no), float32 [N, A]."""


@dataclasses.dataclass(frozen=True)
class View:
    """One way to look at a feature.

    Attributes:
        name: of the way.
        vectors: features [N, ...] to vectors, float [N, D].
        whitening: of the training images' vectors.
    """

    name: str
    vectors: Transform
    whitening: Whitening

    def white(self, features: np.ndarray) -> np.ndarray:
        """Returns the vectors of features, whitened, float32 [N, R]."""
        return self.whitening(self.vectors(features))


def make_views(train: Known, held_out: Known, classifier: Classifier | None) -> list[View]:
    """Returns the views that can tell an attacker something that the plain one does not.

    - `plain`: the feature as a vector.
    - `winsorised`: clipped at five robust standard deviations (median and median deviation), if
      any value lies outside.
    - `ranks`: each dimension by its rank among training images, as a normal quantile.
    - `residuals`: with the distance from the nearest level, where a dimension has a few levels.
    - `low bits`: with the lowest bits of each float32, if these alone predict anything.
    - `gated`: with products of the vector and the levels of a discrete direction, if these predict
      better.
    - `classifier`: with the last hidden layer and the logits of the encoder's classifier, clipped.
    - `predictions`: the classifier's hard predictions alone: what every feature leaks at least.

    Of features of more than 4,096 values there are no ranks, residuals, low bits or gates, but:

    - `selected`: the 32, 256 or 2,048 dimensions that correlate most with images and faces.
    """
    sample = _sample(train)
    transforms: dict[str, Transform | None] = {
        "plain": to_vectors,
        "winsorised": _after(to_vectors, winsorised(sample)),
    }
    screen = Screen(train, held_out)
    if sample.shape[1] > LONG:
        transforms["selected"] = _selected(screen)
    else:
        transforms["ranks"] = _after(to_vectors, ranked(sample))
        transforms["residuals"] = _after(to_vectors, residuals(sample))
        transforms["low bits"] = _low_bits(screen)
        transforms["gated"] = _gated(screen, sample)
    if classifier is not None:
        transforms |= _of_classifier(train, classifier)
    return [_view(train, name, each) for name, each in transforms.items() if each is not None]


def soften(white: np.ndarray, variances: np.ndarray, softness: float) -> np.ndarray:
    """Returns white vectors [N, R] with v / (v + softness) of each direction's variance 1."""
    return white * np.sqrt(variances / (variances + softness)).astype(white.dtype)


def to_vectors(features: np.ndarray) -> np.ndarray:
    """Returns features [N, ...] as vectors, float32 [N, D]."""
    return np.asarray(features, np.float32).reshape(len(features), -1)


def winsorised(sample: np.ndarray) -> Transform | None:
    """Returns what clips vectors to `robust_bounds`, or None if nothing lies outside."""
    low, high = robust_bounds(sample, _FAR)
    if ((sample >= low) & (sample <= high)).all():
        return None
    return lambda vectors: np.clip(vectors, low, high)


def ranked(sample: np.ndarray) -> Transform:
    """Returns what replaces each value by the normal quantile of its rank among the sample's."""
    quantiles = min(_QUANTILES, len(sample))
    transformer = QuantileTransformer(
        n_quantiles=quantiles, output_distribution="normal", subsample=None
    )
    transformer.fit(sample.astype(np.float64))
    return lambda vectors: transformer.transform(np.asarray(vectors, np.float64))


def residuals(sample: np.ndarray) -> Transform | None:
    """Returns what appends the distance from the nearest level to vectors, or None.

    It does so for each dimension whose values lie at 2 to 16 levels, but not exactly.
    """
    columns, edges, centres = [], [], []
    for column, values in enumerate(sample.T):
        borders = level_borders(values)
        if borders is None:
            continue
        level = np.searchsorted(borders, values)
        middle = np.bincount(level, values) / np.bincount(level)
        if np.abs(values - middle[level]).max() > 1e-12 * np.abs(values).max():
            columns.append(column)
            edges.append(borders)
            centres.append(middle)
    if not columns:
        return None

    def append(vectors):
        vectors = np.asarray(vectors, np.float64)
        rests = [
            vectors[:, column] - middle[np.searchsorted(borders, vectors[:, column])]
            for column, borders, middle in zip(columns, edges, centres, strict=True)
        ]
        return np.concatenate([vectors, np.stack(rests, axis=1)], axis=1)

    return append


def level_borders(values: np.ndarray) -> np.ndarray | None:
    """Returns the borders between 2 to 16 levels of values [N], or None if there are not so many.

    Two levels are apart by more than 1/32 of the range. Each has at least 0.5% of the values, so
    that no outlier is a level.
    """
    found, counts = np.unique(values, return_counts=True)
    found = found.astype(np.float64)
    wide = np.flatnonzero(np.diff(found) > _GAP * (found[-1] - found[0]))
    if not 1 <= len(wide) < _MOST_LEVELS:
        return None
    sizes = np.add.reduceat(counts, np.append(0, wide + 1))
    return (found[wide] + found[wide + 1]) / 2 if sizes.min() >= _RAREST * len(values) else None


def low_bits(vectors: np.ndarray, count: int) -> np.ndarray:
    """Returns the lowest `count` bits of float32 vectors, as numbers in [0, 1), float32."""
    bits = np.ascontiguousarray(vectors, np.float32).view(np.uint32) & np.uint32(2**count - 1)
    return bits.astype(np.float32) / np.float32(2**count)


def discrete_directions(white: np.ndarray, seed: int = 0) -> np.ndarray:
    """Returns directions, float64 [K, R], in which white vectors [N, R] have few levels.

    Projection pursuit: the fixed-point iteration of FastICA with the fourth moment (Hyvärinen and
    Oja 1997), from many random starts. A sum of several independent values is closer to normal
    than each of them, so that the iteration ends in single ones. Then each direction is fitted to
    its own levels, until they no longer change.
    """
    count, size = white.shape
    if not 1 < size <= _LONGEST:
        return np.zeros((0, size))
    directions = np.random.default_rng(seed).normal(size=(_STARTS, size)).astype(np.float32)
    for _ in range(60):
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        cubes = (white @ directions.T) ** 3
        directions = cubes.T @ white / count - 3 * directions
    directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-30)
    found = []
    for direction, values in zip(directions, (white @ directions.T).T, strict=True):
        for _ in range(5):
            borders = level_borders(values)
            if borders is None:
                break
            level = np.searchsorted(borders, values)
            means = (np.bincount(level, values) / np.bincount(level))[level]
            direction = white.T @ means / count  # least squares: white vectors are uncorrelated
            direction = direction / max(np.linalg.norm(direction), 1e-30)
            values = white @ direction
        is_new = all(abs(direction @ other) < 0.9 for other in found)
        if borders is not None and is_new:
            found.append(direction)
    return np.array(found).reshape(-1, size)


class Screen:
    """A quick look at what linear regression predicts from vectors, on a few images.

    The targets are the largest principal components of images at 16 pixels per side and of their
    face embeddings, each kind with a total variance of 1.
    """

    def __init__(self, train: Known, held_out: Known):
        known = (train, held_out)
        parts = [_some(each, count) for each, count in zip(known, _SCREENED, strict=True)]
        self.train, self.held_out = (features for features, _ in parts)
        self._targets = [targets for _, targets in parts]
        self._wanted, self._expected = _principal(*self._targets)

    def error(self, vectors: Transform) -> float:
        """Returns the lowest squared error on held-out images over strengths of the penalty."""
        inputs, queries = _standardised(*(vectors(each) for each in (self.train, self.held_out)))
        count, size = inputs.shape
        if size <= count:
            values, basis = np.linalg.eigh(inputs.T @ inputs / count)
            coded, seen = basis.T @ (inputs.T @ self._wanted) / count, queries @ basis
        else:  # in the space of images, whose number is bounded
            values, basis = np.linalg.eigh(inputs @ inputs.T / count)
            coded, seen = basis.T @ self._wanted, queries @ (inputs.T @ basis) / count
        errors = []
        for strength in np.geomspace(1e-10, 1e3, 14):
            guess = (seen / (np.maximum(values, 0) + strength)) @ coded
            errors.append(np.square(guess - self._expected).sum(1).mean())
        return float(min(errors))

    def correlations(self) -> np.ndarray:
        """Returns the sum of each dimension's squared correlations with the targets, [D]."""
        vectors = to_vectors(self.train)
        deviation = vectors.std(0, dtype=np.float64)
        products = (vectors - vectors.mean(0)).T @ self._wanted.astype(np.float32)
        scale = np.where(deviation > 0, 1 / np.where(deviation > 0, deviation, 1), 0)
        return np.square(products * scale[:, None]).sum(1)

    def most_promising(self, gates: list[functools.partial]) -> list[functools.partial]:
        """Returns the gates whose products with the vectors correlate most with the targets."""
        vectors = to_vectors(self.train)
        (inputs,) = _standardised(vectors)
        scores = []
        for gate in gates:
            (products,) = _standardised(inputs * (gate(vectors) - gate(vectors).mean())[:, None])
            scores.append(np.square(products.T @ self._wanted).sum())
        return [gates[place] for place in np.argsort(scores)[::-1][:_TRIED]]

    @functools.cached_property
    def plain(self) -> float:
        """The error of the plain vectors."""
        return self.error(to_vectors)

    @functools.cached_property
    def nothing(self) -> float:
        """The error of a guess without any feature."""
        return float(np.square(self._expected).sum(1).mean())


def _standardised(first: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Vectors, float64, each dimension by its mean and deviation among the first ones."""
    first = np.asarray(first, np.float64)
    mean, deviation = first.mean(0), first.std(0)
    scale = standard_scale(mean, deviation)
    return [(each - mean) * scale for each in (first, *others)]


def _selected(screen: Screen) -> Transform:
    """What picks the dimensions that correlate most with the targets, as many as predict best."""
    order = np.argsort(screen.correlations())[::-1]

    def pick(count: int) -> Transform:
        places = np.sort(order[:count])
        return lambda features: to_vectors(features)[:, places]

    return min(map(pick, _SELECTED), key=screen.error)


def _low_bits(screen: Screen) -> Transform | None:
    """What appends the lowest bits to vectors, as many as predict best; None if none do."""

    def error(count):
        return screen.error(lambda features: low_bits(to_vectors(features), count))

    errors = {count: error(count) for count in _LOW_BITS[::2]}
    best = min(errors, key=errors.get)
    if errors[best] >= _GAIN * screen.nothing:
        return None
    errors |= {count: error(count) for count in (best - 1, best + 1)}
    best = min(errors, key=errors.get)

    def append(features):
        vectors = to_vectors(features)
        return np.concatenate([vectors, low_bits(vectors, best)], axis=1)

    return append


def _gated(screen: Screen, sample: np.ndarray) -> Transform | None:
    """What multiplies vectors with the levels of discrete directions; None if it does not help."""
    whitening = Whitening([sample])
    if not whitening.variances.size:
        return None
    white = whitening(sample[:_SEARCHED])
    gates = []
    for column, values in enumerate(sample.T):
        if (borders := level_borders(values)) is not None:
            gates.append(functools.partial(_level_of_column, column=column, borders=borders))
    for direction in discrete_directions(white):
        borders = level_borders(white @ direction)
        if borders is not None:
            gates.append(
                functools.partial(
                    _level_of_direction, whitening=whitening, direction=direction, borders=borders
                )
            )
    gates = screen.most_promising(gates)
    chosen, error, levels = [], screen.plain, 1
    while gates and len(chosen) < _GATES:
        usable = [gate for gate in gates if levels * _count(gate) <= _MOST_LEVELS]
        errors = [screen.error(_products([*chosen, gate])) for gate in usable]
        if not errors or min(errors) >= _GAIN * error:
            break
        error = min(errors)
        chosen.append(usable[int(np.argmin(errors))])
        levels *= _count(chosen[-1])
    return _products(chosen) if chosen else None


def _level_of_column(vectors, column, borders):
    return np.searchsorted(borders, vectors[:, column])


def _level_of_direction(vectors, whitening, direction, borders):
    return np.searchsorted(borders, whitening(vectors) @ direction)


def _count(gate: functools.partial) -> int:
    return len(gate.keywords["borders"]) + 1


def _products(gates: list[functools.partial]) -> Transform:
    """What gives vectors and, for each level but the first, the vector or 0, and 1 or 0."""

    def multiply(features):
        vectors = to_vectors(features)
        level, levels = 0, 1
        for gate in gates:
            level = level * _count(gate) + gate(vectors)
            levels *= _count(gate)
        extended = np.concatenate([vectors, np.ones_like(vectors[:, :1])], axis=1)
        parts = [extended * (level == each)[:, None] for each in range(1, levels)]
        return np.concatenate([vectors, *parts], axis=1)

    return multiply


def _of_classifier(train: Known, classifier: Classifier) -> dict[str, Transform]:
    """The views of whoever holds the encoder's classifier."""

    def add_layers(features):
        return np.concatenate([to_vectors(features), classifier.layers(features)], axis=1)

    clip = winsorised(_sample(train, add_layers))
    return {
        "classifier": _after(add_layers, clip) or add_layers,
        "predictions": classifier.hard_predictions,
    }


def _after(first: Transform, second: Transform | None) -> Transform | None:
    return None if second is None else lambda features: second(first(features))


def _view(train: Known, name: str, transform: Transform) -> View:
    batches = (transform(batch["features"]) for batch in train.pairs.batches())
    return View(name, transform, Whitening(batches))


def _sample(known: Known, transform: Transform = to_vectors) -> np.ndarray:
    """The vectors of evenly spread training images, [N, D]."""
    size = max(1, math.prod(known.pairs.feature_shape))
    step = -(-known.count // min(_SAMPLE, max(_FEWEST, _SAMPLE_VALUES // size)))
    return np.concatenate(
        [
            transform(batch["features"][batch["index"] % step == 0])
            for batch in known.pairs.batches()
            if (batch["index"] % step == 0).any()
        ]
    )


def _some(known: Known, most: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """The features of evenly spread images, and what is to be predicted of them."""
    step = -(-known.count // most)
    features, images, places = [], [], []
    for batch in known.pairs.batches():
        rows = batch["index"] % step == 0
        features.append(batch["features"][rows])
        images.append(thumbnails(batch["images"][rows], 16))
        places.append(batch["index"][rows])
    targets = [np.concatenate(images)]
    if known.embeddings is not None:
        targets.append(known.embeddings.embedding[np.concatenate(places)])
    return np.concatenate(features), targets


def _principal(
    train: list[np.ndarray], held_out: list[np.ndarray], most: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """The largest principal components of targets, each kind with a total variance of 1."""
    parts = [], []
    for known, others in zip(train, held_out, strict=True):
        mean = known.mean(0)
        _, spreads, directions = np.linalg.svd(known - mean, full_matrices=False)
        scale = np.sqrt(len(known)) / max(np.linalg.norm(spreads[:most]), 1e-12)
        for part, values in zip(parts, (known, others), strict=True):
            part.append((values - mean) @ directions[:most].T * scale)
    return tuple(np.concatenate(part, axis=1) for part in parts)
