"""Protect and attack with every kind of defence, on synthetic faces, as a user runs them."""

import functools
import json

import numpy as np
import pytest

from tests import runs
from tests.runs import call, metrics
from tfadv.attacks import registry
from tfadv.attacks.black_box import SavedEncoder, load_classifier
from tfadv.attacks.gradient_search import Search
from tfadv.config.schema import BlackBox
from tfadv.modes import protect

CONSTANT = "Bald"  # too rare among few faces to be learned in one step
UNDEFENDED = "config.loss.lambda1 = 0.0"


@pytest.fixture(scope="module")
def root(root, tiny_faces):
    """A folder with a config and a recognizer."""
    runs.write_config(root, tiny_faces.dir, UNDEFENDED)
    return root


def make_images():
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)


def test_predictions_leave_the_encoder_and_the_classifier_returns_them(root):
    assert call(root, "protect", "hard/protect", "--config.bottleneck.predictions=hard") == 0
    encoder = SavedEncoder(str(root / "hard/protect/encoder"), BlackBox(), 32)
    classify = load_classifier(encoder.path)
    predictions = encoder(make_images())
    assert predictions.shape == (5, len(classify.attributes))
    assert set(np.unique(predictions)) <= {-1.0, 1.0}
    np.testing.assert_array_equal(classify(predictions), predictions)
    # Logits are relative to the thresholds that were best on held-out images.
    assert call(root, "protect", "logits/protect", "--config.bottleneck.predictions=logits") == 0
    logits = SavedEncoder(str(root / "logits/protect/encoder"), BlackBox(), 32)(make_images())
    np.testing.assert_array_equal(np.where(logits > 0, 1.0, -1.0), predictions)
    hard, soft = metrics(root, "hard/protect"), metrics(root, "logits/protect")
    assert hard["mcc"] == hard["mcc_tuned"] == pytest.approx(soft["mcc"], abs=1e-9)


def test_predictions_are_those_of_the_baseline_which_is_trained_once(root, capsys):
    assert call(root, "protect", "hard/protect", "--config.bottleneck.predictions=hard") == 0
    alone = SavedEncoder(str(root / "hard/protect/encoder"), BlackBox(), 32)(make_images())
    capsys.readouterr()
    flags = ["--config.bottleneck.predictions=hard", "--config.bottleneck.flip=0.3"]
    assert call(root, "protect", "both/protect", *flags, "--config.baseline") == 0
    progress = capsys.readouterr().err
    assert "unprotected  1/30" in progress
    assert "\nprotected  " not in progress
    path = str(root / "both/protect/unprotected/encoder")
    classify = load_classifier(path)
    logits = classify(SavedEncoder(path, BlackBox(), 32)(make_images()))
    np.testing.assert_array_equal(np.where(logits > classify.thresholds, 1.0, -1.0), alone)
    histories = [root / "both/protect" / name / "history.jsonl" for name in (".", "unprotected")]
    assert histories[0].read_text() == histories[1].read_text()
    # Some predictions are flipped, the same ones in each call.
    encoder = SavedEncoder(str(root / "both/protect/encoder"), BlackBox(), 32)
    flipped = encoder(make_images())
    np.testing.assert_array_equal(encoder(make_images()), flipped)
    assert set(np.unique(flipped * alone)) == {-1.0, 1.0}


def test_a_training_without_checkpoints_is_not_inherited(tmp_path):
    (tmp_path / "unprotected").mkdir()
    protect.inherit(tmp_path / "unprotected", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["unprotected"]


@pytest.mark.slow
def test_an_encoder_with_a_bottleneck_and_terms_is_trained_and_attacked(root, capsys, monkeypatch):
    searches = (Search(1.0, 0.1, 5),)
    brief = functools.partial(registry.GradientSearch, searches=searches, restarts=1)
    monkeypatch.setattr(registry, "GradientSearch", brief)
    flags = {
        "bottleneck.size": 6,
        "bottleneck.noise": 0.5,
        "bottleneck.bits": 2,
        "bottleneck.blur": 0.5,
        "loss.lambda1": 0.5,
        "loss.nopeek": 0.1,
        "loss.excess_pixels": 0.1,
        "loss.excess_identity": 0.1,
        "loss.max_entropy": 0.1,
        "recognizer.path": root / "recognizer/recognizer",
    }
    listed = [f"--config.{name}={value}" for name, value in flags.items()]
    assert call(root, "protect", "all/protect", *listed, "--config.baseline") == 0
    history = [json.loads(line) for line in (root / "all/protect/history.jsonl").open()]
    terms = {
        "private_reconstruction",
        "private_distance_correlation",
        "private_excess_pixels",
        "private_excess_identity",
        "private_identity_entropy",
        "private_identity",
    }
    assert terms <= set(history[0])
    page = (root / "all/protect/report.html").read_text()
    assert "λ₁ = 0.5" in page
    assert "excess identity = 0.1" in page
    assert metrics(root, "all/protect")["dfil"] > 0
    levels = SavedEncoder(str(root / "all/protect/encoder"), BlackBox(), 32)(make_images())
    assert set(np.unique(levels)) <= {-1.5, -0.5, 0.5, 1.5}
    baseline = json.loads((root / "all/protect/unprotected/config.json").read_text())["config"]
    assert not any(baseline["loss"][name] for name in ("lambda1", "nopeek", "max_entropy"))
    assert baseline["bottleneck"]["bits"] == 0

    recognizer = f"--config.recognizer.path={root / 'recognizer/recognizer'}"
    flags = [recognizer, "--config.train.steps=10", "--config.attack.white_box=3"]
    assert call(root, "attack", "all/attack", *flags) == 0
    message = "protected: search by gradients (white box): does not apply: no gradient of the feat"
    assert message in capsys.readouterr().out
    found = metrics(root, "all/attack")
    assert {"psnr", "unprotected/psnr", "linkage_auc", "info_nce_bits"} <= set(found)
    # Quantised features have no gradient; those of the unprotected encoder do.
    assert "gradient_search/psnr" not in found
    assert found["unprotected/gradient_search/test_examples"] == 3
    low, high = found["unprotected/gradient_search/psnr_ci95"]
    assert low <= found["unprotected/gradient_search/psnr"] <= high
    page = (root / "all/attack/report.html").read_text()
    assert "search by gradients (white box)" in page
    assert "Information on identity, bits" in page


def test_a_variational_bottleneck_is_trained_and_resumed(root):
    flags = ["--config.bottleneck.variational=0.01", "--config.loss.warm_up=0.5"]
    assert call(root, "protect", "variational/protect", *flags) == 0
    name = root / "variational/protect/encoder"
    predictions = [SavedEncoder(str(name), BlackBox(), 32)(make_images()) for _ in range(2)]
    np.testing.assert_array_equal(*predictions)  # the same in each load
    history = [json.loads(line) for line in (name.parent / "history.jsonl").open()]
    assert "private_bottleneck" in history[0]


def test_an_encoder_with_constant_predictions_is_attacked(root):
    flags = ["--config.bottleneck.predictions=hard", "--config.train.steps=1"]
    flags.append(f"--config.task.attributes={CONSTANT}")
    assert call(root, "protect", "constant/protect", *flags) == 0
    predictions = SavedEncoder(str(root / "constant/protect/encoder"), BlackBox(), 32)(
        make_images()
    )
    assert len(np.unique(predictions)) == 1
    assert call(root, "attack", "constant/attack", "--config.train.steps=2") == 0
    assert "linkage_auc" not in metrics(root, "constant/attack")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["bottleneck.variational=1", "bottleneck.noise=1"],
            "bottleneck.variational is 1 and bottleneck",
        ),
        (["bottleneck.downscale=3"], "bottleneck.downscale is 3; it must divide data.size, 32"),
        (["loss.nopeek=1", "train.batch=3"], "train.batch is 3; loss.nopeek needs at least 4"),
        (
            ["bottleneck.flip=0.1"],
            "bottleneck.flip is 0.1, but only hard predictions can be flipped; set "
            "--config.bottleneck.predictions=hard",
        ),
        (
            ["bottleneck.predictions=soft"],
            "predictions is 'soft'; it must be one of , logits, hard",
        ),
        (
            ["bottleneck.noise_kind=white"],
            "bottleneck.noise_kind is 'white'; it must be one of gaussian",
        ),
        (
            ["bottleneck.variational=1", "bottleneck.noise_kind=laplace"],
            "the noise of a variational bottleneck must be gaussian",
        ),
        (
            ["bottleneck.blur=11"],
            "bottleneck.blur is 11; it must be at most a third of data.size, 32",
        ),
        (["bottleneck.size=8", "model.split=conv1"], "choose another split point"),
        (["bottleneck.bits=17"], "bottleneck.bits is 17; it must be from 0 to 16"),
    ],
)
def test_a_mistake_about_defences_is_one_line(root, capsys, flags, message):
    assert call(root, "protect", "mistake", *(f"--config.{flag}" for flag in flags)) == 2
    assert message in capsys.readouterr().err


def test_hiding_a_face_embedding_needs_a_recognizer(tiny_faces, tmp_path, capsys):
    runs.write_config(tmp_path, tiny_faces.dir, UNDEFENDED)
    assert call(tmp_path, "protect", "protect", "--config.loss.excess_identity=1") == 2
    assert "--config.recognizer.path, or train one" in capsys.readouterr().err
