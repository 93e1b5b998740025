"""How far a measure could move with other people: bootstrap intervals that resample identities."""

import warnings

import numpy as np

_BLOCK = 100  # replicates whose weights are float64 at a time


class IdentityBootstrap:
    """95% percentile intervals from resampling people with replacement, with all their pictures.

    Pictures of one person are alike, so they tell less than as many pictures of strangers; an
    interval from resampled pictures would be too narrow (the cluster bootstrap of Davison and
    Hinkley 1997, Section 3.8). With few people, below some 20, even this one is too narrow.

    Args:
        identities: integers, [N]. Each -1 (unknown) counts as a person of its own.
        replicates: R, the number of resamples.
        seed: equal seeds draw equal resamples of equal identities, so that encoders measured on
            the same test split meet the same people.

    Attributes:
        identities: as given, [N].
        person: whose each picture is, a number below I, the number of people; [N].
        weights: how often each replicate draws each person, uint8 [R, I]; rows sum to I.

    Raises:
        ValueError: identities are not a row of integers, or there are no replicates.
    """

    def __init__(self, identities: np.ndarray, replicates: int = 1000, seed: int = 0):
        self.identities = np.asarray(identities)
        if self.identities.ndim != 1 or not np.issubdtype(self.identities.dtype, np.integer):
            raise ValueError(
                f"identities must be integers [N], not {self.identities.dtype} "
                f"{self.identities.shape}"
            )
        if replicates < 1:
            raise ValueError(f"replicates must be at least 1, not {replicates}")
        known = self.identities >= 0
        people, persons = np.unique(self.identities[known], return_inverse=True)
        self.person = np.empty(len(known), np.intp)
        self.person[known] = persons
        unknown = np.count_nonzero(~known)
        self.person[~known] = len(people) + np.arange(unknown)
        size = len(people) + unknown

        random = np.random.default_rng(seed)
        self.weights = np.empty((replicates, size), np.uint8)
        for row in self.weights:
            row[:] = np.bincount(random.integers(size, size=size), minlength=size) if size else 0

    def mean(self, values: np.ndarray) -> tuple[float, float]:
        """The interval of the mean of a value per picture.

        Args:
            values: [N]. NaN is left out; an infinite one makes both ends NaN.

        Returns:
            Lower and upper end; NaN where there is no value.

        Raises:
            ValueError: there isn't one value per picture.
        """
        return percentile_interval(self.means(values))

    def means(self, values: np.ndarray) -> np.ndarray:
        """The mean of a value per picture, over the pictures of each replicate.

        Args:
            values: [N]. NaN is left out.

        Returns:
            float64 [R]; NaN where a replicate has no value.

        Raises:
            ValueError: there isn't one value per picture.
        """
        values = np.asarray(values, np.float64)
        is_value = ~np.isnan(values)
        totals = self.totals(np.stack([np.where(is_value, values, 0.0), is_value], axis=-1))
        with np.errstate(divide="ignore", invalid="ignore"):
            return totals[:, 0] / totals[:, 1]

    def totals(self, values: np.ndarray) -> np.ndarray:
        """The sum of a row of values per picture, over the pictures of each replicate.

        Args:
            values: [N, K].

        Returns:
            float64 [R, K].

        Raises:
            ValueError: there isn't one row per picture.
        """
        values = np.asarray(values, np.float64)
        if values.ndim != 2 or len(values) != len(self.person):
            raise ValueError(f"values {values.shape} must be a row for each picture")
        order = np.argsort(self.person, kind="stable")
        starts = np.searchsorted(self.person[order], np.arange(self.weights.shape[1]))
        per_person = np.add.reduceat(values[order], starts, axis=0) if len(starts) else values
        blocks = range(0, len(self.weights), _BLOCK)
        with np.errstate(invalid="ignore"):
            return np.concatenate(
                [self.weights[i : i + _BLOCK].astype(np.float64) @ per_person for i in blocks]
            )


def percentile_interval(replicates: np.ndarray) -> tuple[float, float]:
    """The 2.5th and the 97.5th percentile of replicates [R]; those that are NaN are left out."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        low, high = np.nanpercentile(replicates, [2.5, 97.5])
    return float(low), float(high)
