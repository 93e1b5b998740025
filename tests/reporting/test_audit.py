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
