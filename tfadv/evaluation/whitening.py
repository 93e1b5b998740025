"""Features as vectors, and those with every direction brought to light."""

import math
from collections.abc import Iterable

import numpy as np

from tfadv.evaluation.moments import standard_scale, sums_of_products


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
        count, self._mean, products = sums_of_products(batches)
        scale = emphasis * standard_scale(self._mean, np.sqrt(np.diag(products) / count))
        correlation = products * scale * scale[:, None] / count
        variances, directions = np.linalg.eigh(correlation)
        floor = np.finfo(np.float64).eps * len(variances) * variances[-1]
        kept = variances > floor
        self.variances = variances[kept]
        self._basis = scale[:, None] * directions[:, kept] / np.sqrt(self.variances)

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Returns vectors [N, D] whitened, float32 [N, R]."""
        return ((vectors - self._mean) @ self._basis).astype(np.float32)
