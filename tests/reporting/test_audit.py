from types import SimpleNamespace

import numpy as np
import pytest

from tfadv.config.schema import Audit
from tfadv.evaluation.leakage_measures import MEASURES
from tfadv.evaluation.results import AttackResult, EncoderResult, Score
from tfadv.evaluation.verdicts import Verdict
from tfadv.reporting import audit, audit_sections
from tfadv.reporting.page import Label, format_table


def test_chance_is_a_row_of_the_leaks_and_every_column_has_a_meaning():
    verdict = Verdict("linkage", Score(0.1, np.full(2, 0.1), 0.1), None, True)
    keys = ("pixels", "face_rank1", "linkage_rank1", "linkage_auc", "attributes")
    chance = {"reid_rank1": 0.014, "verification_auc": 0.5}
    encoders = {"mine": EncoderResult({}, utility={})}
    table = audit.leaks(encoders, {"mine": dict.fromkeys(keys, verdict)}, chance)
    label, *values = table.rows[-1]
    assert label.name == "chance"
    # Pixels, linkage and the task come first: a narrow screen shows no more.
    assert values == [None, 0.014, 0.0, 0.014, 0.5, 0.0]
    assert table.columns[3].name == "Task MCC"
    assert all(column.meaning for column in table.columns[1:])
    assert all(audit_sections.column(key).meaning for key in MEASURES)


def verdicts(linkage, error, *, is_converged=True):
    return {
        "linkage_rank1": Verdict("linkage", Score(linkage), None, True),
        "pixels": Verdict("ridge", Score(error), None, is_converged),
    }


def test_the_head_says_what_a_person_would_say():
    ends = {"unprotected": verdicts(0.8, 0.05), "hard_predictions": verdicts(0.5, 0.2)}
    sentences = audit.lead({"mine": verdicts(0.6, 0.1)} | ends, people=60)
    assert sentences == [
        "Whoever sees the features of two images of one person links them, among 60 people, in 3 "
        "of 5 tries (60%); without protection in 4 of 5 tries (80%), with hard predictions only in "
        "1 of 2 tries (50%).",
        "Reconstructions of the image have a mean squared error of 0.100 (pixels from -1 to 1); "
        "without protection it is 0.050, with hard predictions only it is 0.200.",
    ]


def test_without_ends_the_head_compares_with_nothing():
    assert audit.lead({"mine": verdicts(0.6, 0.1)}, people=60) == [
        "Whoever sees the features of two images of one person links them, among 60 people, in 3 "
        "of 5 tries (60%).",
        "Reconstructions of the image have a mean squared error of 0.100 (pixels from -1 to 1).",
    ]


def test_the_head_warns_of_attacks_that_had_not_converged():
    subject = verdicts(0.6, 0.1, is_converged=False)
    *_, warning = audit.lead({"mine": subject}, people=60)
    assert warning == "Some attacks had not converged: with more steps they would find more."


def test_what_was_tried_has_a_column_for_each_measure_with_its_unit():
    attacks = {
        name: SimpleNamespace(title=name, meaning="It attacks.") for name in ("ridge", "probe")
    }
    results = {
        "ridge": AttackResult({"mse": Score(0.0932), "reid_rank1_centred": Score(0.0417)}),
        "probe": AttackResult(not_applicable="the task has all attributes"),
    }
    table = audit.tried(EncoderResult(results, utility={}), attacks)
    assert table.rows == [[Label("ridge", "It attacks."), 0.0932, 0.0417]]
    assert [column.format for column in table.columns[1:]] == [".3f", "z.1%"]


def test_an_audit_of_all_measures_fits_a_terminal():
    score = Score(0.1234, np.linspace(0.1, 0.2, 41))
    names = ("protected", "unprotected", "logits", "hard_predictions")
    verdict = Verdict("linkage", score, None, True)
    found = {name: dict.fromkeys(MEASURES, verdict) for name in names}
    utility = {"mcc_task_tuned": 0.8, "mcc_task_tuned_ci95": [0.7, 0.9]}
    encoders = {name: EncoderResult({}, utility=utility) for name in names}
    text = format_table(audit.leaks(encoders, found, {}))
    assert max(map(len, text.splitlines())) <= 100
    for part in ("reconstruction", "linkage, rank 1", "Task MCC", "0.800 [0.700, 0.900]"):
        assert part in text
    assert f"The report has {len(MEASURES) - 2} more columns." in text


@pytest.mark.parametrize(
    ("settings", "note"),
    [
        (
            Audit(),
            "decoders (figure6, residual) are trained on 2 encoders (protected, logits), which "
            "takes long without a GPU: --config.audit.decoders=figure6 leaves out the large "
            "decoder",
        ),
        (
            Audit(decoders=("figure6",)),
            "decoders (figure6) are trained on 2 encoders (protected, logits), which takes long "
            "without a GPU: --config.audit.decoders= leaves them out",
        ),
        (Audit(decoders=()), ""),
        (Audit(losses=()), ""),
    ],
)
def test_an_audit_that_takes_long_says_so_and_how_to_shorten_it(settings, note):
    assert audit.duration_note(settings, ["protected", "logits"]) == note
