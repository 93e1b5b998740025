import numpy as np
import pytest

from tfadv.attacks.registry import (
    build_attacks,
    build_audit_attacks,
    encoder_metrics,
    flat_metrics,
)
from tfadv.config.schema import Attack, Audit, Config
from tfadv.evaluation.leakage_measures import IDENTITIES, LABELS, RECOGNIZER
from tfadv.evaluation.results import AttackResult, EncoderResult, Score, Training

WITHOUT_DECODERS = [
    "ridge",
    "kernel",
    "nearest_neighbour",
    "feature_map",
    "feature_ridge",
    "feature_kernel",
    "linkage",
    "linkage_by_guesses",
    "linkage_by_kernel_guesses",
    "probe_linear",
    "probe_mlp",
    "probe_kernel",
]
QUICK = set(WITHOUT_DECODERS) - {"feature_map"}


def attacks_of(**fields):
    return build_attacks(Config(**fields), lambda adversary: None)


def audit_attacks_of(**fields):
    return build_audit_attacks(Config(**fields), lambda adversary: None)


def test_the_attacks_of_attack_mode_are_the_papers_decoder_and_all_others():
    assert list(attacks_of()) == ["decoder", *WITHOUT_DECODERS]


def test_the_white_box_attack_runs_on_request():
    attacks = attacks_of(attack=Attack(white_box=4))
    assert list(attacks)[-1] == "gradient_search"
    assert "gradient_search" in audit_attacks_of(attack=Attack(white_box=4))


def test_an_audit_has_decoders_of_three_budgets_in_the_place_of_the_papers():
    attacks = audit_attacks_of(audit=Audit(decoders=("figure6", "residual"), steps=500))
    budgets = [(f"{name}-pixels", times) for name in ("figure6", "residual") for times in (1, 2, 4)]
    names = [f"{family}-x{times}" for family, times in budgets]
    assert list(attacks) == [*WITHOUT_DECODERS, *names]
    assert [(attacks[name].family, attacks[name].budget) for name in names] == budgets
    assert attacks["residual-pixels-x4"].title == "trained decoder (residual, pixels), 2,000 steps"
    assert {attacks[name].budget for name in WITHOUT_DECODERS} == {0}


def test_an_audit_tries_each_architecture_loss_and_seed():
    losses = ("pixels", "gan", "perceptual", "recognizer")
    attacks = audit_attacks_of(audit=Audit(decoders=("figure6",), losses=losses, seeds=2))
    families = {attack.family for attack in attacks.values() if attack.family}
    assert families == {f"figure6-{loss}-{seed}" for loss in losses for seed in (0, 1)}
    meanings = {attacks[f"figure6-{loss}-0-x1"].meaning for loss in losses}
    assert meanings == {
        "A network, the decoder of Figure 6, trained on pixels.",
        "A network, the decoder of Figure 6, trained on pixels and a discriminator.",
        "A network, the decoder of Figure 6, trained on pixels and VGG19's features.",
        "A network, the decoder of Figure 6, trained on pixels and the recognizer's embedding.",
    }


@pytest.fixture(scope="module")
def everything():
    config = {"attack": Attack(white_box=4)}
    return attacks_of(**config) | audit_attacks_of(**config)


def test_each_attack_has_a_title_of_its_own_and_a_meaning_in_one_or_two_sentences(everything):
    assert len({attack.title for attack in everything.values()}) == len(everything)
    for attack in everything.values():
        assert attack.meaning.endswith(".")
        assert attack.meaning[0].isupper()


def test_attacks_need_what_their_measures_need(everything):
    """A reconstruction needs nothing; a recognizer measures it if there is one."""
    assert everything["feature_ridge"].needs == {RECOGNIZER}
    assert everything["linkage"].needs == {IDENTITIES}
    assert everything["linkage_by_guesses"].needs == {RECOGNIZER}
    assert everything["probe_mlp"].needs == {LABELS}
    assert not everything["decoder"].needs


def test_attacks_in_closed_form_are_quick_and_trained_networks_are_not(everything):
    assert {name for name, attack in everything.items() if attack.is_quick} == QUICK


# metrics.json


def result(**scores):
    return AttackResult({name: Score(value) for name, value in scores.items()})


def test_attacks_of_the_paper_have_plain_names_and_others_are_prefixed():
    attacks = {
        "decoder": result(mse=0.1, psnr=20.0),
        "ridge": result(mse=0.2),
        "linkage": result(linkage_auc=0.9),
        "feature_map": result(feature_reid_rank1=0.3),
    }
    assert encoder_metrics(EncoderResult(attacks, {"mcc": 0.7}, {"lda_score": 1.5})) == {
        "mcc": 0.7,
        "lda_score": 1.5,
        "mse": 0.1,
        "psnr": 20.0,
        "ridge/mse": 0.2,
        "linkage_auc": 0.9,
        "feature_reid_rank1": 0.3,
    }


def test_numbers_of_the_training_are_named_by_the_attack():
    training = Training(40, True, 0.3, 1000.0)
    fields = {"examples": 20, "held_out_loss": 0.3, "training": training}
    attacks = {name: AttackResult(**fields) for name in ("decoder", "feature_map")}
    assert encoder_metrics(EncoderResult(attacks, {})) == {
        "test_examples": 20,
        "held_out_loss": 0.3,
        "attack_steps": 40,
        "attack_converged": 1.0,
        "images_per_s": 1000.0,
        "feature_map/test_examples": 20,
        "feature_map/held_out_loss": 0.3,
        "feature_map_steps": 40,
        "feature_map_converged": 1.0,
    }


def test_the_first_encoder_has_plain_names_and_others_and_references_are_prefixed():
    results = {name: EncoderResult({"decoder": result(mse=0.1)}, {}) for name in ("one", "two")}
    interval = AttackResult({"mse": Score(0.5, np.array([0.5, 0.5]))})
    assert flat_metrics(results, {"mean_face": interval}) == {
        "mse": 0.1,
        "two/mse": 0.1,
        "mean_face/mse": 0.5,
        "mean_face/mse_ci95": [0.5, 0.5],
    }
