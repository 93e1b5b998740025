import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from tfadv.data import dataset as data
from tfadv.data import pipeline
from tfadv.data.images import normalize
from tfadv.evaluation.recognition import identity_classifier
from tfadv.evaluation.recognition.identity_classifier import (
    FaceEmbedder,
    IdentityClassifier,
    augment,
    export_embedder,
    margin_softmax,
)
from tfadv.models.encoder import Encoder

SIZE, PEOPLE = 32, 5

# Run by a process of its own, where importing this project fails.
LOAD = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tfadv", "data_prep"):
            raise ImportError(name)

sys.meta_path.insert(0, Blocked())
import numpy as np
import tensorflow as tf

signatures = tf.saved_model.load(sys.argv[1]).signatures
results = {}
for name, images in dict(np.load(sys.argv[2])).items():
    signature = signatures["embed" if images.dtype == np.float32 else "serving_default"]
    for output, value in signature(images=tf.constant(images)).items():
        results[f"{name}/{output}"] = value.numpy()
np.savez(sys.argv[3], **results)
"""


def make_embedder(dtype="float32", embedding=16):
    """An embedder whose moving statistics are not the initial ones."""
    keras.utils.set_random_seed(0)
    embedder = FaceEmbedder(18, 0.125, embedding, dtype=dtype)
    embedder.build((None, SIZE, SIZE, 3))
    embedder(tf.random.uniform((4, SIZE, SIZE, 3), -1, 1), training=True)
    return embedder


def make_classifier(dtype="float32", rate=1e-3):
    classifier = IdentityClassifier(make_embedder(dtype), PEOPLE, dtype=dtype)
    classifier.compile(keras.optimizers.Adam(rate))
    return classifier


def make_batch(labels=(0, 1, 2, 3, 4, 0)):
    images = np.random.default_rng(0).integers(0, 256, (len(labels), SIZE, SIZE, 3), np.uint8)
    return {"images": tf.constant(images), "labels": tf.constant(labels, tf.int64)}


# The margin softmax.


def test_margin_softmax_subtracts_the_margin_from_the_right_persons_cosine():
    # 10 (0.8 - 0.2) = 6 against 1, and 10 (0.5 - 0.2) = 3 against 2: 5 and 1 nats ahead.
    cosines = tf.constant([[0.8, 0.1], [0.2, 0.5]])
    expected = np.mean([np.log1p(np.exp(-5.0)), np.log1p(np.exp(-1.0))])
    found = margin_softmax(tf.constant([0, 1]), cosines, scale=10.0, margin=0.2)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_margin_softmax_without_margin_is_the_cross_entropy_of_keras():
    cosines = np.random.default_rng(0).uniform(-1, 1, (8, PEOPLE)).astype(np.float32)
    labels = np.arange(8) % PEOPLE
    expected = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, 16 * cosines)
    found = margin_softmax(tf.constant(labels), tf.constant(cosines), scale=16.0, margin=0.0)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_margin_softmax_leaves_out_unknown_people():
    cosines = tf.constant([[0.8, 0.1], [-0.3, 0.9], [0.2, 0.5]])
    with tf.GradientTape() as tape:
        tape.watch(cosines)
        found = margin_softmax(tf.constant([0, -1, 1]), cosines)
    # Without the mask, TensorFlow's gradient is not 0 for targets that are all 0.
    assert not tape.gradient(found, cosines)[1].numpy().any()
    expected = margin_softmax(tf.constant([0, 1]), tf.gather(cosines, [0, 2]))
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    assert float(margin_softmax(tf.constant([-1, -1, -1]), cosines)) == 0.0


# Augmentation.


def test_a_seed_augments_images_the_same_way_again_and_another_seed_does_not():
    images = normalize(make_batch()["images"])
    first, again, other = (augment(images, tf.constant([seed, 0])) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


def test_each_image_of_a_batch_is_augmented_differently():
    image = normalize(make_batch()["images"])[:1]
    changed = augment(tf.repeat(image, 8, axis=0), tf.constant([0, 0])).numpy()
    assert len(np.unique(changed.std(axis=(1, 2, 3)))) == 8


def test_half_of_the_images_are_flipped_and_none_is_upside_down():
    brighter_to_the_right = np.linspace(-0.5, 0.5, SIZE, dtype=np.float32)
    image = np.broadcast_to(brighter_to_the_right[None, None, :, None], (600, SIZE, SIZE, 3))
    changed = augment(tf.constant(image), tf.constant([0, 0])).numpy()[:, 8:-8, 8:-8]
    slopes = np.diff(changed, axis=2).mean(axis=(1, 2, 3))
    assert 0.42 < np.mean(slopes < 0) < 0.58  # four standard deviations of 600 coin tosses
    assert np.abs(np.diff(changed, axis=1)).max() < 1e-5


def test_half_of_the_images_are_blurred():
    stripes = np.tile([0.5, -0.5], SIZE // 2)[None, None, :, None]
    image = np.broadcast_to(stripes, (600, SIZE, SIZE, 3)).astype(np.float32)
    changed = augment(tf.constant(image), tf.constant([0, 0])).numpy()[:, 8:-8, 8:-8]
    contrast = changed.std(axis=(1, 2, 3))
    assert 0.42 < np.mean(contrast < 0.5 * np.median(contrast[contrast > 0.2])) < 0.58


# The model and its step.


def test_embeddings_have_length_one_and_inner_is_the_pooled_output():
    embedder = make_embedder()
    images = normalize(make_batch()["images"])
    trunk = Encoder(18, 0.125, "avgpool", dtype="float32")
    trunk.build((None, SIZE, SIZE, 3))
    trunk.set_weights(embedder.encoder.get_weights())
    outputs = embedder(images, training=False)
    np.testing.assert_allclose(outputs["inner"], trunk(images, training=False), rtol=1e-5)
    assert outputs["embedding"].shape == (6, 16)
    np.testing.assert_allclose(np.linalg.norm(outputs["embedding"], axis=1), 1.0, rtol=1e-5)


def test_logits_are_the_cosines_to_each_persons_centre():
    classifier = make_classifier()
    images = normalize(make_batch()["images"])
    embeddings = classifier.embedder(images, training=False)["embedding"].numpy()
    centres = classifier.centres.numpy()
    expected = embeddings @ (centres / np.linalg.norm(centres, axis=1, keepdims=True)).T
    np.testing.assert_allclose(classifier(images, training=False), expected, atol=1e-5)


def test_a_step_trains_every_variable_of_embedder_and_centres():
    classifier = make_classifier()
    before = [variable.numpy() for variable in classifier.trainable_variables]
    assert len(before) == len(classifier.embedder.trainable_variables) + 1
    measured = classifier.train_step(make_batch())
    assert set(measured) == set(classifier.measurements)
    for old, variable in zip(before, classifier.trainable_variables, strict=True):
        assert (old != variable.numpy()).any(), variable.path


def test_each_step_augments_differently_and_a_resumed_step_the_same_way(monkeypatch):
    seeds = []

    def spy(images, seed):
        seeds.append(tuple(seed.numpy()))
        return images

    monkeypatch.setattr(identity_classifier, "augment", spy)
    classifier = make_classifier()
    for iteration in (0, 1, 0):
        classifier.optimizer.iterations.assign(iteration)
        classifier.train_step(make_batch())
    assert seeds[0] != seeds[1]
    assert seeds[0] == seeds[2]


def test_images_of_unknown_people_change_nothing():
    classifier = make_classifier()
    before = [variable.numpy() for variable in classifier.trainable_variables]
    measured = classifier.train_step(make_batch(labels=(-1, -1, -1)))
    assert float(measured["identity"]) == float(measured["accuracy"]) == 0.0
    for old, variable in zip(before, classifier.trainable_variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())


def test_bfloat16_trains_and_gives_float32():
    classifier = make_classifier("mixed_bfloat16")
    measured = classifier.train_step(make_batch())
    assert np.isfinite(float(measured["identity"]))
    outputs = classifier.embedder(normalize(make_batch()["images"]))
    assert {name: value.dtype for name, value in outputs.items()} == {
        "embedding": tf.float32,
        "inner": tf.float32,
    }


def test_training_learns_to_distinguish_strangers(tiny_faces):
    dataset = data.Dataset(tiny_faces)

    def read(split):
        batches = list(dataset.batches(split, data.WHOLE).as_numpy_iterator())
        names = ("images", "identity")
        return (np.concatenate([batch[name] for batch in batches]) for name in names)

    images, identities = read(data.PRIVATE)
    people, labels = np.unique(identities, return_inverse=True)
    strangers, who = read(data.PUBLIC)
    assert not set(who) & set(people)

    keras.utils.set_random_seed(0)
    embedder = FaceEmbedder(18, 0.125, dtype="float32")
    embedder.build((None, SIZE, SIZE, 3))
    classifier = IdentityClassifier(embedder, len(people), dtype="float32")
    classifier.compile(keras.optimizers.Adam(3e-3))

    def auc():
        embeddings = embedder(normalize(strangers), training=False)["embedding"].numpy()
        one, other = np.triu_indices(len(who), k=1)
        return roc_auc_score(who[one] == who[other], (embeddings @ embeddings.T)[one, other])

    batches = pipeline.in_memory_batches({"images": images, "labels": labels}, 32, seed=0)
    step = tf.function(classifier.train_step)
    for batch in batches.take(80):
        step(batch)
    assert auc() > 0.7  # 0.76 to 0.83 over four seeds; a guess: 0.5


# The export.


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An embedder and the folder of its export."""
    folder = tmp_path_factory.mktemp("exported") / "recognizer"
    embedder = make_embedder()
    facts = {"identities": PEOPLE, "split": "public", "dataset": "synthetic/tiny/1.0.0"}
    export_embedder(embedder, SIZE, folder, **facts)
    return embedder, folder


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    shapes = {"square": (3, SIZE, SIZE, 3), "odd": (2, 45, 37, 3), "small": (1, 17, 64, 3)}
    images = {name: rng.integers(0, 256, shape, np.uint8) for name, shape in shapes.items()}
    return images | {"floats": rng.uniform(-1, 1, (2, SIZE, SIZE, 3)).astype(np.float32)}


@pytest.fixture(scope="module")
def elsewhere(exported, inputs, tmp_path_factory):
    """What the export gives in a fresh process with TensorFlow alone."""
    folder = tmp_path_factory.mktemp("elsewhere")
    np.savez(folder / "inputs.npz", **inputs)
    paths = [exported[1], folder / "inputs.npz", folder / "outputs.npz"]
    subprocess.run(
        [sys.executable, "-I", "-c", LOAD, *paths],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=True,
    )
    return dict(np.load(folder / "outputs.npz"))


@pytest.mark.parametrize("name", ["square", "odd", "small", "floats"])
def test_the_export_equals_the_model_in_a_process_without_tfadv(exported, inputs, elsewhere, name):
    images = tf.cast(inputs[name], tf.float32)
    if name != "floats":
        images = tf.round(tf.image.resize(images, (SIZE, SIZE), antialias=True)) / 127.5 - 1.0
    expected = exported[0](images, training=False)
    for output in ("embedding", "inner"):
        found = elsewhere[f"{name}/{output}"]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected[output], rtol=1e-5, atol=1e-5)


def test_the_export_holds_the_embedders_variables_and_nothing_else(exported):
    embedder, folder = exported
    stored = tf.train.list_variables(str(folder / "variables" / "variables"))
    shapes = [tuple(shape) for name, shape in stored if name != "_CHECKPOINTABLE_OBJECT_GRAPH"]
    assert sorted(shapes) == sorted(tuple(variable.shape) for variable in embedder.variables)


def test_recognizer_json_describes_its_input_and_its_training(exported):
    assert json.loads((exported[1] / "recognizer.json").read_text()) == {
        "size": SIZE,
        "embedding": 16,
        "inner": "avgpool",
        "identities": PEOPLE,
        "split": "public",
        "dataset": "synthetic/tiny/1.0.0",
    }


def test_an_embedder_trained_in_bfloat16_is_exported_in_float32(tmp_path, inputs):
    embedder = FaceEmbedder(18, 0.125, 16, dtype="mixed_bfloat16")
    embedder.build((None, SIZE, SIZE, 3))
    exact = FaceEmbedder(18, 0.125, 16, dtype="float32")
    exact.build((None, SIZE, SIZE, 3))
    exact.set_weights(embedder.get_weights())
    export_embedder(embedder, SIZE, tmp_path, identities=PEOPLE, split="public", dataset="a")
    embed = tf.saved_model.load(str(tmp_path)).signatures["embed"]
    found = embed(images=tf.constant(inputs["floats"]))["embedding"]
    expected = exact(inputs["floats"], training=False)["embedding"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
