"""Confidence intervals: how far a metric could move with other people."""

import warnings

import numpy as np

from tfadv.evaluation.identities import number_people

_BLOCK = 100  # replicates whose weights are float64 at a time


class IdentityBootstrap:
    """95% percentile intervals from resampling people with replacement, with all their images.

    Images of one person are alike, so they say less than as many images of different people. An
    interval from resampled images would be too narrow (the cluster bootstrap of Davison and Hinkley
    1997, Section 3.8). With fewer than about 20 people, even this one is too narrow.

    Args:
        identities: integers, [N]. Each -1 (unknown) counts as a person of its own.
        replicates: R, the number of resamples.
        seed: equal seeds draw equal resamples of equal identities, so that encoders measured on
            the same test split are measured on the same people.

    Attributes:
        identities: as given, [N].
        person: the number of the person in each image, as from `number_people`, [N].
        weights: how often each replicate draws each of the I people, uint8 [R, I]; rows sum to I.

    Raises:
        ValueError: identities are not integers [N], or there are no replicates.
    """

    def __init__(self, identities: np.ndarray, replicates: int = 1000, seed: int = 0):
        if replicates < 1:
            raise ValueError(f"replicates must be at least 1, not {replicates}")
        self.identities = np.asarray(identities)
        self.person = number_people(self.identities)
        size = self.person.max(initial=-1) + 1
        random = np.random.default_rng(seed)
        self.weights = np.empty((replicates, size), np.uint8)
        for row in self.weights:
            row[:] = np.bincount(random.integers(size, size=size), minlength=size) if size else 0

    def means(self, values: np.ndarray) -> np.ndarray:
        """Returns the mean of one value per image, [N], over the images of each replicate.

        NaN is left out.

        Returns:
            float64 [R]; NaN where a replicate has no value.

        Raises:
            ValueError: there is not one value per image.
        """
        values = np.asarray(values, np.float64)
        is_value = ~np.isnan(values)
        totals = self.totals(np.stack([np.where(is_value, values, 0.0), is_value], axis=-1))
        with np.errstate(divide="ignore", invalid="ignore"):
            return totals[:, 0] / totals[:, 1]

    def totals(self, values: np.ndarray) -> np.ndarray:
        """Returns the sums, float64 [R, K], of one row per image, [N, K], over each replicate.

        Raises:
            ValueError: there is not one row per image.
        """
        values = np.asarray(values, np.float64)
        if values.ndim != 2 or len(values) != len(self.person):
            raise ValueError(f"values {values.shape} must have one row per image")
        order = np.argsort(self.person, kind="stable")
        starts = np.searchsorted(self.person[order], np.arange(self.weights.shape[1]))
        per_person = np.add.reduceat(values[order], starts, axis=0) if len(starts) else values
        blocks = range(0, len(self.weights), _BLOCK)
        with np.errstate(invalid="ignore"):
            return np.concatenate(
                [self.weights[i : i + _BLOCK].astype(np.float64) @ per_person for i in blocks]
            )


def percentile_interval(replicates: np.ndarray) -> tuple[float, float]:
    """Returns the 2.5th and the 97.5th percentile of replicates [R]; NaN are left out."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        low, high = np.nanpercentile(replicates, [2.5, 97.5])
    return float(low), float(high)
