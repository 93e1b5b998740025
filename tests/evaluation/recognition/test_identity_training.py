from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from tfadv.config.errors import UserError
from tfadv.data import dataset as data
from tfadv.evaluation.recognition import identity_training
from tfadv.evaluation.recognition.identity_training import (
    HeldOutVerification,
    TrainingImages,
    check_test_people,
    pairwise_auc,
    people_to_learn,
)
from tfadv.training.trainer import TrainingError


def of_identities(train, test=(0, 0, 1)):
    """A stand-in for a data set of these identities."""
    splits = {"public": np.array(train), "test": np.array(test)}
    return SimpleNamespace(
        annotations=lambda split, part=None: (splits[split], None),
        description={"name": "synthetic"},
    )


def test_people_to_learn_are_the_known_identities_in_order():
    assert people_to_learn(of_identities([7, -1, 3, 7]), "public").tolist() == [3, 7]


@pytest.mark.parametrize(("train", "count"), [([-1, -1], "no known"), ([-1, 4], "one known")])
def test_a_dataset_with_fewer_than_two_people_is_an_error(train, count):
    with pytest.raises(UserError, match=f"split public of dataset synthetic shows {count} person"):
        people_to_learn(of_identities(train), "public")


@pytest.mark.parametrize("test", [(-1, -1), (0, 0), (0, 1), (0, 0, -1)])
def test_a_test_split_without_pairs_of_both_kinds_is_an_error(test):
    with pytest.raises(UserError, match="split test of dataset synthetic needs two known people"):
        check_test_people(of_identities([0, 1], test))


def rows(batches, name):
    """The bytes of each image, and its value of another column."""
    return [
        (image.tobytes(), value)
        for batch in batches
        for image, value in zip(batch["images"].numpy(), batch[name].numpy(), strict=True)
    ]


@pytest.mark.parametrize("memory", [0, 2**30])
def test_images_come_with_the_number_of_their_person_and_without_held_out_people(
    tiny_faces, monkeypatch, memory
):
    monkeypatch.setattr(identity_training, "_MEMORY", memory)
    dataset = data.Dataset(tiny_faces)
    identities = dict(rows(dataset.batches("public", data.TRAIN), "identity"))
    people = people_to_learn(dataset, "public")
    images = TrainingImages(dataset, "public", people)
    epoch = list(images.batches(25, seed=0).take(2))  # 10 people, 5 images each
    labels = rows(epoch, "labels")
    assert {image for image, _ in labels} == set(identities)
    assert all(people[label] == identities[image] for image, label in labels)
    later = next(iter(images.batches(25, seed=0, start=1)))
    np.testing.assert_array_equal(later["labels"], epoch[1]["labels"])


@pytest.mark.parametrize("memory", [0, 2**30])
def test_images_of_unknown_people_have_no_number(tiny_faces, monkeypatch, memory):
    monkeypatch.setattr(identity_training, "_MEMORY", memory)
    dataset = data.Dataset(tiny_faces)
    people = people_to_learn(dataset, "public")
    identities = dict(rows(dataset.batches("public", data.TRAIN), "identity"))

    def forgetful(method):
        def forget(batch):
            unknown = batch["identity"] == people[3]
            return batch | {"identity": tf.where(unknown, np.int64(-1), batch["identity"])}

        return lambda *args, **kwargs: method(*args, **kwargs).map(forget)

    for name in ("batches", "training_batches"):
        monkeypatch.setattr(dataset, name, forgetful(getattr(dataset, name)))
    images = TrainingImages(dataset, "public", people)
    labels = rows(images.batches(20, seed=0).take(9), "labels")
    expected = set(range(len(people))) - {3} | ({-1} if memory == 0 else set())
    assert {label for _, label in labels} == expected
    assert all(people[label if label >= 0 else 3] == identities[image] for image, label in labels)


def test_pairwise_auc_is_scikit_learns_over_pairs():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(12, 3))
    identities = rng.permutation(np.arange(12) // 3)
    pairs = [(i, j) for i in range(12) for j in range(i)]
    same = [identities[i] == identities[j] for i, j in pairs]
    scores = [embeddings[i] @ embeddings[j] for i, j in pairs]
    assert pairwise_auc(embeddings, identities) == pytest.approx(roc_auc_score(same, scores))


@pytest.mark.parametrize("identities", [[0], [0, 0], [0, 1, 2]])
def test_there_is_no_pairwise_auc_of_pairs_of_one_kind(identities):
    assert pairwise_auc(np.eye(len(identities)), np.array(identities)) is None


def test_embeddings_that_are_not_finite_end_the_training(tiny_faces):
    def diverged(images):
        return {"embedding": tf.fill((tf.shape(images)[0], 4), np.nan)}

    evaluate = HeldOutVerification(diverged, data.Dataset(tiny_faces), "public")
    with pytest.raises(TrainingError, match=r"not finite at step 7; lower train\.learning_rate"):
        evaluate(7)
