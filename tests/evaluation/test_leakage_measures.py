import pytest

from tfadv.config.errors import UserError
from tfadv.evaluation.leakage_measures import (
    IDENTITIES,
    LABELS,
    RECOGNIZER,
    Limit,
    LimitExceededError,
    check_limits,
    check_measurable,
    parse_limit,
)


def test_a_limit_is_exceeded_by_a_larger_leak():
    assert parse_limit("linkage_rank1:0.05") == Limit("linkage_rank1", 0.05)
    assert Limit("linkage_rank1", 0.05).is_exceeded_by(0.06)
    assert not Limit("linkage_rank1", 0.05).is_exceeded_by(0.05)
    assert Limit("pixels", 0.2).is_exceeded_by(0.19)
    assert not Limit("pixels", 0.2).is_exceeded_by(0.21)


@pytest.mark.parametrize("text", ["linkage_rank1", "linkage_rank1:", "linkage_rank1:nan", ":1", ""])
def test_a_limit_of_another_form_is_refused(text):
    with pytest.raises(UserError, match=r"audit\.fail_above"):
        parse_limit(text)


def test_a_limit_on_an_unknown_measure_lists_the_measures():
    with pytest.raises(UserError, match=r"names reid; it must be one of pixels, .*linkage_auc"):
        parse_limit("reid:0.05")


def report(converged=True, **values):
    measures = {"linkage_rank1": {"value": 0.1, "converged": converged}}
    names = {"unprotected": 0.5, "hard_predictions": 0.3, "logits": 0.4, "mine": 0.1} | values
    return {
        "encoders": {
            name: {"measures": {key: each | {"value": value} for key, each in measures.items()}}
            for name, value in names.items()
        }
    }


def test_limits_hold_for_encoders_and_not_for_reference_rows():
    check_limits(report(), ["linkage_rank1:0.2"])
    with pytest.raises(LimitExceededError, match=r"^mine: .* is 0\.1, the limit is 0\.05$"):
        check_limits(report(), ["linkage_rank1:0.05"])


def test_attacks_that_had_not_converged_pass_no_limit():
    with pytest.raises(LimitExceededError, match="the attacks had not converged"):
        check_limits(report(converged=False), ["linkage_rank1:0.2"])


def test_a_limit_on_a_measure_that_was_not_measured_is_refused():
    with pytest.raises(UserError, match="names linkage_rank1, which was not measured"):
        check_limits(report(mine=None), ["linkage_rank1:0.2"])
    with pytest.raises(UserError, match="names pixels, which was not measured"):
        check_limits(report(), ["pixels:0.2"])


@pytest.mark.parametrize(
    ("limit", "need", "message"),
    [
        ("guess_auc:0.9", RECOGNIZER, "names guess_auc, but there is no face recognizer: name one"),
        ("guess_auc:0.9", IDENTITIES, "names guess_auc, but no identity is known"),
        ("attributes:0.1", LABELS, "names attributes, but the task has all attributes"),
        ("linkage_rank1:0.1", IDENTITIES, "names linkage_rank1, but no identity is known"),
    ],
)
def test_a_limit_on_a_measure_that_cannot_be_measured_is_refused(limit, need, message):
    with pytest.raises(UserError, match=message):
        check_measurable([limit], [need])
    check_measurable([limit, "pixels:0.1"], [])
