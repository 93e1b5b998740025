import math

import numpy as np
import pytest

from tfadv.evaluation.closure import closure, difference, is_converged
from tfadv.evaluation.leakage_measures import MEASURES
from tfadv.evaluation.results import Score

UP, DOWN = MEASURES["linkage_rank1"], MEASURES["pixels"]


def score(value, held_out=None, spread=0.01, seed=0, shared=None):
    noise = np.random.default_rng(seed).normal(size=400) if shared is None else shared
    return Score(value, value + spread * noise, value if held_out is None else held_out)


@pytest.mark.parametrize(
    ("measure", "leak", "unprotected", "predictions", "expected"),
    [
        (UP, 0.3, 0.3, 0.1, 0.0),
        (UP, 0.1, 0.3, 0.1, 1.0),
        (UP, 0.15, 0.3, 0.1, 0.75),
        (UP, 0.05, 0.3, 0.1, 1.25),
        (UP, 0.4, 0.3, 0.1, -0.5),
        (DOWN, 0.25, 0.2, 0.3, 0.5),
    ],
)
def test_closure_is_the_share_of_the_gap_that_is_closed(
    measure, leak, unprotected, predictions, expected
):
    scores = score(leak, seed=1), score(unprotected, seed=2), score(predictions, seed=3)
    found = closure(*scores, measure)
    assert found.value == pytest.approx(expected)
    low, high = found.interval
    assert low < expected < high


def test_closure_is_paired_over_people():
    """A shift that all scores have in common changes no share."""
    shared = np.random.default_rng(0).normal(size=400)
    ends = [score(value, shared=shared, spread=0.05) for value in (0.15, 0.3, 0.1)]
    low, high = closure(*ends, UP).interval
    assert high - low < 1e-9
    apart = [score(v, seed=i, spread=0.05) for i, v in enumerate((0.15, 0.3, 0.1))]
    low, high = closure(*apart, UP).interval
    assert high - low > 0.3


def test_there_is_no_closure_if_the_gap_may_be_zero():
    found = closure(score(0.1, seed=1), score(0.11, seed=2), score(0.1, seed=3), UP)
    assert math.isnan(found.value)
    assert all(map(math.isnan, found.interval))
    same = score(0.1)
    assert math.isnan(closure(same, same, same, UP).value)


def test_there_is_no_closure_if_hard_predictions_leak_more():
    ends = score(0.2, seed=2), score(0.5, seed=3)
    assert math.isnan(closure(score(0.3, seed=1), *ends, UP).value)
    assert closure(score(0.3, seed=1), *ends, DOWN).value == pytest.approx(1 / 3)


def test_differences_are_paired():
    shared = np.random.default_rng(0).normal(size=400)
    value, (low, high) = difference(score(0.3, shared=shared), score(0.1, shared=shared))
    assert (value, low, high) == pytest.approx((0.2, 0.2, 0.2))
    _, (low, high) = difference(score(0.3, seed=1), score(0.1, seed=2))
    assert high - low == pytest.approx(2 * 1.96 * 0.01 * math.sqrt(2), rel=0.15)


@pytest.mark.parametrize(
    ("measure", "held_out", "expected"),
    [
        (UP, (0.10, 0.20, 0.30), False),
        (UP, (0.10, 0.30, 0.31), True),
        (UP, (0.10, 0.30, 0.20), True),  # a larger budget that overfits gains nothing
        (UP, (0.10, 0.30, 0.02), False),  # one that collapses says nothing
        (UP, (0.10, 0.30, 0.095), True),
        (DOWN, (0.30, 0.20, 0.10), False),
        (DOWN, (0.30, 0.10, 0.11), True),
        (DOWN, (0.30, 0.10, 0.45), False),
    ],
)
def test_an_attack_converged_if_the_last_doubling_gained_less_than_half_the_interval(
    measure, held_out, expected
):
    budgets = [score(0.2, held_out=value, spread=0.02) for value in held_out]
    assert is_converged(budgets, measure) is expected


def test_a_wide_interval_does_not_hide_a_gain_that_matters():
    budgets = [score(0.2, held_out=value, spread=0.02) for value in (0.153, 0.141, 0.1295)]
    assert is_converged(budgets, DOWN)
    assert not is_converged(budgets, DOWN, most=0.0016)
    assert is_converged(budgets, DOWN, most=0.012)


def test_no_gain_is_converged_even_if_the_interval_has_no_width():
    same = score(0.0, held_out=0.0, spread=0.0)
    assert is_converged([same, same, same], UP)
