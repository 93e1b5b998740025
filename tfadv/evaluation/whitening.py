"""Features as vectors, and those with every direction brought to light."""

import math
from collections.abc import Iterable

import numpy as np


def to_vectors(features: np.ndarray, limit: int = 4096) -> np.ndarray:
    """Returns features as vectors of at most `limit` values where they are maps.

    Vectors stay as they are, however long. Maps are flattened if they are small enough; else they
    are first averaged over the areas of the finest grid that is.

    Args:
        features: float [N, D] or maps, [N, H, W, C].
        limit: values of a flattened map; never under one per channel.

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
    """Means over the cells of a grid, whose areas differ by a line where it doesn't divide."""
    for axis, cells in ((1, rows), (2, columns)):
        starts = np.arange(cells) * maps.shape[axis] // cells
        sizes = np.diff(np.append(starts, maps.shape[axis]))
        sums = np.add.reduceat(maps, starts, axis=axis)
        maps = sums / np.expand_dims(sizes, tuple({0, 1, 2, 3} - {axis})).astype(np.float32)
    return maps


def moves(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Tells which dimensions, of this mean and standard deviation, say something; bool [D].

    What moves less than float32 resolves does not; it would be noise blown up. However small the
    features are, they may move: there is no absolute limit.
    """
    float32 = np.finfo(np.float32)
    return deviation > np.maximum(float32.eps * np.abs(mean), float32.tiny)


class Whitening:
    """Vectors in the eigenbasis of their standardised dimensions, each direction of variance 1.

    In the basis a picture that was hidden in an oblique direction of little variance is as plain as
    any. What float64 can't tell from a direction that never moves is left out.

    Args:
        batches: vectors, float [N, D], to take the statistics from.
        emphasis: what each standardised dimension is multiplied by, [D] or one for all; it changes
            which directions are said to have little variance.

    Attributes:
        variances: of the R directions before they are brought to 1, float64 [R]; without
            emphasis their mean over all D dimensions that move is 1.
    """

    def __init__(self, batches: Iterable[np.ndarray], emphasis: np.ndarray | float = 1.0):
        count, self._mean, products = _moments(batches)
        deviation = np.sqrt(np.diag(products) / count)
        kept = moves(self._mean, deviation)
        scale = emphasis * np.where(kept, 1.0 / np.where(kept, deviation, 1.0), 0.0)
        correlation = products * scale * scale[:, None] / count
        variances, directions = np.linalg.eigh(correlation)
        floor = np.finfo(np.float64).eps * len(variances) * variances[-1]
        kept = variances > floor
        self.variances = variances[kept]
        self._basis = scale[:, None] * directions[:, kept] / np.sqrt(self.variances)

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Returns vectors [N, D] whitened, float32 [N, R]."""
        return ((vectors - self._mean) @ self._basis).astype(np.float32)


def _moments(batches: Iterable[np.ndarray]) -> tuple[int, np.ndarray, np.ndarray]:
    """The count, the mean [D] and the sums of products of deviations from it [D, D].

    In float64, and merged as Chan, Golub and LeVeque (1979) do: sums of plain products lose a small
    variance beside a large mean.
    """
    count, mean, products = 0, 0.0, 0.0
    for batch in batches:
        batch = batch.astype(np.float64)
        known, count = count, count + len(batch)
        centre = batch.mean(0)
        shift = centre - mean
        mean = mean + shift * (len(batch) / count)
        batch -= centre
        products += batch.T @ batch
        products += np.outer(shift, shift * (known * len(batch) / count))
    return count, mean, products
