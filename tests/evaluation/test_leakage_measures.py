import json

import pytest

from tfadv.config.errors import UserError
from tfadv.config.schema import Audit
from tfadv.evaluation.leakage_measures import (
    IDENTITIES,
    LABELS,
    RECOGNIZER,
    VERSION,
    Limit,
    LimitExceededError,
    check_gate,
    check_measurable,
    parse_limit,
)


def test_a_limit_is_broken_by_a_larger_leak_or_less_utility():
    assert parse_limit("linkage_rank1:0.05") == Limit("linkage_rank1", 0.05)
    assert parse_limit("linkage_rank1:0.05:point") == Limit("linkage_rank1", 0.05, by_point=True)
    for limit, broken, kept in (
        (Limit("linkage_rank1", 0.05), 0.06, 0.05),
        (Limit("pixels", 0.2), 0.19, 0.2),
        (parse_limit("mcc_task:0.45", "audit.fail_below"), 0.44, 0.45),
    ):
        assert limit.is_broken_by(broken)
        assert not limit.is_broken_by(kept)


@pytest.mark.parametrize(
    "text", ["linkage_rank1", "linkage_rank1:", "linkage_rank1:nan", ":1", "", "pixels:1:low"]
)
def test_a_limit_of_another_form_is_refused(text):
    with pytest.raises(UserError, match=r"audit\.fail_above"):
        parse_limit(text)


def test_a_limit_on_an_unknown_measure_lists_the_measures():
    with pytest.raises(UserError, match=r"names reid; it must be one of pixels, .*linkage_auc"):
        parse_limit("reid:0.05")
    with pytest.raises(UserError, match=r"fail_below names pixels; it must be one of mcc, mcc_tun"):
        parse_limit("pixels:0.05", "audit.fail_below")


def report(value=0.1, interval=(0.08, 0.15), converged=True, mcc=0.5, mcc_interval=(0.4, 0.6)):
    verdict = {"value": value, "interval": interval, "converged": converged}
    mine = {"measures": {"linkage_rank1": verdict}}
    mine |= {"mcc_task": mcc, "mcc_task_interval": mcc_interval}
    ends = {"unprotected": 0.5, "hard_predictions": 0.3, "logits": 0.4}
    encoders = {n: {"measures": {"linkage_rank1": verdict | {"value": v}}} for n, v in ends.items()}
    return {"version": VERSION, "dataset": "faces", "encoders": encoders | {"mine": mine}}


def gate(found, **settings):
    check_gate(found, Audit(**settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fail_above": ("linkage_rank1:0.16",)}, None),
        (
            {"fail_above": ("linkage_rank1:0.12",)},
            r"^mine: linkage_rank1 is 0\.1 \(95% interval to 0\.15\), the limit is 0\.12$",
        ),
        ({"fail_above": ("linkage_rank1:0.12:point",)}, None),
        (
            {"fail_above": ("linkage_rank1:0.05:point",)},
            r"^mine: linkage_rank1 is 0\.1, the limit is 0\.05$",
        ),
        ({"fail_below": ("mcc_task:0.4",)}, None),
        (
            {"fail_below": ("mcc_task:0.45",)},
            r"^mine: mcc_task is 0\.5 \(95% interval to 0\.4\), the limit is 0\.45$",
        ),
        ({"fail_below": ("mcc_task:0.45:point",)}, None),
    ],
)
def test_the_end_of_the_interval_that_is_worse_is_compared(settings, message):
    if message is None:
        gate(report(), **settings)
    else:
        with pytest.raises(LimitExceededError, match=message):
            gate(report(), **settings)


def test_attacks_that_had_not_converged_pass_no_limit():
    with pytest.raises(LimitExceededError, match="the attacks had not converged"):
        gate(report(converged=False), fail_above=("linkage_rank1:0.2",))


def test_a_limit_on_what_was_not_measured_is_refused():
    with pytest.raises(UserError, match="names linkage_rank1, which was not measured"):
        gate(report(value=None), fail_above=("linkage_rank1:0.2",))
    with pytest.raises(UserError, match="names pixels, which was not measured"):
        gate(report(), fail_above=("pixels:0.2",))
    with pytest.raises(UserError, match="fail_below names mcc_task, which was not measured"):
        gate(report(mcc=None), fail_below=("mcc_task:0.2",))


def written(folder, content):
    path = folder / "audit.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


@pytest.mark.parametrize(
    ("now", "message"),
    [
        ({}, None),
        ({"value": 0.2, "interval": (0.15, 0.25)}, None),
        ({"value": 0.01, "interval": (0.0, 0.02)}, None),
        (
            {"value": 0.2, "interval": (0.16, 0.25)},
            r"^mine: linkage_rank1 was 0\.1 in the earlier audit and is 0\.2$",
        ),
        (
            {"mcc": 0.3, "mcc_interval": (0.2, 0.39)},
            r"^mine: mcc_task was 0\.5 in the earlier audit and is 0\.3$",
        ),
        ({"converged": False}, r"^mine: linkage_rank1 had not converged$"),
    ],
)
def test_an_encoder_is_compared_with_an_earlier_audit_beyond_both_intervals(tmp_path, now, message):
    baseline = written(tmp_path, report())
    if message is None:
        gate(report(**now), baseline=baseline)
    else:
        with pytest.raises(LimitExceededError, match=message):
            gate(report(**now), baseline=baseline)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no json", r"audit\.json is no audit\.json"),
        ("[]", r"audit\.json is no audit\.json"),
        ({"version": VERSION}, r"audit\.json is no audit\.json"),
        (report() | {"version": 2}, f"is of version 2, and this program writes version {VERSION}"),
        (report() | {"dataset": "cats"}, "is an audit on cats, and this one on faces"),
        (
            report() | {"encoders": {"logits": {}, "other": {}}},
            r"audit\.baseline has no encoder mine; it has other",
        ),
    ],
)
def test_an_earlier_audit_that_does_not_fit_is_refused(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        gate(report(), baseline=written(tmp_path, content))


def test_an_earlier_audit_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="nowhere cannot be read: No such file or directory"):
        gate(report(), baseline=str(tmp_path / "nowhere"))


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
