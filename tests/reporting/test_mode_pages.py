"""The pages of protect, recognizer and reproduce, from small made-up results."""

import numpy as np
import pytest

from tfadv.config.experiment import Claim, Experiment, Plot, Row
from tfadv.evaluation.results import AttackResult, EncoderResult, Score
from tfadv.modes import protect as protect_mode
from tfadv.reporting import figures, protect, recognizer, reproduce
from tfadv.reporting.page import Estimate, Label

NOTE = "The people in the test images are in no other split."
STEPS = [0, 10, 20]


def test_protect_compares_the_encoder_with_the_baseline(tmp_path):
    results = {
        "protected": {"mcc_task": 0.6, "mcc/Smiling": 0.7, "mcc/Male": 0.5, "dfil": 0.2},
        "unprotected": {"mcc_task": 0.65, "mcc/Smiling": 0.75, "mcc/Male": 0.55},
    }
    losses = {
        "utility": (STEPS, [0.7, 0.5, 0.4]),
        "public_reconstruction": (STEPS, [0.3, 0.2, 0.1]),
    }
    table = protect.write(
        tmp_path / "report.html",
        results,
        losses,
        defences={"λ₁": 1.0, "bits": 2},
        people_note=NOTE,
        details={"mode": "protect"},
    )
    assert table.rows == [["protected", 0.6, 0.2], ["unprotected", 0.65, None]]
    page = (tmp_path / "report.html").read_text()
    for text in ("Encoder trained with λ₁ = 1, bits = 2", "unprotected 0.650", NOTE, "simulated"):
        assert text in page


@pytest.mark.parametrize(("tuned", "is_explained"), [(0.59, True), (0.61, False)])
def test_a_tuned_mcc_below_the_untuned_one_is_explained(tmp_path, tuned, is_explained):
    results = {"protected": {"mcc_task": 0.6, "mcc_task_tuned": tuned, "mcc/Smiling": 0.7}}
    losses = {"utility": (STEPS, [0.7, 0.5, 0.4])}
    path = tmp_path / "report.html"
    table = protect.write(path, results, losses, defences={}, people_note=NOTE, details={})
    assert ("few held-out images" in table.note) == is_explained


def test_protect_without_defence_has_no_simulated_attacker(tmp_path):
    path = tmp_path / "report.html"
    results = {"unprotected": {"mcc_task": 0.6, "mcc/Smiling": 0.7}}
    losses = {"utility": (STEPS, [0.7, 0.5, 0.4])}
    protect.write(path, results, losses, defences={}, people_note=NOTE, details={})
    assert "Encoder trained without defence" in path.read_text()
    assert "simulated" not in path.read_text()


def test_protect_warns_where_images_were_learned_by_heart(tmp_path):
    note = protect_mode._overfitting([0.5, 0.002], 0.7)
    assert note.startswith("The encoder has learned its training images by heart")
    assert protect_mode._overfitting([0.5, 0.2], 0.7) == ""
    assert protect_mode._overfitting([0.5, 0.002], 0.99) == ""
    results = {"protected": {"mcc_task": 0.7, "mcc/Smiling": 0.7}}
    losses = {"utility": (STEPS, [0.7, 0.1, 0.002])}
    path = tmp_path / "report.html"
    table = protect.write(
        path, results, losses, defences={}, people_note=NOTE, details={}, note=note
    )
    assert table.note == note
    assert note in path.read_text()


def test_recognizer_compares_images_with_blurred_images(tmp_path):
    names = ("verification_auc", "verification_eer", "reid_rank1", "reid_rank5")
    metrics = {"identities": 1200}
    for prefix, value in (("", 0.9), ("blurred/", 0.8)):
        metrics |= {prefix + name: value for name in names}
        metrics |= {f"{prefix}{name}_ci95": [value - 0.1, value + 0.1] for name in names}
    table = recognizer.write(
        tmp_path / "report.html",
        metrics,
        loss=(STEPS, [5.0, 4.0, 3.0]),
        held_out_auc=([], []),
        split="public",
        people_note=NOTE,
        details={},
    )
    assert table.rows[1] == ["blurred", *[Estimate(0.8, 0.8 - 0.1, 0.8 + 0.1)] * 4]
    page = (tmp_path / "report.html").read_text()
    assert "trained on 1,200 people" in page
    assert page.count("data:image/png") == 1  # no held-out people, no curve


ROWS = (
    Row("1", {"loss.lambda1": 0.0}, {}, "no defence", {"mcc": 0.6, "psnr": 13.7}),
    Row("2", {"loss.lambda1": 1.0}, {}, "defence", {"mcc": 0.5}),
)
EXPERIMENT = Experiment(
    title="A small grid",
    about="Two encoders.",
    base=lambda mode: None,
    rows=ROWS,
    metrics=("mcc", "psnr"),
    claims=[Claim("the defence hides pixels", "psnr", [("2", "1")])],
    plots=[Plot("Trade-off", "psnr", "mcc", {"": ["1", "2"]})],
    latent=("Smiling", "Male"),
)
RESULTS = {"1": {"mcc": 0.61, "psnr": 14.0, "psnr_ci95": [13.9, 14.1]}, "2": {}}


def test_reproduce_shows_our_numbers_and_the_papers(tmp_path):
    (table,) = reproduce.write(tmp_path, EXPERIMENT, RESULTS, titles={}, details={})
    assert [column.name for column in table.columns] == ["row", *["ours", "paper"] * 2]
    assert table.rows == [
        [Label("1", "no defence"), 0.61, 0.6, Estimate(14.0, 13.9, 14.1), 13.7],
        [Label("2", "defence"), None, 0.5, None, None],
    ]
    page = (tmp_path / "report.html").read_text()
    assert "Not finished: 2." in page
    assert "Images" not in page
    assert not (tmp_path / "reconstructions.png").exists()


def test_the_strongest_attack_is_chosen_on_held_out_images():
    attacks = {
        "decoder": AttackResult({"psnr": Score(15.0, held_out=13.0)}, examples=8),
        "ridge": AttackResult({"psnr": Score(14.0, held_out=14.0)}, examples=8),
    }
    assert reproduce.strongest_metrics(EncoderResult(attacks, utility={})) == {
        "strongest/psnr": 14.0,
        "strongest/psnr_attack": "ridge",
    }


def test_a_claim_is_checked_with_the_papers_attack_and_with_the_strongest(tmp_path):
    # The defence hides pixels from the decoder, not from ridge regression.
    results = {
        "1": {"psnr": 14.0, "strongest/psnr": 15.0, "strongest/psnr_attack": "decoder"},
        "2": {"psnr": 13.0, "strongest/psnr": 15.5, "strongest/psnr_attack": "ridge"},
    }
    titles = {"decoder": "trained decoder", "ridge": "linear decoder"}
    first, second = reproduce.write(tmp_path, EXPERIMENT, results, titles=titles, details={})
    assert [row[1] for row in first.rows] == [
        Estimate(15.0, note="by trained decoder"),
        Estimate(15.5, note="by linear decoder"),
    ]
    assert first.note.endswith("by trained decoder or linear decoder.")
    assert [row[2] for row in second.rows] == [14.0, 13.0]  # to compare with the paper's number
    claims = reproduce._claims(EXPERIMENT, results, titles)
    assert [column.name for column in claims.columns[4:]] == [
        "ours",
        "holds",
        "ours, strongest attack",
        "holds, strongest attack",
    ]
    note = "by linear decoder, by trained decoder"
    assert claims.rows[0][4:] == [1.0, "yes", Estimate(-0.5, note=note), "no"]
    page = (tmp_path / "report.html").read_text()
    assert page.index("Leakage by the strongest attack") < page.index("Row by row")


def test_a_plot_of_leakage_also_has_the_strongest_attack(tmp_path, monkeypatch):
    drawn = []
    plain = figures.curve_figure

    def spied(lines, *arguments, **options):
        drawn.append(lines)
        return plain(lines, *arguments, **options)

    monkeypatch.setattr(figures, "curve_figure", spied)
    strongest = {"strongest/psnr": 15.0, "strongest/psnr_attack": "ridge"}
    results = {"1": {"mcc": 0.6, "psnr": 14.0} | strongest, "2": {}}
    reproduce.write(tmp_path, EXPERIMENT, results, titles={}, details={})
    (lines,) = drawn
    assert lines["ours"] == ((14.0,), (0.6,))
    assert lines["paper"] == ((13.7,), (0.6,))
    assert lines["ours, strongest attack"] == ((15.0,), (0.6,))


def test_reproduce_shows_images_and_maps(tmp_path):
    images = [(name, np.zeros((2, 32, 32, 3), np.uint8)) for name in ("input", "1")]
    panel = np.eye(2), np.array([0, 1]), ["no Smiling, Male", "Smiling, Male"]
    separation = {"1": {"balanced_accuracy/Smiling": 0.875, "silhouette": 0.125}}
    maps = reproduce.Maps({"1": panel}, separation, 1234, ["2 has no map."])
    reproduce.write(tmp_path, EXPERIMENT, RESULTS, titles={}, images=images, maps=maps, details={})
    page = (tmp_path / "report.html").read_text()
    for text in ("first 1,234 test images", "0.875", "0.125", "2 has no map."):
        assert text in page
    assert (tmp_path / "reconstructions.png").exists()


@pytest.mark.parametrize(
    ("less", "more", "at_most", "expected"),
    [
        (0.1, 0.3, None, "yes"),
        (0.3, 0.1, None, "no"),
        (0.1, 0.3, 0.1, "no, by more than 0.1"),
        (0.25, 0.3, 0.1, "yes"),
        (0.3, 0.1, 0.1, "yes"),
        (0.1, 0.12, None, "yes, within the intervals"),
        (0.12, 0.1, None, "no, within the intervals"),
        (0.1, 0.1, None, "no, within the intervals"),
    ],
)
def test_a_claim_holds_by_its_difference_and_intervals(less, more, at_most, expected):
    rows = [{"psnr": v, "psnr_ci95": [v - 0.05, v + 0.05]} for v in (less, more)]
    claim = Claim("", "psnr", []) if at_most is None else Claim("", "psnr", [], at_most)
    assert reproduce.verdict(claim, *rows) == expected


def test_without_intervals_only_the_difference_counts():
    claim = Claim("", "mcc", [])
    assert reproduce.verdict(claim, {"mcc": 0.1}, {"mcc": 0.11}) == "yes"


def test_a_claim_that_an_unfinished_attack_supports_says_so():
    claim = Claim("", "psnr", [])
    less, more = {"psnr": 13.0, "attack_converged": 0.0}, {"psnr": 14.0, "attack_converged": 1.0}
    assert reproduce.verdict(claim, less, more) == "yes, but an attack had not converged"


def test_claims_of_an_experiment_without_numbers_of_the_paper_have_no_such_column(tmp_path):
    rows = [Row("a"), Row("b")]
    claims = [Claim("Noise hides the image.", "psnr", [("a", "b")])]
    experiment = Experiment("Mine", "", lambda mode: None, rows, ("psnr",), claims)
    results = {"a": {"psnr": 13.0}, "b": {"psnr": 14.0}}
    reproduce.write(tmp_path, experiment, results, titles={}, details={})
    page = (tmp_path / "report.html").read_text()
    assert "Noise hides the image." in page
    assert "as the paper reports it" not in page
