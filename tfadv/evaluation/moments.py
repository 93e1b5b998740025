"""Means and variances of vectors that arrive in batches, in float64 and in one pass.

Batches are merged as in Chan, Golub and LeVeque (1979): a sum of plain squares loses a small
variance next to a large mean.
"""

from collections.abc import Iterable

import numpy as np


class RunningMean:
    """The number and the mean, float64 [D], of vectors that arrive in groups."""

    def __init__(self):
        self.count = 0
        self.value = 0.0

    def merge(self, count: int, mean: np.ndarray) -> tuple[np.ndarray, float]:
        """Adds a group; returns the shift between both means, [D], and a weight.

        The squared deviations of all vectors sum to those within both parts + weight * shift^2.
        """
        before, self.count = self.count, self.count + count
        shift = mean - self.value
        self.value = self.value + shift * (count / self.count)
        return shift, before * count / self.count


def moments(
    batches: Iterable[np.ndarray], *, products: bool = False
) -> tuple[int, np.ndarray, np.ndarray]:
    """Returns the count of vectors, their mean [D], and sums of squared deviations from it [D].

    With `products`, the sums of all products of two deviations, [D, D]. Each batch is [N, D].
    """
    mean, sums = RunningMean(), 0.0
    for batch in batches:
        batch = batch.astype(np.float64)
        centre = batch.mean(0)
        batch -= centre
        shift, weight = mean.merge(len(batch), centre)
        sums += batch.T @ batch if products else np.square(batch, out=batch).sum(0)
        sums += np.outer(shift, shift * weight) if products else np.square(shift) * weight
    return mean.count, mean.value, sums


def is_informative(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Returns whether each dimension varies, bool [D], by its mean and its deviation in float64.

    A value that changes by its last bit, for few images, is information: float32 resolves it. What
    float64 cannot tell from a constant does not vary.
    """
    return deviation > np.maximum(1e-12 * np.abs(mean), np.finfo(np.float64).tiny)


def standard_scale(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Returns 1 / deviation of each informative dimension and 0 of the others, float64 [D]."""
    kept = is_informative(mean, deviation)
    return np.where(kept, 1.0 / np.where(kept, deviation, 1.0), 0.0)


def robust_bounds(sample: np.ndarray, far: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the median of each dimension, minus and plus `far` robust deviations, [D] each.

    The robust deviation is 1.4826 times the median of the deviations that are not 0, so that a
    dimension that is 0 for most images keeps its other values. For normal values it is the standard
    deviation; a few huge values do not change it.

    Args:
        sample: float [N, D].
        far: number of deviations.
    """
    centre = np.median(sample, axis=0)
    deviations = np.sort(np.abs(sample - centre), axis=0)
    zeros = (deviations == 0).sum(0)
    middle = np.minimum(zeros + (len(deviations) - zeros) // 2, len(deviations) - 1)
    reach = far * 1.4826 * np.take_along_axis(deviations, middle[None], axis=0)[0]
    return centre - reach, centre + reach
