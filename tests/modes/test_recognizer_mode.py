"""--mode=recognizer on drawn faces, as a user runs it."""

import json
import signal
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from tfadv import cli
from tfadv.config.errors import UserError
from tfadv.config.schema import Config, Recognizer, Train
from tfadv.data import dataset as data
from tfadv.modes import recognizer
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
    """A folder with a finished run, and the list of the splits that it read."""
    root = tmp_path_factory.mktemp("runs")
    (root / "tiny.py").write_text(CONFIG.format(dir=tiny_faces.dir))
    splits, read = set(), data.Dataset._records

    def spy(self, split, *args):
        splits.add(split)
        return read(self, split, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data.Dataset, "_records", spy)
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


def test_leaves_what_the_contract_names(root):
    assert {path.name for path in (root / "recognizer").iterdir()} == {
        "config.json",
        "checkpoints",
        "tensorboard",
        "history.jsonl",
        "recognizer",
        "metrics.json",
        "report.html",
    }


def test_reads_the_public_and_the_test_split_only(root):
    assert json.loads((root / "splits.json").read_text()) == ["public", "test"]


def test_recognizer_json_counts_the_people_trained_on(root, tiny_faces):
    description = json.loads((root / "recognizer/recognizer/recognizer.json").read_text())
    assert description["identities"] == 8  # of the 12 public people, 30% are held out
    assert description["split"] == "public"
    assert description["dataset"] == "synthetic/tiny/1.0.0"
    assert metrics(root / "recognizer")["identities"] == 8


def test_metrics_are_finite_and_lie_between_chance_and_one_within_their_intervals(root):
    found = metrics(root / "recognizer")
    for prefix in ("", "blurred/"):
        for name in ("reid_rank1", "reid_rank5", "verification_auc", "verification_eer"):
            low, high = found[f"{prefix}{name}_ci95"]
            assert 0 <= low <= high <= 1
            assert 0 <= found[prefix + name] <= 1
    assert found["test_examples"] == 20
    assert np.isfinite(found["images_per_s"])


def test_rank_1_is_that_of_the_nearest_other_picture_through_the_export(root, tiny_faces):
    folder = str(root / "recognizer/recognizer")
    embed = tf.saved_model.load(folder).signatures["serving_default"]
    (batch,) = data.Dataset(tiny_faces).batches(data.TEST, data.WHOLE)
    embeddings = embed(images=batch["images"])["embedding"].numpy()
    who = batch["identity"].numpy()
    cosines = embeddings @ embeddings.T
    np.fill_diagonal(cosines, -np.inf)
    expected = np.mean(who[cosines.argmax(axis=1)] == who)
    assert metrics(root / "recognizer")["reid_rank1"] == pytest.approx(expected)


def test_page_shows_the_measures_and_the_training(root):
    page = (root / "recognizer/report.html").read_text()
    for text in ("Verification AUC", "Rank 1", "blurred", "trained on 8 people", "held-out AUC"):
        assert text in page


def test_finished_run_says_so(root, capsys):
    assert call(root) == 0
    assert "is finished" in capsys.readouterr().out


def test_interrupted_run_resumes_where_it_was_and_ends_as_if_nothing_had_happened(
    root, tmp_path, monkeypatch, capsys
):
    evaluate = recognizer.Evaluation.__call__

    def interrupted(self, step):
        if step == 8:
            raise signals.Interrupted(signal.SIGINT)
        return evaluate(self, step)

    flags = [f"--workdir={tmp_path}"]
    with monkeypatch.context() as patch:
        patch.setattr(recognizer.Evaluation, "__call__", interrupted)
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


def test_batch_larger_than_the_part_is_one_clear_line(root, tmp_path, capsys):
    assert call(root, f"--workdir={tmp_path}", "--config.train.batch=41") == 2
    assert "40 pictures, fewer than a batch of 41" in capsys.readouterr().err


# What it learns from.


def of_identities(train, test=(0, 0, 1)):
    """What a dataset of these identities answers."""
    answers = {"public": np.array(train), "test": np.array(test)}
    return SimpleNamespace(annotations=lambda split, part=None: (answers[split], None))


def test_people_to_learn_are_those_known_in_order():
    people = recognizer.people_to_learn(of_identities([7, -1, 3, 7]), Config())
    assert people.tolist() == [3, 7]


@pytest.mark.parametrize(("train", "shows"), [([-1, -1], "nobody that"), ([-1, 4], "one known")])
def test_dataset_that_shows_fewer_than_two_people_is_an_error_that_says_so(train, shows):
    with pytest.raises(UserError, match=f"split public of dataset synthetic shows {shows}"):
        recognizer.people_to_learn(of_identities(train), Config())


@pytest.mark.parametrize("test", [(-1, -1), (0, 0), (0, 1), (0, 0, -1)])
def test_test_split_without_pairs_of_both_kinds_is_an_error_before_training(test):
    with pytest.raises(UserError, match="split test of dataset synthetic has no two known people"):
        recognizer.check_test(of_identities([0, 1], test), Config())


def rows(batches, name):
    """Each picture's bytes, and what else the batches say of it."""
    return [
        (image.tobytes(), value)
        for batch in batches
        for image, value in zip(batch["images"].numpy(), batch[name].numpy(), strict=True)
    ]


@pytest.mark.parametrize("kept", [0, 2**30])
def test_pictures_come_with_their_persons_number_and_nobody_is_held_out(
    tiny_faces, monkeypatch, kept
):
    monkeypatch.setattr(recognizer, "_KEPT", kept)
    dataset = data.Dataset(tiny_faces)
    config = Config(data=tiny_faces, train=Train(batch=25), recognizer=Recognizer(split="public"))
    who = dict(rows(dataset.batches("public", data.TRAIN), "identity"))
    people = recognizer.people_to_learn(dataset, config)
    pictures = recognizer.Pictures(dataset, config, people)
    epoch = list(pictures.batches(0).take(2))  # 10 people, 5 pictures of each
    seen = rows(epoch, "labels")
    assert {image for image, _ in seen} == set(who)
    assert all(people[label] == who[image] for image, label in seen)
    later = next(iter(pictures.batches(1)))
    np.testing.assert_array_equal(later["labels"], epoch[1]["labels"])


@pytest.mark.parametrize("kept", [0, 2**30])
def test_pictures_of_nobody_known_have_no_number(tiny_faces, monkeypatch, kept):
    monkeypatch.setattr(recognizer, "_KEPT", kept)
    dataset = data.Dataset(tiny_faces)
    config = Config(data=tiny_faces, train=Train(batch=20), recognizer=Recognizer(split="public"))
    people = recognizer.people_to_learn(dataset, config)
    who = dict(rows(dataset.batches("public", data.TRAIN), "identity"))
    decode = data.Dataset._pictures

    def forgetful(self, *args, **kwargs):
        def forget(picture):
            unknown = picture["identity"] == people[3]
            return picture | {"identity": tf.where(unknown, np.int64(-1), picture["identity"])}

        return decode(self, *args, **kwargs).map(forget)

    monkeypatch.setattr(data.Dataset, "_pictures", forgetful)
    pictures = recognizer.Pictures(dataset, config, people)
    seen = rows(pictures.batches(0).take(9), "labels")
    expected = set(range(len(people))) - {3} | ({-1} if kept == 0 else set())
    assert {label for _, label in seen} == expected
    assert all(people[label if label >= 0 else 3] == who[image] for image, label in seen)


def test_pairwise_auc_is_that_of_scikit_learn_over_pairs():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(12, 3))
    identities = rng.permutation(np.arange(12) // 3)
    pairs = [(i, j) for i in range(12) for j in range(i)]
    same = [identities[i] == identities[j] for i, j in pairs]
    scores = [embeddings[i] @ embeddings[j] for i, j in pairs]
    found = recognizer.pairwise_auc(embeddings, identities)
    assert found == pytest.approx(roc_auc_score(same, scores))


@pytest.mark.parametrize("identities", [[0], [0, 0], [0, 1, 2]])
def test_pairwise_auc_of_pairs_of_one_kind_is_not_there(identities):
    assert recognizer.pairwise_auc(np.eye(len(identities)), np.array(identities)) is None
