"""--mode=recognizer on synthetic faces, as a user runs it."""

import json
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv import cli
from tfadv.data import dataset as data
from tfadv.evaluation.recognition.identity_training import HeldOutVerification
from tfadv.training import signals

CONFIG = """
from tfadv.config.schema import *

def get_config(mode):
    return Config(
        data=Data(dir={dir!r}, dataset="synthetic/tiny", size=32, held_out=0.3),
        model=Model(depth=18, width=0.125),
        train=Train(steps=12, batch=16, log_every=2, evaluate_every=4, checkpoint_every=4),
        metrics=Metrics(replicates=20),
        runtime=Runtime(precision="float32"),
    )
"""


@pytest.fixture(scope="module")
def root(tiny_faces, tmp_path_factory):
    """A folder with a finished run and the list of splits that it read."""
    root = tmp_path_factory.mktemp("runs")
    (root / "tiny.py").write_text(CONFIG.format(dir=tiny_faces.dir))
    splits = set()

    def spied(method):
        def spy(self, split, *args, **kwargs):
            splits.add(split)
            return method(self, split, *args, **kwargs)

        return spy

    with pytest.MonkeyPatch.context() as patch:
        for name in ("annotations", "batches", "training_batches"):
            patch.setattr(data.Dataset, name, spied(getattr(data.Dataset, name)))
        assert call(root) == 0
    (root / "splits.json").write_text(json.dumps(sorted(splits)))
    return root


def call(root, *flags):
    keras.config.set_dtype_policy("float32")
    workdir = f"--workdir={root / 'recognizer'}"
    return cli.main(
        ["run.py", "--mode=recognizer", f"--config={root / 'tiny.py'}", workdir, *flags]
    )


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_a_run_writes_the_files_of_the_contract(root):
    assert {path.name for path in (root / "recognizer").iterdir()} == {
        "config.json",
        "checkpoints",
        "tensorboard",
        "history.jsonl",
        "recognizer",
        "metrics.json",
        "report.html",
    }


def test_a_run_reads_the_public_and_the_test_split_only(root):
    assert json.loads((root / "splits.json").read_text()) == ["public", "test"]


def test_recognizer_json_counts_the_people_trained_on(root, tiny_faces):
    description = json.loads((root / "recognizer/recognizer/recognizer.json").read_text())
    assert description["identities"] == 8  # of the 12 public people, 30% are held out
    assert description["split"] == "public"
    assert description["dataset"] == "synthetic/tiny/1.0.0"
    assert metrics(root / "recognizer")["identities"] == 8


def test_metrics_and_intervals_are_finite_and_between_0_and_1(root):
    found = metrics(root / "recognizer")
    for prefix in ("", "blurred/"):
        for name in ("reid_rank1", "reid_rank5", "verification_auc", "verification_eer"):
            low, high = found[f"{prefix}{name}_ci95"]
            assert 0 <= low <= high <= 1
            assert 0 <= found[prefix + name] <= 1
    assert found["test_examples"] == 20
    assert np.isfinite(found["images_per_s"])


def test_rank_1_is_that_of_the_nearest_other_image_through_the_export(root, tiny_faces):
    folder = str(root / "recognizer/recognizer")
    embed = tf.saved_model.load(folder).signatures["serving_default"]
    (batch,) = data.Dataset(tiny_faces).batches(data.TEST, data.WHOLE)
    embeddings = embed(images=batch["images"])["embedding"].numpy()
    who = batch["identity"].numpy()
    cosines = embeddings @ embeddings.T
    np.fill_diagonal(cosines, -np.inf)
    expected = np.mean(who[cosines.argmax(axis=1)] == who)
    assert metrics(root / "recognizer")["reid_rank1"] == pytest.approx(expected)


def test_the_page_shows_the_metrics_and_the_training(root):
    page = (root / "recognizer/report.html").read_text()
    for text in ("Verification AUC", "Rank 1", "blurred", "trained on 8 people", "held-out AUC"):
        assert text in page


def test_a_finished_run_says_so(root, capsys):
    assert call(root) == 0
    assert "is finished" in capsys.readouterr().out


def test_an_interrupted_run_resumes_and_ends_like_an_uninterrupted_one(
    root, tmp_path, monkeypatch, capsys
):
    evaluate = HeldOutVerification.__call__

    def interrupted(self, step):
        if step == 8:
            raise signals.Interrupted(signal.SIGINT)
        return evaluate(self, step)

    flags = [f"--workdir={tmp_path}"]
    with monkeypatch.context() as patch:
        patch.setattr(HeldOutVerification, "__call__", interrupted)
        assert call(root, *flags) == 130
    assert not (tmp_path / "metrics.json").exists()
    assert call(root, *flags) == 0
    assert "resuming at step 4 of 12" in capsys.readouterr().err
    resumed, whole = (
        [row["identity"] for row in map(json.loads, (folder / "history.jsonl").open())]
        for folder in (tmp_path, root / "recognizer")
    )
    # Not to the bit: convolutions on several threads add up in any order.
    assert resumed == pytest.approx(whole, rel=0.05)


def test_a_batch_larger_than_the_part_is_one_clear_line(root, tmp_path, capsys):
    assert call(root, f"--workdir={tmp_path}", "--config.train.batch=41") == 2
    assert "40 images, fewer than a batch of 41" in capsys.readouterr().err
