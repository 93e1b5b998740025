from types import SimpleNamespace

import numpy as np
import pytest

from tfadv.evaluation.results import AttackResult, EncoderResult, Score, Training
from tfadv.reporting import attack_tables
from tfadv.reporting.attack_tables import strongest, summary


def result(**scores):
    """Scores given as (on test images, on held-out images)."""
    found = {name: Score(v, np.zeros(0), held) for name, (v, held) in scores.items()}
    return AttackResult(found, examples=20)


RESULT = EncoderResult(
    utility={"mcc_task": 0.5},
    attacks={
        "decoder": result(psnr=(13.0, 13.0), ssim=(0.4, 0.4), reid_rank1=(0.02, 0.02)),
        "ridge": result(psnr=(14.0, 14.0), ssim=(0.3, 0.3), reid_rank1=(0.01, 0.01)),
        "feature_map": result(feature_similarity=(0.3, 0.3), feature_reid_rank1=(0.05, 0.06)),
        "linkage": result(linkage_rank1=(0.07, 0.04), linkage_auc=(0.8, 0.8)),
        "gradient_search": AttackResult({"psnr": Score(20.0)}, examples=2),
    },
)
ATTACKS = {
    name: SimpleNamespace(title=f"the {name}", meaning="It attacks.") for name in RESULT.attacks
}


def name_and_value(result, metric):
    name, score = strongest(result, metric)
    return name, score.value


def test_the_strongest_attack_is_chosen_on_held_out_images():
    assert name_and_value(RESULT, "psnr") == ("ridge", 14.0)
    assert name_and_value(RESULT, "ssim") == ("decoder", 0.4)
    assert name_and_value(RESULT, "reid_rank1") == ("feature_map", 0.05)
    assert strongest(RESULT, "face_similarity") is None


def test_without_known_held_out_people_the_strongest_attack_is_chosen_on_test_images():
    attacks = {
        "ridge": result(reid_rank1=(0.2, np.nan)),
        "linkage": result(linkage_rank1=(0.9, np.nan)),
        "gradient_search": AttackResult({"reid_rank1": Score(1.0)}, examples=2),
    }
    encoder = EncoderResult(attacks, utility={})
    assert name_and_value(encoder, "reid_rank1") == ("linkage", 0.9)


def test_the_summary_has_the_numbers_of_the_strongest_attacks():
    assert summary(RESULT) == {"mcc_task": 0.5, "psnr": 14.0, "ssim": 0.4, "reid_rank1": 0.05}


def test_a_row_by_attack_shows_identity_by_one_name_for_all_attacks():
    table = attack_tables.by_attack("protected", RESULT, {}, ATTACKS)
    headings = [column.name for column in table.columns]
    place = headings.index("Re-identification, rank 1")
    assert {row[0].name: row[place] for row in table.rows} == {
        "the decoder": 0.02,
        "the ridge": 0.01,
        "the feature_map": 0.05,
        "the linkage": 0.07,
        "the gradient_search": None,
    }


def test_training_shows_steps_and_the_curves_of_decoders_only():
    training = Training(30, True, 0.2, 100.0, ([10, 20, 30], [0.3, 0.25, 0.2]))
    decoder = AttackResult({"mse": Score(0.2)}, held_out_loss=0.2, training=training)
    encoders = {"mine": EncoderResult({"decoder": decoder}, utility={})}
    figure, table = attack_tables.training(encoders, ATTACKS)
    assert figure.png.startswith(b"\x89PNG")
    assert table.rows == [["mine: the decoder", 30, 0.2]]


def test_the_summary_has_the_intervals_that_were_measured():
    score = Score(14.0, np.linspace(13.0, 15.0, 41), 14.0)
    encoder = EncoderResult({"ridge": AttackResult({"psnr": score}, examples=9)}, utility={})
    assert summary(encoder) == {"psnr": 14.0, "psnr_ci95": list(score.interval)}


def test_the_first_columns_are_pixels_and_reidentification():
    for table in (
        attack_tables.by_attack("protected", RESULT, {}, ATTACKS),
        attack_tables.strongest_attacks({"protected": RESULT}, {}, ATTACKS),
    ):
        names = [column.name for column in table.columns[1:3]]
        assert names == ["PSNR (dB)", "Re-identification, rank 1"]


@pytest.mark.parametrize(("real", "is_explained"), [(0.06, True), (0.08, False)])
def test_a_row_above_the_real_image_is_explained(real, is_explained):
    references = {"real_image": AttackResult({"reid_rank1": Score(real)})}
    table = attack_tables.by_attack("protected", RESULT, references, ATTACKS)
    assert ("A row can lie above the real image." in table.note) == is_explained


def test_encoders_and_hard_predictions_are_compared_at_tuned_thresholds():
    tuned = EncoderResult({}, utility={"mcc_task": 0.83, "mcc_task_tuned": 0.81})
    hard = EncoderResult({}, utility={"mcc_task": 0.8})
    encoders = {"protected": tuned, "hard predictions only": hard}
    for table in (
        attack_tables.terminal(encoders, {}, ""),
        attack_tables.strongest_attacks(encoders, {}, ATTACKS),
        attack_tables.side_by_side(encoders, {}),
    ):
        place = [column.name for column in table.columns].index("Task MCC")
        assert [row[place] for row in table.rows] == [0.81, 0.8]
