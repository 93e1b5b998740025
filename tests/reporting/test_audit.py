import numpy as np

from tfadv.evaluation.leakage_measures import MEASURES
from tfadv.evaluation.results import EncoderResult, Score
from tfadv.evaluation.verdicts import Verdict
from tfadv.reporting import audit, audit_sections


def test_chance_is_a_row_of_the_leaks_and_every_column_has_a_meaning():
    verdict = Verdict("linkage", Score(0.1, np.full(2, 0.1), 0.1), None, True)
    keys = ("pixels", "face_rank1", "linkage_rank1", "linkage_auc", "attributes")
    chance = {"reid_rank1": 0.014, "verification_auc": 0.5}
    encoders = {"mine": EncoderResult({}, utility={})}
    table = audit.leaks(encoders, {"mine": dict.fromkeys(keys, verdict)}, chance)
    label, *values = table.rows[-1]
    assert label.name == "chance"
    assert values == [0.0, None, 0.014, 0.014, 0.5, 0.0]
    assert all(column.meaning for column in table.columns[1:])
    assert all(audit_sections.column(key).meaning for key in MEASURES)


def verdicts(linkage, error, *, is_converged=True):
    return {
        "linkage_rank1": Verdict("linkage", Score(linkage), None, True),
        "pixels": Verdict("ridge", Score(error), None, is_converged),
    }


def test_the_head_says_what_a_person_would_say():
    ends = verdicts(0.8, 0.05), verdicts(0.5, 0.2)
    sentences = audit.lead(verdicts(0.6, 0.1), *ends, people=60)
    assert sentences == [
        "Whoever sees the features of two images of one person links them, among 60 people, in 3 "
        "of 5 tries (60%); without protection in 4 of 5 tries (80%), with hard predictions only in "
        "1 of 2 tries (50%).",
        "Reconstructions of the image have a mean squared error of 0.100 (pixels from -1 to 1); "
        "without protection it is 0.050, with hard predictions only 0.200.",
    ]


def test_the_head_warns_of_attacks_that_had_not_converged():
    subject = verdicts(0.6, 0.1, is_converged=False)
    *_, warning = audit.lead(subject, verdicts(0.8, 0.05), verdicts(0.5, 0.2), people=60)
    assert warning == "Some attacks had not converged: with more steps they would find more."
