import numpy as np

from tfadv.evaluation.results import Score
from tfadv.reporting.glossary import Column, describe
from tfadv.reporting.page import Card, Estimate, Label
from tfadv.reporting.tables import cards, cell, comparison, estimate, task_mcc

OURS = {"psnr": 14.5, "psnr_ci95": [14.0, 15.0], "reid_rank1": 0.25}
CHANCE = {"reid_rank1": 0.5, "verification_auc": 0.5}
ROWS = {"ours": OURS, Label("chance", "A guess."): CHANCE}


def test_a_cell_has_its_interval_where_one_was_measured():
    assert cell(OURS, "psnr") == Estimate(14.5, 14.0, 15.0)
    assert cell(OURS, "reid_rank1") == 0.25
    assert cell(OURS, "mcc") is None


def test_a_comparison_has_the_columns_that_any_row_has():
    table = comparison("T", "features", ROWS, ("verification_auc", "mcc", "psnr"), "A note.")
    assert (table.title, table.note) == ("T", "A note.")
    assert table.columns == [Column("features"), describe("verification_auc"), describe("psnr")]
    assert table.rows == [
        ["ours", None, Estimate(14.5, 14.0, 15.0)],
        [Label("chance", "A guess."), 0.5, None],
    ]


def test_a_column_of_a_comparison_can_be_replaced():
    column = Column("PSNR", group="decoder")
    assert comparison("T", "features", ROWS, [("psnr", column)]).columns[1] is column


def test_cards_show_the_first_row_on_a_scale_of_the_others():
    names = ("mcc", "psnr", "reid_rank1")
    found = cards(ROWS | {"no encoder": {}}, names, {"reid_rank1": "by ridge", "psnr": "by M"})
    assert found == [
        Card(describe("psnr"), Estimate(14.5, 14.0, 15.0), "by M"),
        Card(describe("reid_rank1"), 0.25, "by ridge", (("chance", 0.5),)),
    ]


def test_the_rows_on_a_cards_scale_and_their_order_can_be_chosen():
    rows = {"ours": {"psnr": 15.0}, "open": {"psnr": 17.0}, "closed": {"psnr": 13.0}, "x": {}}
    (card,) = cards(rows, ("psnr",), ends={"psnr": ("closed", "x", "missing", "open")})
    assert card.scale == (("closed", 13.0), ("open", 17.0))


def test_a_score_is_a_cell_with_its_interval_and_a_note():
    score = Score(0.5, np.linspace(0.4, 0.6, 41))
    assert estimate(score, "by ridge") == Estimate(0.5, *score.interval, "by ridge")
    assert estimate(Score(0.5)) == Estimate(0.5)


def test_the_tasks_mcc_is_at_tuned_thresholds_if_there_are_any():
    plain = {"mcc_task": 0.83, "mcc_task_ci95": [0.8, 0.85]}
    tuned = {"mcc_task_tuned": 0.81, "mcc_task_tuned_ci95": [0.78, 0.83]}
    assert task_mcc(plain) == plain
    assert task_mcc(plain | tuned) == {"mcc_task": 0.81, "mcc_task_ci95": [0.78, 0.83]}
    assert task_mcc({}) == {}
