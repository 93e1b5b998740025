"""Turns features into vectors, and whitens them."""

import itertools
import math
from collections.abc import Iterable, Iterator

import numpy as np

from tfadv.evaluation.moments import moments, standard_scale

LONG = 4096  # dimensions of a vector beyond which its covariance is not taken
_SPANNING = 4000  # vectors that span the directions of long ones, at most
_SPANNING_BYTES = 2**28
_BLOCK = 2048


def to_vectors(features: np.ndarray, limit: int = 4096) -> np.ndarray:
    """Returns features as vectors; those of maps have at most `limit` values.

    Vectors stay as they are, however long. Small maps are flattened. Larger ones are first averaged
    over the cells of the finest grid that fits the limit; at least one value per channel is kept.

    Args:
        features: float [N, D] or maps, [N, H, W, C].

    Returns:
        float32 [N, D].
    """
    features = np.asarray(features, np.float32)
    if features.ndim == 4 and math.prod(features.shape[1:]) > limit:
        height, width, channels = features.shape[1:]
        cells = max(1, limit // channels)
        rows = min(height, max(1, math.isqrt(cells * height // width)))
        columns = min(width, max(1, cells // rows))
        features = _mean_over_grid(features, rows, columns)
    return features.reshape(len(features), -1)


def _mean_over_grid(maps: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Means over the cells of a grid; cells differ by one row or column if it does not divide."""
    for axis, cells in ((1, rows), (2, columns)):
        starts = np.arange(cells) * maps.shape[axis] // cells
        sizes = np.diff(np.append(starts, maps.shape[axis]))
        sums = np.add.reduceat(maps, starts, axis=axis)
        maps = sums / np.expand_dims(sizes, tuple({0, 1, 2, 3} - {axis})).astype(np.float32)
    return maps


class Whitening:
    """Brings vectors to variance 1 in each direction of the eigenbasis of standardised dimensions.

    An image that a defence hid in an oblique direction of small variance is then as visible as any
    other. Directions whose variance float64 cannot tell from 0 are left out.

    Vectors of more than 4,096 dimensions would need too much memory for their covariance. Their
    directions are those that 4,000 of them span, or as many as fit 256 MiB. No dimension is left
    out, and all directions are there if there are no more vectors.

    Args:
        batches: vectors, float [N, D], to take the statistics from.

    Attributes:
        variances: of the R directions before whitening, float64 [R]; they sum to the number of
            informative dimensions, if all directions are there.
    """

    def __init__(self, batches: Iterable[np.ndarray]):
        batches = iter(batches)
        first = next(batches)
        batches = itertools.chain([first], batches)
        if first.shape[1] <= LONG:
            count, self._mean, products = moments(batches, products=True)
            self._scale = standard_scale(self._mean, np.sqrt(np.diag(products) / count))
            correlation = products * self._scale * self._scale[:, None] / count
            self.variances, directions = _eigen(correlation, np.finfo(np.float64).eps)
            self._rows, self._basis = None, directions / np.sqrt(self.variances)
            return
        kept: list[np.ndarray] = []
        most = min(_SPANNING, _SPANNING_BYTES // (4 * first.shape[1]))
        count, self._mean, squares = moments(_keeping(batches, kept, most))
        self._scale = standard_scale(self._mean, np.sqrt(squares / count))
        self._rows = np.empty((sum(map(len, kept)), first.shape[1]), np.float32)
        done = 0
        while kept:  # one copy at a time
            batch = kept.pop(0)
            self._rows[done : done + len(batch)] = (batch - self._mean) * self._scale
            done += len(batch)
        gram = 0.0
        for start in range(0, self._rows.shape[1], _BLOCK):
            block = self._rows[:, start : start + _BLOCK].astype(np.float64)
            gram = gram + block @ block.T / done
        self.variances, directions = _eigen(gram, np.finfo(np.float32).eps)
        self._basis = (directions / (np.sqrt(done) * self.variances)).astype(np.float32)

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Returns vectors [N, D] whitened, float32 [N, R]."""
        standard = (vectors - self._mean) * self._scale
        if self._rows is None:
            return (standard @ self._basis).astype(np.float32)
        return standard.astype(np.float32) @ self._rows.T @ self._basis


def _eigen(symmetric: np.ndarray, precision: float) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues above rounding, [R], and their eigenvectors, [D, R]."""
    values, vectors = np.linalg.eigh(symmetric)
    kept = values > precision * len(values) * values[-1]
    return values[kept], vectors[:, kept]


def _keeping(
    batches: Iterable[np.ndarray], kept: list[np.ndarray], most: int
) -> Iterator[np.ndarray]:
    """Passes batches on, and keeps the first vectors, at most so many."""
    for batch in batches:
        if most > 0:
            kept.append(np.array(batch[:most], np.float32))
            most -= len(batch)
        yield batch
