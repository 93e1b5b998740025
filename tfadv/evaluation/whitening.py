"""Turns features into vectors, and whitens them."""

import math
from collections.abc import Iterable

import numpy as np

from tfadv.evaluation.moments import moments, standard_scale


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

    Args:
        batches: vectors, float [N, D], to take the statistics from.

    Attributes:
        variances: of the R directions before whitening, float64 [R]; they sum to the number of
            informative dimensions.
    """

    def __init__(self, batches: Iterable[np.ndarray]):
        count, self._mean, products = moments(batches, products=True)
        scale = standard_scale(self._mean, np.sqrt(np.diag(products) / count))
        correlation = products * scale * scale[:, None] / count
        variances, directions = np.linalg.eigh(correlation)
        floor = np.finfo(np.float64).eps * len(variances) * variances[-1]
        kept = variances > floor
        self.variances = variances[kept]
        self._basis = scale[:, None] * directions[:, kept] / np.sqrt(self.variances)

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Returns vectors [N, D] whitened, float32 [N, R]."""
        return ((vectors - self._mean) @ self._basis).astype(np.float32)
