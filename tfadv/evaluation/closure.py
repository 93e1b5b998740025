"""What an audit concludes from its attackers: the worst of them, closure, and whether they tried.

Numbers in, numbers out. A member is one attacker at one setting; what it recovered of held-out
public pictures decides whether it counts, what it recovered of test pictures is what is reported.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from tfadv.evaluation.leakage_measures import Measure
from tfadv.evaluation.metrics.bootstrap import percentile_interval

BUDGETS = (1, 2, 4)  # times `audit.steps`, of a decoder


@dataclasses.dataclass(frozen=True)
class Score:
    """What one member got by one measure.

    Attributes:
        held_out: on held-out public pictures, which members are chosen by.
        test: on test pictures.
        replicates: the same on resampled test people, float64 [R]; equal positions are equal
            people, whoever is measured, so that differences are paired.
        is_finished: whether the member, if it trains until it no longer improves, did so.
    """

    held_out: float
    test: float
    replicates: np.ndarray
    is_finished: bool = True

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval over test people."""
        return percentile_interval(self.replicates)


@dataclasses.dataclass(frozen=True)
class Closure:
    """How far a defence closed the gap from no defence to sending nothing but the answers.

    Attributes:
        value: 0 is no defence, 1 as private as the answers; it may lie beyond either. NaN where the
            unprotected encoder doesn't leak more than the answers.
        interval: 95%, over test people; NaN with the value.
    """

    value: float
    interval: tuple[float, float]


def strongest(scores: Mapping[str, Score], measure: Measure) -> str:
    """Returns the member that leaked most of held-out public pictures: the one that counts.

    Raises:
        ValueError: there is none, or one isn't finite.
    """
    if not scores:
        raise ValueError(f"no attacker measured {measure.title}")
    for name, score in scores.items():
        if not math.isfinite(score.held_out):
            raise ValueError(f"{name} has no finite {measure.title} on held-out pictures")
    sign = 1 if measure.leaks_upwards else -1
    return max(scores, key=lambda name: sign * scores[name].held_out)


def closure(score: Score, unprotected: Score, answers: Score, measure: Measure) -> Closure:
    """Returns (unprotected - score) / (unprotected - answers), with a paired interval.

    The interval is that of the ratio over resampled people, as `Score` pairs them. Where in more
    than one of forty resamples the unprotected encoder leaks no more than the answers, the gap
    can't be told from none, and neither can a share of it.
    """
    sign = 1 if measure.leaks_upwards else -1
    gap = unprotected.test - answers.test
    gaps = unprotected.replicates - answers.replicates
    if sign * gap <= 0 or np.mean(sign * gaps <= 0) > 1 / 40:
        return Closure(math.nan, (math.nan, math.nan))
    gaps = np.where(sign * gaps <= 0, np.nan, gaps)
    shares = (unprotected.replicates - score.replicates) / gaps
    return Closure((unprotected.test - score.test) / gap, percentile_interval(shares))


def difference(one: Score, other: Score) -> tuple[float, tuple[float, float]]:
    """Returns one - other on test pictures, and its paired 95% interval."""
    return one.test - other.test, percentile_interval(one.replicates - other.replicates)


def is_converged(budgets: Sequence[Score], measure: Measure, most: float = math.inf) -> bool:
    """Whether the last doubling of a budget gained no more than half of the interval's width.

    Args:
        budgets: what a member got with 1, 2, 4, ... times the same budget; two at least. Gains are
            those on held-out pictures, the interval that of the largest budget on test pictures.
        measure: which says what a gain is.
        most: it may have gained, however wide the interval is.
    """
    before, after = budgets[-2:]
    sign = 1 if measure.leaks_upwards else -1
    low, high = after.interval
    return sign * (after.held_out - before.held_out) <= min((high - low) / 2, most)
