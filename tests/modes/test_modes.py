"""The whole way on drawn faces: recognizer, protect, then attack, as a user runs them."""

import dataclasses
import json
import re
import runpy
import shutil
import signal
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.preprocessing import StandardScaler
from tensorflow.python.saved_model import loader_impl

from data_prep import faces
from tests import datasets, recognizers, runs
from tests.runs import metrics
from tfadv import cli
from tfadv.attacks import network_training, probes, registry
from tfadv.attacks.black_box import SavedEncoder
from tfadv.attacks.ridge import STRENGTHS
from tfadv.config import config_file
from tfadv.config.schema import BlackBox, Config, Loss
from tfadv.data import dataset as data
from tfadv.data.images import normalize
from tfadv.evaluation.results import AttackResult
from tfadv.models import build
from tfadv.models.encoder import Encoder
from tfadv.modes import loading, protect
from tfadv.reporting import attack_tables
from tfadv.reporting.glossary import describe
from tfadv.training import signals


@pytest.fixture(scope="module")
def root(root, tiny_faces):
    """A folder with a finished recogniser, a finished protect run and a finished attack on it."""
    runs.write_config(
        root,
        tiny_faces.dir,
        "config.baseline = mode != 'recognizer'",
        "config.train.steps = 10 if mode == 'recognizer' else 30",  # as in `recognizer_run`
    )
    assert call(root, "protect") == 0
    with pytest.MonkeyPatch.context() as patch:
        splits = spy_on_splits(patch)
        assert call(root, "attack") == 0
    (root / "splits.json").write_text(json.dumps(sorted(splits)))
    return root


def call(root, mode, *flags):
    return runs.call(root, mode, mode, *flags)


def spy_on_splits(patch):
    """Collects which splits are read."""
    splits = set()

    def spy(read):
        def reading(self, split, *arguments, **options):
            splits.add(split)
            return read(self, split, *arguments, **options)

        return reading

    for name in ("batches", "training_batches", "annotations"):
        patch.setattr(data.Dataset, name, spy(getattr(data.Dataset, name)))
    return splits


def test_protect_leaves_what_the_contract_names(root):
    names = {path.name for path in (root / "protect").iterdir()}
    assert names == {
        "config.json",
        "checkpoints",
        "tensorboard",
        "history.jsonl",
        "encoder",
        "classifier",
        "metrics.json",
        "report.html",
        "unprotected",
    }
    assert {path.name for path in (root / "protect/unprotected").iterdir()} == names - {
        "unprotected"
    }


def test_attack_leaves_what_the_contract_names(root):
    names = {path.name for path in (root / "attack").iterdir()}
    assert names == {
        "config.json",
        "encoders",
        "tensorboard",
        "metrics.json",
        "reconstructions.npz",
        "reconstructions.png",
        "report.html",
    }
    for name in ("protected", "unprotected", "hard_predictions"):
        folder = root / "attack/encoders" / name
        assert {path.name for path in folder.iterdir()} == {"attacks", "decoder", "feature_map"}
        for attack in ("decoder", "feature_map"):
            assert (folder / attack / "checkpoints").is_dir()
            assert (folder / "attacks" / f"{attack}.npz").is_file()


def test_config_json_tells_the_run_s_whole_story(root):
    record = json.loads((root / "protect/config.json").read_text())
    assert record["config"]["train"]["steps"] == 30
    assert record["mode"] == "protect"
    assert record["precision"] == "float32"
    assert record["versions"]["tensorflow"] == tf.__version__
    assert record["dataset"]["name"] == "synthetic/tiny/1.0.0"
    assert sum(record["dataset"]["splits"].values()) == 200


def test_protect_measures_utility_on_the_test_split(root):
    found = metrics(root, "protect")
    assert found["test_examples"] == 20
    attributes = [name for name in found if name.startswith("mcc/")]
    assert found["mcc"] == pytest.approx(np.mean([found[name] for name in attributes]))
    assert {"mcc_task", "mcc_tuned", "images_per_s"} <= set(found)


def test_metrics_are_flat_finite_numbers(root):
    for mode in ("protect", "attack"):
        found = metrics(root, mode)
        for name, value in found.items():
            assert np.isfinite(value).all(), name
            if name.endswith("_ci95"):
                low, high = value
                value, rounding = found[name.removesuffix("_ci95")], 1e-9
                assert low - rounding <= value <= high + rounding, name
            else:
                assert isinstance(value, int | float), name


def test_every_number_of_an_attack_has_a_meaning(root):
    config = config_file.read_config(str(root / "tiny.py"), "attack")
    attacks = registry.build_attacks(config, lambda adversary: None)
    prefixes = "|".join(["unprotected", "hard_predictions", *attacks, *attack_tables.REFERENCES])
    for name in metrics(root, "attack"):
        measure = re.sub(rf"^(({prefixes})/)*|_ci95$", "", name)
        assert describe(measure).meaning, name


def test_attack_names_what_the_contract_names(root):
    found = metrics(root, "attack")
    identity = ("reid_rank1", "reid_rank5", "verification_auc", "verification_eer")
    linkage = ("linkage_rank1", "linkage_rank5", "linkage_auc", "linkage_eer")
    expected = {"mcc", "mcc_task", "psnr", "ssim", "mse", "face_similarity", *identity}
    expected |= {"face_similarity_inner", "feature_similarity", *linkage}
    expected |= {f"feature_{name}" for name in identity}
    for name in expected:
        assert {name, f"{name}_ci95", f"unprotected/{name}"} <= set(found), name
    assert {"images_per_s", "test_examples", "held_out_loss", "attack_steps"} <= set(found)
    for attacker in ("ridge", "kernel", "nearest_neighbour"):
        assert {f"{attacker}/psnr", f"unprotected/{attacker}/reid_rank1"} <= set(found)
    assert {f"chance/{name}" for name in identity} <= set(found)
    assert {f"real_image/{name}" for name in identity} <= set(found)
    lda = {"lda_within", "lda_between", "lda_score"}
    assert lda | {f"unprotected/{name}" for name in lda} | {"chance/lda_score"} <= set(found)


def test_the_lda_score_is_of_the_standardised_features_of_all_test_pictures(root, tiny_faces):
    dataset = data.Dataset(tiny_faces)
    encode = SavedEncoder(str(root / "protect/encoder"), BlackBox(), 32)
    batches = dataset.batches(data.TEST, data.WHOLE)
    features = np.concatenate([encode(batch["images"].numpy()) for batch in batches])
    people = dataset.annotations(data.TEST)[0]
    varied = features[:, features.std(0) > 1e-6 * np.abs(features).max(0)]
    standardised = StandardScaler().fit_transform(varied.astype(np.float64))
    fit = LinearDiscriminantAnalysis(solver="lsqr", store_covariance=True)
    fit.fit(standardised, people)
    between = fit.priors_ @ np.square(fit.means_).sum(1)
    found = metrics(root, "attack")
    assert found["lda_score"] == pytest.approx(between / np.trace(fit.covariance_), rel=1e-3)
    assert found["lda_within"] + found["lda_between"] == pytest.approx(varied.shape[1])
    assert found["chance/lda_score"] == pytest.approx(3 / 16)  # 4 people, 20 pictures
    assert f"{found['lda_score']:.3f}" in (root / "attack/report.html").read_text()


def test_attack_measures_the_same_utility_through_the_black_box(root):
    protect, attacked = metrics(root, "protect"), metrics(root, "attack")
    assert attacked["mcc"] == pytest.approx(protect["mcc"])
    baseline = metrics(root, "protect/unprotected")
    assert attacked["unprotected/mcc"] == pytest.approx(baseline["mcc"])


def test_attack_compares_with_the_mean_face_and_the_unprotected_encoder(root):
    found = metrics(root, "attack")
    for metric in ("ssim", "psnr"):
        assert {metric, f"unprotected/{metric}", f"mean_face/{metric}"} <= set(found)
    page = (root / "attack/report.html").read_text()
    assert "mean face" in page
    assert "unprotected" in page


def test_the_linear_m_is_scikit_learns_ridge_regression_chosen_on_held_out_pictures(
    root, tiny_faces
):
    dataset = data.Dataset(dataclasses.replace(tiny_faces, held_out=0.3))
    encode = SavedEncoder(str(root / "protect/encoder"), BlackBox(), 32)
    recognizer = recognizers.load(root / "recognizer/recognizer")
    features, embeddings = {}, {}
    for part, split in ((data.TRAIN, data.PUBLIC), (data.HELD_OUT, data.PUBLIC), ("", data.TEST)):
        batches = dataset.batches(split, part or data.WHOLE)
        images = np.concatenate([batch["images"].numpy() for batch in batches])
        features[part] = np.asarray(encode(images), np.float64)
        embeddings[part] = recognizer(normalize(images).numpy()).embedding
    scaler = StandardScaler().fit(features[data.TRAIN])
    inputs = {part: scaler.transform(values) for part, values in features.items()}
    fits = [
        Ridge(alpha=len(features[data.TRAIN]) * strength).fit(
            inputs[data.TRAIN], embeddings[data.TRAIN]
        )
        for strength in STRENGTHS
    ]
    errors = [
        np.square(fit.predict(inputs[data.HELD_OUT]) - embeddings[data.HELD_OUT]).mean()
        for fit in fits
    ]
    guesses = fits[int(np.argmin(errors))].predict(inputs[""])
    found = metrics(root, "attack")
    expected = cosine_similarity(guesses, embeddings[""]).diagonal().mean()
    assert found["feature_ridge/held_out_loss"] == pytest.approx(min(errors), rel=1e-3)
    assert found["feature_ridge/feature_similarity"] == pytest.approx(expected, abs=2e-3)
    mean = embeddings[data.TRAIN].mean(0, keepdims=True)
    expected = cosine_similarity(mean, embeddings[""]).mean()
    assert found["chance/feature_similarity"] == pytest.approx(expected, abs=1e-4)


def test_mean_face_scores_as_the_mean_public_picture_does(root, tiny_faces):
    config = data.Data(dir=tiny_faces.dir, dataset="synthetic/tiny", size=32)
    dataset = data.Dataset(config)

    def pictures(split):
        batches = dataset.batches(split, data.WHOLE, 64)
        return np.concatenate([normalize(batch["images"]).numpy() for batch in batches])

    mean = pictures("public").mean(0)
    squared = np.square(pictures("test") - mean).mean(axis=(1, 2, 3))
    expected = np.mean(10 * np.log10(4 / squared))
    assert metrics(root, "attack")["mean_face/psnr"] == pytest.approx(expected, rel=1e-4)


def test_attack_reads_public_and_test_pictures_only(root):
    assert json.loads((root / "splits.json").read_text()) == ["public", "test"]


def test_attack_says_whether_it_ended_by_itself(root):
    found = metrics(root, "attack")
    page = (root / "attack/report.html").read_text()
    for name, prefix in (("protected", ""), ("unprotected", "unprotected/")):
        assert found[f"{prefix}attack_converged"] in (0.0, 1.0)
        for attacker, converged, cap in (
            ("trained decoder", f"{prefix}attack_converged", "train.steps"),
            ("trained embedding guess", f"{prefix}feature_map_converged", "feature_map.steps"),
        ):
            assert (f"{attacker} on {name} (by {cap})" in page) == (found[converged] == 0)


def test_finished_run_says_so_and_changes_nothing(root, capsys):
    before = (root / "attack/metrics.json").stat().st_mtime_ns
    assert call(root, "attack") == 0
    assert "is finished" in capsys.readouterr().out
    assert (root / "attack/metrics.json").stat().st_mtime_ns == before


def test_other_config_in_the_same_folder_is_refused(root, capsys):
    assert call(root, "protect", "--config.loss.lambda1=2") == 2
    assert "loss.lambda1 (was 1.0, is 2.0)" in capsys.readouterr().err


def test_the_demo_makes_the_runs_that_are_not_finished(root, capsys):
    finished = metrics(root, "attack")
    (root / "attack/metrics.json").unlink()
    keras.config.set_dtype_policy("float32")
    flags = [f"--config={root / 'tiny.py'}", f"--workdir={root}"]
    assert cli.main(["run.py", "demo", *flags]) == 0
    out = capsys.readouterr().out
    for mode in ("recognizer", "protect"):
        assert f"{root / mode} is finished: see {root / mode / 'report.html'}" in out
    for title in (
        "4 of 6: attacking the protected encoder",
        "5 of 6: attacking the unprotected encoder",
        "6 of 6: attacking hard predictions, sent without features",
        "The task works with a Matthews correlation (MCC) of",
        "An attacker who holds other images of",
        "Next, let an audit attack harder and longer",
    ):
        assert title in out
    assert metrics(root, "attack") == finished


def test_hard_predictions_of_the_unprotected_encoder_are_attacked_too(root):
    found = metrics(root, "attack")
    assert found["hard_predictions/mcc_task"] == found["unprotected/mcc_task_tuned"]
    assert "hard_predictions/mcc_task_tuned" not in found  # they have no thresholds
    for name in ("psnr", "linkage_rank1", "ridge/psnr", "feature_reid_rank1"):
        assert np.isfinite(found[f"hard_predictions/{name}"])


def test_run_killed_after_training_ends_with_the_same_metrics(root):
    before = metrics(root, "protect")
    (root / "protect/metrics.json").unlink()
    assert call(root, "protect") == 0
    assert metrics(root, "protect") == before


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["protect", "attack"])
def test_interrupted_run_resumes_where_it_was_and_ends_as_if_nothing_had_happened(
    root, tmp_path, mode, monkeypatch, capsys
):
    # The unprotected encoder has no other beside it.
    flags = {
        "protect": ["--noconfig.baseline"],
        "attack": [
            f"--config.encoder={root / 'protect/unprotected/encoder'}",
            "--config.attack.patience=9",
        ],
    }[mode]
    owner, name = {
        "protect": (protect.Evaluation, "__call__"),
        "attack": (network_training.Plateau, "update"),
    }[mode]
    evaluate, calls = getattr(owner, name), []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:  # at step 20
            raise signals.Interrupted(signal.SIGINT)
        return evaluate(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupted)
        assert call(root, mode, f"--workdir={tmp_path / mode}", *flags) == 130
    assert "the same command resumes" in capsys.readouterr().err
    assert not (tmp_path / mode / "metrics.json").exists()
    assert call(root, mode, f"--workdir={tmp_path / mode}", *flags) == 0
    assert "resuming at step 10 of 30" in capsys.readouterr().err

    whole = root / "protect"
    if mode == "attack":
        whole = tmp_path / "whole"
        assert call(root, mode, f"--workdir={whole}", *flags) == 0
    loss = {"protect": "utility", "attack": "reconstruction"}[mode]
    folders = tmp_path / mode, whole
    place = {"protect": "history.jsonl", "attack": "encoders/unprotected/decoder/history.jsonl"}
    resumed, uninterrupted = (
        [row[loss] for row in map(json.loads, (folder / place[mode]).open())] for folder in folders
    )
    # Not to the bit: convolutions on several threads add up in any order.
    assert resumed == pytest.approx(uninterrupted, rel=0.05)
    ends = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
    assert ends[0].keys() == ends[1].keys()
    if mode == "attack":  # protect's MCC jumps: there are 20 test pictures
        assert ends[0]["psnr"] == pytest.approx(ends[1]["psnr"], rel=0.05)


def test_reconstructions_show_input_every_encoder_and_what_needs_no_training(root):
    png = tf.io.decode_png((root / "attack/reconstructions.png").read_bytes())
    tile, gap, label = 128, 6, 44
    assert png.shape[1] == 3 * (tile + gap) - gap
    rows = 5  # input, two encoders, hard predictions, mean face
    assert rows * (tile + label) <= png.shape[0] < (rows + 1) * (tile + label)


def test_pictures_stay_out_of_report_and_tensorboard_when_asked(root, tmp_path):
    folder = tmp_path / "protect"
    argv = [f"--workdir={folder}", "--config.report.pictures=false", "--noconfig.baseline"]
    assert call(root, "protect", *argv, "--config.train.steps=10") == 0
    attack_folder = tmp_path / "attack"
    argv = [f"--workdir={attack_folder}", "--config.report.pictures=false"]
    assert call(root, "attack", *argv, "--config.train.steps=10") == 0
    assert not (attack_folder / "reconstructions.png").exists()
    assert shows_pictures(root / "protect")
    assert not shows_pictures(folder)
    decoder = "encoders/protected/decoder"
    assert shows_pictures(root / "attack" / decoder)
    assert not shows_pictures(attack_folder / decoder)
    kept = [AttackResult.load(file) for file in attack_folder.rglob("attacks/*.npz")]
    assert all(result.images is None for result in kept)
    page, other = (p.joinpath("report.html").read_text() for p in (attack_folder, root / "attack"))
    assert "What an attacker sees" in other
    assert "What an attacker sees" not in page


def test_what_is_exported_holds_the_encoder_and_nothing_else(root):
    folder = root / "protect/encoder"
    content = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    machine = [str(root), str(Path.cwd()), str(Path.home()), "site-packages", ".py"]
    training = ["decoder", "discriminator", "classifier", "dversary", "protector", "Adam", "moment"]
    data = ["synthetic", "private", "public", "tfrecord", *faces.ATTRIBUTES]
    for word in (*machine, *training, *data, b"\xff\xd8\xff"):
        assert (word if isinstance(word, bytes) else word.encode()) not in content, word
    encoder = Encoder(18, 0.125, "fc")
    encoder.build((None, 32, 32, 3))
    expected = sorted(tuple(variable.shape) for variable in encoder.variables)
    stored = tf.train.list_variables(str(folder / "variables/variables"))
    assert expected == sorted(
        tuple(shape) for name, shape in stored if name.endswith("VARIABLE_VALUE")
    )
    (graph,) = loader_impl.parse_saved_model(str(folder)).meta_graphs
    kinds = {
        re.sub(r"^__inference_|_\d+$", "", function.signature.name)
        for function in graph.graph_def.library.function
    }
    calls = {"encode", "serve", "signature_wrapper_encode", "signature_wrapper_serve"}
    assert kinds == {*calls, "_traced_save", "_traced_restore"}


def test_what_a_run_leaves_is_for_its_owner_alone(root):
    for mode in ("recognizer", "protect", "attack"):
        for path in (root / mode, *(root / mode).rglob("*")):
            assert path.stat().st_mode & 0o077 == 0, path


def shows_pictures(folder):
    return any(
        value.metadata.plugin_data.plugin_name == "images"
        for events in (folder / "tensorboard").rglob("*.v2")
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    )


@pytest.fixture(scope="module")
def smiling(root):
    """A finished protect run of the one-attribute task."""
    folder = root / "smiling"
    flags = ["--config.task.attributes=Smiling", "--noconfig.baseline"]
    flags += [f"--workdir={folder / 'protect'}", "--config.train.steps=10"]
    assert call(root, "protect", *flags) == 0
    return folder


def test_one_attribute_task_counts_the_others_as_zero(smiling):
    found = json.loads((smiling / "protect/metrics.json").read_text())
    assert found["mcc"] == pytest.approx(found["mcc/Smiling"] / len(faces.ATTRIBUTES))
    assert found["mcc_task"] == pytest.approx(found["mcc/Smiling"])
    page = (smiling / "protect/report.html").read_text()
    assert "Task MCC" in page
    assert "Mean MCC" not in page


def test_attack_without_recognizer_says_so_and_infers_what_the_task_did_not_train(root, smiling):
    folder = smiling / "attack"
    assert call(root, "attack", f"--workdir={folder}", "--config.train.steps=10") == 0
    found = json.loads((folder / "metrics.json").read_text())
    for name in ("linkage_rank1", "ridge/psnr", "chance/reid_rank1"):
        assert name in found
    assert not any("face_similarity" in name or "feature_" in name for name in found)
    page = (folder / "report.html").read_text()
    assert "No face recognizer was given" in page
    reason = "there is no face recognizer"
    assert f"trained embedding guess does not apply to protected: {reason}." in page
    prefix = "probe_mlp/attribute_mcc/"
    inferred = {name.removeprefix(prefix) for name in found if name.startswith(prefix)}
    assert inferred == set(faces.ATTRIBUTES) - {"Smiling"}
    assert "Attribute inference" in page


def test_pictures_of_a_further_dataset_join_the_public_ones(
    root, smiling, tiny_faces, tmp_path, monkeypatch, capsys
):
    (tmp_path / "synthetic").mkdir()
    (tmp_path / "synthetic/tiny").symlink_to(Path(tiny_faces.dir) / "synthetic/tiny")
    datasets.prepare(tmp_path, "others", attributes=("Male",))
    labels, probe = [], probes.linear_probe

    def spy(train, *rest):
        labels.append(train.labels)
        return probe(train, *rest)

    monkeypatch.setattr(probes, "linear_probe", spy)
    flags = [f"--config.data.dir={tmp_path}", "--config.data.extra=others"]
    flags += ["--config.train.steps=10", f"--workdir={tmp_path / 'attack'}"]
    flags += [f"--config.encoder={smiling / 'protect/encoder'}"]
    assert call(root, "attack", *flags) == 0
    assert (
        "84 public, 20 test images, 24 of the public ones from others/1.0.0;"
        in capsys.readouterr().out
    )
    assert json.loads((tmp_path / "attack/config.json").read_text())["dataset"]["extra"] == {
        "others/1.0.0": 24
    }
    page = (tmp_path / "attack/report.html").read_text()
    assert "learns from 84 public images" in page
    assert "public images from others/1.0.0" in page
    assert "not known whether others/1.0.0 shows the same people" in page
    # Probes learn from the pictures whose labels are known: none of the others has all of them.
    assert labels  # one for each view of the features
    for learned in labels:
        assert learned.max() == 1
        assert len(learned) < 60
    flags = ["--config.task.attributes=Smiling", "--noconfig.baseline", "--config.train.steps=10"]
    flags += [f"--config.data.dir={tmp_path}", "--config.data.extra=others"]
    assert call(root, "protect", *flags, f"--workdir={tmp_path / 'protect'}") == 0


def test_other_recognisers_measure_beside_the_one_that_m_learned_from(root, tmp_path):
    second = recognizers.onnx(tmp_path / "second.onnx")
    flags = [f"--config.encoder={root / 'protect/unprotected/encoder'}", f"--workdir={tmp_path}"]
    flags += [f"--config.recognizer.path={root / 'recognizer/recognizer'}"]
    flags += [f"--config.recognizer.others={second}", "--config.train.steps=10"]
    flags += ["--config.recognizer.layer=avgpool"]  # of the first: the other has none of the name
    assert call(root, "attack", *flags) == 0
    found = json.loads((tmp_path / "metrics.json").read_text())
    for name in ("face_similarity", "face_similarity_inner", "reid_rank1", "verification_auc"):
        assert f"{name}/second_ci95" in found
    for name in ("face_similarity", "face_similarity_inner"):  # others of 20 pictures may be equal
        assert found[f"{name}/second"] != found[name]
    measured = found["real_image/verification_auc/second"]
    assert measured != found["real_image/verification_auc"]
    assert measured == pytest.approx(verification_auc(second, root / "tiny.py"), abs=1e-6)
    assert not any(name.endswith("/second") for name in found if name.startswith("feature_"))
    page = (tmp_path / "report.html").read_text()
    assert "attacks learn from it" in page


def verification_auc(recognizer, config):
    """How well a recogniser tells the test people apart, by scikit-learn over all pairs."""
    dataset = data.Dataset(runpy.run_path(str(config))["get_config"]("attack").data)
    pictures = [normalize(b["images"]).numpy() for b in dataset.batches(data.TEST, data.WHOLE)]
    codes = recognizers.load(recognizer)(np.concatenate(pictures)).embedding
    people = dataset.annotations(data.TEST)[0]
    pairs = np.triu_indices(len(codes), 1)
    return roc_auc_score((people[:, None] == people)[pairs], (codes @ codes.T)[pairs])


def test_recognisers_of_the_same_name_or_content_are_refused(root, tmp_path, capsys):
    recognizer, copy = root / "recognizer/recognizer", tmp_path / "copy"
    shutil.copytree(recognizer, copy)
    flags = [f"--config.encoder={root / 'protect/encoder'}", f"--workdir={tmp_path / 'attack'}"]
    flags += [f"--config.recognizer.path={recognizer}"]
    assert call(root, "attack", *flags, f"--config.recognizer.others={recognizer}") == 2
    assert "two recognizers are called recognizer" in capsys.readouterr().err
    assert call(root, "attack", *flags, f"--config.recognizer.others={copy}") == 2
    assert "recognizers recognizer and copy are the same" in capsys.readouterr().err


def test_m_that_would_be_too_large_is_refused_before_any_attack(root, tmp_path, capsys):
    flags = [f"--config.encoder={root / 'protect/encoder'}", f"--workdir={tmp_path}"]
    flags += [f"--config.recognizer.path={root / 'recognizer/recognizer'}"]
    flags += ["--config.feature_map.hidden=1000000"]
    assert call(root, "attack", *flags) == 2
    assert "set --config.feature_map.pooling=average" in capsys.readouterr().err
    assert not (tmp_path / "checkpoints").exists()


def test_vgg19_is_loaded_where_a_loss_compares_its_features_and_only_there(monkeypatch):
    monkeypatch.setattr(build, "VGGFeatures", lambda weights, layers, size: (weights, size))
    none, seen = Config(), ("imagenet", 64)
    assert [build.load_vgg(none, mode) for mode in ("protect", "attack")] == [None, None]
    hidden = Config(loss=Loss(lambda1=0.0, lambda2=1.0))
    assert build.load_vgg(hidden, "protect") == seen
    assert build.load_vgg(hidden, "attack") is None
    simulated = Config(loss=Loss(lambda1=1.0, mu2=1.0))
    assert [build.load_vgg(simulated, mode) for mode in ("protect", "attack")] == [seen, seen]
    assert build.load_vgg(Config(loss=Loss(lambda1=0.0, mu2=1.0)), "protect") is None


def test_a_mistake_about_vgg19_shows_before_the_baseline_is_trained(root, tmp_path, capsys):
    weights = tmp_path / "vgg.weights.h5"
    weights.write_bytes(b"nothing")
    flags = ["--config.loss.mu2=1", f"--config.perceptual.weights={weights}"]
    for mode, more in (("protect", ()), ("attack", [f"--config.encoder={root}/protect/encoder"])):
        folder = tmp_path / mode
        assert call(root, mode, *flags, *more, f"--workdir={folder}") == 2
        assert f"perceptual.weights {weights} can't be read" in capsys.readouterr().err
        assert not folder.exists()


def test_the_whole_adversary_trains_in_both_modes(root, tmp_path):
    keras.utils.set_random_seed(0)
    whole = keras.applications.VGG19(include_top=False, weights=None, input_shape=(32, 32, 3))
    cut = keras.Model(whole.input, whole.get_layer("block1_conv1").output)
    cut.save_weights(tmp_path / "vgg.weights.h5")
    terms = [f"--config.perceptual.weights={tmp_path / 'vgg.weights.h5'}"]
    terms += ["--config.perceptual.layers=block1_conv1", "--config.train.steps=10"]
    terms += ["--config.loss.mu1=0.1", "--config.loss.mu2=0.2"]
    terms += ["--config.model.discriminator_width=0.125"]
    folder = tmp_path / "runs"
    flags = [*terms, "--config.loss.lambda2=0.3", "--noconfig.baseline"]
    assert call(root, "protect", *flags, f"--workdir={folder / 'protect'}") == 0
    assert call(root, "attack", *terms, f"--workdir={folder / 'attack'}") == 0
    simulated, real = (
        json.loads((folder / mode / "history.jsonl").read_text().splitlines()[0])
        for mode in ("protect", "attack/encoders/protected/decoder")
    )
    terms = {"reconstruction", "adversarial", "discriminator", "perceptual"}
    assert {f"public_{term}" for term in terms} | {"private_perceptual"} <= set(simulated)
    assert terms <= set(real)
    page = (folder / "protect/report.html").read_text()
    assert "λ₁ = 1, λ₂ = 0.3" in page
    history = folder / "attack/encoders/protected/decoder/history.jsonl"
    losses = json.loads(history.read_text().splitlines()[-1])
    expected = losses["held_out_reconstruction"] + 0.2 * losses["held_out_perceptual"]
    assert losses["held_out_loss"] == pytest.approx(expected, rel=1e-5)
    found = metrics(folder, "attack")
    assert found["held_out_loss"] == pytest.approx(losses["held_out_loss"])


def test_unknown_attribute_is_one_clear_line(root, tmp_path, capsys):
    flags = ["--config.task.attributes=Smilling", f"--workdir={tmp_path / 'a'}"]
    assert call(root, "protect", *flags) == 2
    assert "task.attributes names Smilling" in capsys.readouterr().err.strip().splitlines()[-1]


def named(paths):
    reserved = (*attack_tables.REFERENCES, "ridge")
    return loading.name_encoders(paths, reserved, with_baseline=True)


def test_encoders_are_named_by_how_they_were_trained_or_by_their_folder(root, tmp_path):
    protected = str(root / "protect/encoder")
    baseline = str(root / "protect/unprotected/encoder")
    assert named((protected,)) == {"protected": protected, "unprotected": baseline}
    names = named((baseline, protected, "elsewhere/a_model", "more/a_model"))
    assert list(names) == ["unprotected", "protected", "a_model", "a_model_2"]
    # Several protected ones are named by their runs.
    for name in ("lambda5/protect", "lambda5"):
        shutil.copytree(root / "protect/encoder", tmp_path / name / "encoder")
        shutil.copy(root / "protect/config.json", tmp_path / name)
    paths = [str(tmp_path / name / "encoder") for name in ("lambda5/protect", "lambda5")]
    names = named((protected, *paths))
    assert list(names) == [root.name, "lambda5", "lambda5_2", "unprotected"]


def test_names_of_encoders_differ_from_each_other_and_from_what_reports_are_made_of(tmp_path):
    assert list(named(("e", "e_2", "x/e"))) == ["e", "e_2", "e_3"]
    (tmp_path / "run/unprotected/encoder").mkdir(parents=True)  # the baseline beside the first
    names = named((str(tmp_path / "run/encoder"), "elsewhere/unprotected"))
    assert list(names) == ["encoder", "unprotected", "unprotected_2"]
    paths = ("x/chance", "x/ridge", "y/ridge")
    expected = ["chance_2", "ridge_2", "ridge_3"]
    assert list(named(paths)) == expected
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder/encoder.json").touch()
    for record in ("{", "{}", '{"config": 3}'):  # not of ours
        (tmp_path / "config.json").write_text(record)
        assert list(named((str(tmp_path / "encoder"),))) == ["encoder"]
