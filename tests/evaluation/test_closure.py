import math

import numpy as np
import pytest

from tfadv.config.errors import UserError
from tfadv.evaluation.closure import Score, closure, difference, is_converged, strongest
from tfadv.evaluation.leakage_measures import (
    MEASURES,
    Limit,
    LimitExceededError,
    check_limits,
    check_measurable,
    parse_limit,
)

UP, DOWN = MEASURES["linkage_rank1"], MEASURES["pixels"]


def score(test, held_out=None, spread=0.01, seed=0, shared=None):
    noise = np.random.default_rng(seed).normal(size=400) if shared is None else shared
    return Score(test if held_out is None else held_out, test, test + spread * noise)


def test_the_member_that_counts_is_chosen_on_held_out_pictures_only():
    scores = {"a": score(0.9, held_out=0.2), "b": score(0.1, held_out=0.3)}
    assert strongest(scores, UP) == "b"
    assert strongest(scores, DOWN) == "a"


def test_an_attacker_that_was_not_measured_is_no_verdict():
    with pytest.raises(ValueError, match="no attacker measured linked"):
        strongest({}, UP)
    with pytest.raises(ValueError, match="b has no finite linked"):
        strongest({"a": score(0.1), "b": score(0.1, held_out=math.nan)}, UP)


@pytest.mark.parametrize(
    ("measure", "leak", "unprotected", "answers", "expected"),
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
    measure, leak, unprotected, answers, expected
):
    scores = score(leak, seed=1), score(unprotected, seed=2), score(answers, seed=3)
    found = closure(*scores, measure)
    assert found.value == pytest.approx(expected)
    low, high = found.interval
    assert low < expected < high


def test_closure_pairs_people():
    """What moves all alike, as other people would, moves no share."""
    shared = np.random.default_rng(0).normal(size=400)
    ends = [score(value, shared=shared, spread=0.05) for value in (0.15, 0.3, 0.1)]
    low, high = closure(*ends, UP).interval
    assert high - low < 1e-9
    apart = [score(v, seed=i, spread=0.05) for i, v in enumerate((0.15, 0.3, 0.1))]
    low, high = closure(*apart, UP).interval
    assert high - low > 0.3


def test_there_is_no_closure_of_a_gap_that_may_be_none():
    found = closure(score(0.1, seed=1), score(0.11, seed=2), score(0.1, seed=3), UP)
    assert math.isnan(found.value)
    assert all(map(math.isnan, found.interval))
    same = score(0.1)
    assert math.isnan(closure(same, same, same, UP).value)


def test_there_is_no_closure_where_the_answers_leak_more():
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
        (UP, (0.10, 0.30, 0.20), True),  # a larger budget that overfits gained nothing
        (DOWN, (0.30, 0.20, 0.10), False),
        (DOWN, (0.30, 0.10, 0.11), True),
    ],
)
def test_an_attacker_converged_if_the_last_doubling_gained_less_than_people_matter(
    measure, held_out, expected
):
    budgets = [score(0.2, held_out=value, spread=0.02) for value in held_out]
    assert is_converged(budgets, measure) is expected


def test_a_wide_interval_does_not_hide_a_gain_that_matters():
    budgets = [score(0.2, held_out=value, spread=0.02) for value in (0.153, 0.141, 0.1295)]
    assert is_converged(budgets, DOWN)
    assert not is_converged(budgets, DOWN, most=0.0016)
    assert is_converged(budgets, DOWN, most=0.012)


def test_nothing_gained_is_converged_where_all_people_are_alike():
    nobody = score(0.0, held_out=0.0, spread=0.0)
    assert is_converged([nobody, nobody, nobody], UP)


def test_a_limit_is_exceeded_in_the_direction_that_leaks():
    assert parse_limit("linkage_rank1:0.05") == Limit("linkage_rank1", 0.05)
    assert Limit("linkage_rank1", 0.05).is_exceeded_by(0.06)
    assert not Limit("linkage_rank1", 0.05).is_exceeded_by(0.05)
    assert Limit("pixels", 0.2).is_exceeded_by(0.19)
    assert not Limit("pixels", 0.2).is_exceeded_by(0.21)


@pytest.mark.parametrize("text", ["linkage_rank1", "linkage_rank1:", "linkage_rank1:nan", ":1", ""])
def test_a_limit_that_is_none_is_told(text):
    with pytest.raises(UserError, match=r"audit\.fail_above"):
        parse_limit(text)


def test_a_limit_on_a_measure_that_there_is_not_lists_those_there_are():
    with pytest.raises(UserError, match=r"names reid; it must be one of pixels, .*linkage_auc"):
        parse_limit("reid:0.05")


def report(converged=True, **values):
    measures = {"linkage_rank1": {"value": 0.1, "converged": converged}}
    names = {"unprotected": 0.5, "answers": 0.3, "logits": 0.4, "mine": 0.1} | values
    return {
        "encoders": {
            name: {"measures": {key: each | {"value": value} for key, each in measures.items()}}
            for name, value in names.items()
        }
    }


def test_only_encoders_are_held_to_limits_and_not_the_ends_of_the_scale():
    check_limits(report(), ["linkage_rank1:0.2"])
    with pytest.raises(LimitExceededError, match=r"^mine: .* is 0\.1, the limit is 0\.05$"):
        check_limits(report(), ["linkage_rank1:0.05"])


def test_attackers_that_did_not_try_hard_enough_pass_no_limit():
    with pytest.raises(LimitExceededError, match="attackers had not converged"):
        check_limits(report(converged=False), ["linkage_rank1:0.2"])


def test_a_limit_on_what_was_not_measured_is_told():
    with pytest.raises(UserError, match="names linkage_rank1, which wasn't measured"):
        check_limits(report(mine=None), ["linkage_rank1:0.2"])
    with pytest.raises(UserError, match="names pixels, which wasn't measured"):
        check_limits(report(), ["pixels:0.2"])


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ("guess_auc:0.9", r"names guess_auc, and there is no face recogniser: name one with --con"),
        ("attributes:0.1", r"names attributes, and the task has all attributes of the dataset"),
        (
            "linkage_rank1:0.1",
            r"names linkage_rank1, and nobody is known in the dataset's pictures",
        ),
    ],
)
def test_a_limit_on_what_cannot_be_measured_is_refused_at_once(limit, told):
    with pytest.raises(UserError, match=told):
        check_measurable([limit], ["recognizer", "attributes", "people"])
    if limit.startswith("guess"):  # faces are somebody's
        with pytest.raises(UserError, match="nobody is known"):
            check_measurable([limit], ["people"])
    check_measurable([limit, "pixels:0.1"], [])
