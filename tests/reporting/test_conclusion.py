import numpy as np
import pytest

from tfadv.evaluation.results import AttackResult, EncoderResult, Score
from tfadv.reporting.conclusion import conclude


def encoder(psnr, rank1, mcc=None):
    """An encoder whose replicates spread by 1% around each value."""
    spread = np.linspace(0.99, 1.01, 41)
    scores = {
        name: Score(value, value * spread, value)
        for name, value in (("psnr", psnr), ("linkage_rank1", rank1))
    }
    utility = {} if mcc is None else {"mcc_task": mcc}
    return EncoderResult({"ridge": AttackResult(scores, examples=9)}, utility=utility)


CHANCE = {"chance": AttackResult({"reid_rank1": Score(0.015)})}
UNPROTECTED, HARD = encoder(17.0, 0.8, 0.84), encoder(15.0, 0.4, 0.82)


def sentences(protected, **others):
    return conclude({"protected": protected, **others}, CHANCE, 60, "Next, audit.")


def test_says_what_the_task_lost_and_what_an_attacker_gets():
    task, attacker, following = sentences(
        encoder(16.0, 0.6, 0.83), unprotected=UNPROTECTED, hard_predictions=HARD
    )
    assert task == (
        "The task works with a Matthews correlation (MCC) of 0.830; without protection it is 0.840 "
        "(1 is perfect, 0 is chance)."
    )
    assert attacker.startswith(
        "An attacker who holds other images of 60 people, or their features, finds the right "
        "person for a feature in 3 of 5 tries (60%); without protection in 4 of 5 tries (80%), "
        "with hard predictions only in 2 of 5 tries (40%), by chance in 1 of 67 tries (1.5%). The "
        "defence helps in part (the smaller share is below 75%): of the gap "
        "between no protection and hard predictions only, it closes 50% ("
    )
    assert "in re-identification and 50% (" in attacker
    assert following == "Next, audit."


def test_the_task_is_compared_at_tuned_thresholds_as_hard_predictions_are():
    tuned = encoder(16.0, 0.6, 0.83)
    tuned.utility["mcc_task_tuned"] = 0.81
    task, _, _ = sentences(tuned, unprotected=UNPROTECTED)
    assert task.startswith("The task works with a Matthews correlation (MCC) of 0.810;")


@pytest.mark.parametrize(
    ("psnr", "rank1", "verdict"),
    [
        (16.9, 0.79, "barely helps (the smaller share is below 25%):"),
        (15.0, 0.78, "barely helps (the smaller share is below 25%):"),  # the weaker one counts
        (16.0, 0.41, "helps in part (the smaller share is below 75%):"),
        (15.2, 0.42, "helps (the smaller share is at least 75%):"),
    ],
)
def test_the_verdict_is_that_of_the_weaker_measure(psnr, rank1, verdict):
    protected = encoder(psnr, rank1, 0.83)
    _, attacker, _ = sentences(protected, unprotected=UNPROTECTED, hard_predictions=HARD)
    assert f"The defence {verdict}" in attacker


def test_where_nothing_is_to_be_hidden_there_is_no_verdict():
    same = encoder(15.0, 0.4, 0.84)
    _, attacker, _ = sentences(same, unprotected=same, hard_predictions=same)
    assert "The defence" not in attacker


def test_a_foreign_encoder_is_compared_with_chance_only():
    task, attacker, following = sentences(encoder(16.0, 0.6))
    assert task == ""
    assert attacker == (
        "An attacker who holds other images of 60 people, or their features, finds the right "
        "person for a feature in 3 of 5 tries (60%); by chance in 1 of 67 tries (1.5%)."
    )
    assert following == "Next, audit."


def test_without_known_people_only_the_images_count():
    def images_only(psnr):
        score = Score(psnr, psnr * np.linspace(0.99, 1.01, 41), psnr)
        return EncoderResult({"ridge": AttackResult({"psnr": score}, examples=9)}, utility={})

    encoders = {"protected": 16.0, "unprotected": 17.0, "hard_predictions": 15.0}
    found = conclude({n: images_only(p) for n, p in encoders.items()}, {}, 9, "folder/mine")
    assert found.attacker.startswith("The defence helps in part (the share is below 75%):")
    assert "people" not in found.attacker


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (1.0, "every try"),
        (0.985, "98.5% of all tries"),
        (0.77, "3 of 4 tries (77%)"),
        (0.52, "1 of 2 tries (52%)"),
        (0.05, "1 of 20 tries (5.0%)"),
        (0.0, "no try"),
    ],
)
def test_a_share_is_said_as_a_person_says_it(share, words):
    found = sentences(encoder(16.0, share))
    assert f"person for a feature in {words};" in found.attacker
