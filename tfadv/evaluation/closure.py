"""Closure: how much of the gap between no defence and hard predictions only a defence closes."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from tfadv.evaluation.leakage_measures import Measure
from tfadv.evaluation.metrics.bootstrap import percentile_interval
from tfadv.evaluation.results import Score


@dataclasses.dataclass(frozen=True)
class Closure:
    """The share of the gap that is closed.

    Attributes:
        value: 0 is no defence, 1 is as private as hard predictions only; it can lie outside. NaN
            where the unprotected encoder does not leak more than the hard predictions.
        interval: 95%, over test people; NaN with the value.
    """

    value: float
    interval: tuple[float, float]


def closure(score: Score, unprotected: Score, hard_predictions: Score, measure: Measure) -> Closure:
    """Returns (unprotected - score) / (unprotected - hard predictions), with a paired interval.

    The interval is that of the ratio over resampled people. There is no closure where in more than
    one of forty resamples the unprotected encoder leaks no more than the hard predictions: then the
    gap cannot be told from zero.
    """
    gap = unprotected.value - hard_predictions.value
    gaps = unprotected.replicates - hard_predictions.replicates
    if measure.sign * gap <= 0 or np.mean(measure.sign * gaps <= 0) > 1 / 40:
        return Closure(math.nan, (math.nan, math.nan))
    gaps = np.where(measure.sign * gaps <= 0, np.nan, gaps)
    shares = (unprotected.replicates - score.replicates) / gaps
    return Closure((unprotected.value - score.value) / gap, percentile_interval(shares))


def difference(one: Score, other: Score) -> tuple[float, tuple[float, float]]:
    """Returns one - other on test images, and its paired 95% interval."""
    return one.value - other.value, percentile_interval(one.replicates - other.replicates)


def is_converged(budgets: Sequence[Score], measure: Measure, most: float = math.inf) -> bool:
    """Returns whether the last doubling of a budget gained at most half of the interval's width.

    An attack that does worse with its largest budget than with its smallest one, by more than that,
    has collapsed: it has not converged either.

    Args:
        budgets: scores of one attack with 1, 2, 4, ... times the same budget; at least two. Gains
            are those on held-out images, the interval is that of the largest budget on test images.
        measure: the measure of the scores.
        most: the most that it may have gained, however wide the interval is.
    """
    first, before, after = (budgets[place] for place in (0, -2, -1))
    low, high = after.interval
    tolerance = min((high - low) / 2, most)
    gain, lost = (
        measure.sign * (after.held_out - before.held_out),
        measure.sign * (first.held_out - after.held_out),
    )
    return max(gain, lost) <= tolerance
