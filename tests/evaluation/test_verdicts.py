import dataclasses
import math

import numpy as np
import pytest

from tfadv.evaluation import verdicts
from tfadv.evaluation.leakage_measures import MEASURES
from tfadv.evaluation.results import AttackResult, EncoderResult, Score, Training

PIXELS, RANK1, GUESS = MEASURES["pixels"], MEASURES["linkage_rank1"], MEASURES["guess_rank1"]
WIDE = np.array([0.1, 0.4])


def result(metric, held_out, value=0.2, replicates=WIDE, **facts):
    return AttackResult({metric: Score(value, replicates, held_out)}, **facts)


def encoder(**attacks):
    return EncoderResult(attacks, utility={"mcc": 0.5})


def decoders(*held_out):
    """A decoder's results with budgets 1, 2 and 4."""
    return {
        f"figure6-pixels-x{budget}": result("mse", mse, family="figure6-pixels", budget=budget)
        for budget, mse in zip((1, 2, 4), held_out, strict=True)
    }


def test_the_strongest_attack_is_chosen_on_held_out_images_only():
    results = {"a": result("linkage_rank1", 0.2, 0.9), "b": result("linkage_rank1", 0.3, 0.1)}
    assert verdicts.strongest(results, RANK1)[0] == "b"
    results = {"a": result("mse", 0.2, 0.1), "b": result("mse", 0.3, 0.05)}
    name, score = verdicts.strongest(results, PIXELS)
    assert (name, score.value) == ("a", 0.1)


def test_an_attack_without_a_held_out_score_does_not_count():
    results = {"a": result("mse", math.nan, 0.001), "b": result("mse", 0.3)}
    assert verdicts.strongest(results, PIXELS)[0] == "b"
    assert verdicts.strongest({"a": results["a"]}, PIXELS) is None
    assert verdicts.strongest({}, PIXELS) is None


def test_a_decoder_may_gain_a_tenth_of_the_gap_between_the_ends_in_pixels():
    ends = {
        "unprotected": encoder(ridge=result("mse", 0.15)),
        "hard_predictions": encoder(ridge=result("mse", 0.25)),
    }
    assert verdicts.most_gained(ends, PIXELS) == pytest.approx(0.01)
    assert verdicts.most_gained(ends, RANK1) == math.inf
    trained = decoders(0.3, 0.23, 0.21)
    assert verdicts.have_converged(trained, PIXELS)
    assert not verdicts.have_converged(trained, PIXELS, 0.01)
    concluded = verdicts.conclude({"mine": encoder(**trained)} | ends)
    assert not concluded["mine"]["pixels"].is_converged


def test_a_decoder_that_diverged_at_one_budget_has_not_converged():
    trained = decoders(0.3, 0.3, 0.3) | {"ridge": result("mse", 0.2)}
    assert verdicts.have_converged(trained, PIXELS)
    trained |= {k: v for k, v in decoders(0.3, 0.3, math.nan).items() if k.endswith("x4")}
    assert not verdicts.have_converged(trained, PIXELS)
    assert verdicts.have_converged(trained, RANK1)


def test_a_network_that_used_all_its_steps_or_diverged_has_not_converged():
    capped = Training(steps=10, converged=False, held_out_loss=0.1, images_per_s=1.0)
    results = {
        "ridge": result("mse", 0.2),
        "feature_map": result("feature_reid_rank1", 0.3, training=capped),
    }
    assert verdicts.have_converged(results, PIXELS)
    assert not verdicts.have_converged(results, GUESS)
    ended = dataclasses.replace(capped, converged=True)
    results["feature_map"] = dataclasses.replace(results["feature_map"], training=ended)
    assert verdicts.have_converged(results, GUESS)
    results["feature_map"] = result("feature_reid_rank1", math.nan, diverged="the loss is nan")
    assert not verdicts.have_converged(results, GUESS)
    assert verdicts.have_converged(results, PIXELS)
    results["feature_map"] = AttackResult(diverged="the loss is nan")  # of what is not known
    assert not verdicts.have_converged(results, PIXELS)


def test_a_verdict_by_another_recognizer_is_of_the_attack_that_the_first_one_chose():
    def seen(held_out, value, by_other):
        return AttackResult(
            {
                "reid_rank1_centred": Score(value, WIDE, held_out),
                "reid_rank1_centred/other": Score(by_other, WIDE, 1 - held_out),
            }
        )

    attacks = {"a": seen(0.2, 0.1, 0.5), "b": seen(0.3, 0.2, 0.4)}
    encoders = {"mine": encoder(**attacks)}
    encoders |= dict.fromkeys(("unprotected", "hard_predictions"), encoder(**attacks))
    concluded = verdicts.conclude(encoders, ["other"])["mine"]
    assert concluded["face_rank1"].score.value == 0.2
    assert concluded["face_rank1/other"].score.value == 0.4


def test_the_ends_of_the_scale_have_no_closure_and_other_rows_do():
    def spread(value):
        return result("mse", value, value, value + np.linspace(-0.01, 0.01, 100))

    encoders = {
        "mine": encoder(ridge=spread(0.25)),
        "unprotected": encoder(ridge=spread(0.2)),
        "hard_predictions": encoder(ridge=spread(0.3)),
        "logits": encoder(ridge=spread(0.22)),
    }
    concluded = verdicts.conclude(encoders)
    closed = {name: found["pixels"].closure for name, found in concluded.items()}
    assert closed["unprotected"] is closed["hard_predictions"] is None
    assert closed["mine"].value == pytest.approx(0.5)
    assert closed["logits"].value == pytest.approx(0.2)
    numbers = verdicts.flat(concluded)
    assert numbers["closure/pixels"] == pytest.approx(0.5)
    assert numbers["logits/closure/pixels"] == pytest.approx(0.2)
    assert "unprotected/closure/pixels" not in numbers


def test_the_report_says_why_an_attack_has_no_numbers():
    attacks = {
        "ridge": result("mse", 0.2),
        "feature_map": AttackResult(not_applicable="there is no face recognizer"),
        "decoder": result("mse", math.nan, math.nan, diverged="the loss is nan"),
    }
    encoders = dict.fromkeys(("mine", "unprotected", "hard_predictions"), encoder(**attacks))
    report = verdicts.as_json(
        verdicts.conclude(encoders),
        encoders,
        dataset="faces/1.0.0",
        identities_are_known=False,
        limits=("pixels:0.2",),
    )
    assert report["identities_in_two_splits"] is None
    assert report["encoders"]["mine"]["attacks"] == {
        "ridge": {"mse": 0.2},
        "feature_map": {"not_applicable": "there is no face recognizer"},
        "decoder": {"diverged": "the loss is nan"},
    }
