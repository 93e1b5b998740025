import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv.config.schema import Config, Loss, Train
from tfadv.defences.build import build_defences
from tfadv.defences.distance_correlation import distance_correlation
from tfadv.defences.protector import Protector
from tfadv.defences.terms import Excess, MaxEntropy, NoPeek, thumbnails
from tfadv.models.classifier import Classifier
from tfadv.models.encoder import Encoder
from tfadv.models.feature_map import FeatureMap

SIZE, BATCH, ATTRIBUTES, PEOPLE, EMBEDDING = 32, 8, 3, 5, 6


def make_batch(count=BATCH, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "images": tf.constant(rng.uniform(-1, 1, (count, SIZE, SIZE, 3)), tf.float32),
        "labels": tf.constant(rng.integers(0, 2, (count, ATTRIBUTES)), tf.uint8),
        "identity": tf.constant(rng.integers(0, PEOPLE, count)),
        "embeddings": tf.constant(rng.normal(size=(count, EMBEDDING)), tf.float32),
    }


def make_features(count=BATCH, seed=1):
    return tf.constant(np.random.default_rng(seed).normal(size=(count, 10)), tf.float32)


def make_max_entropy(weight=1.0):
    keras.utils.set_random_seed(0)
    classifier = FeatureMap((10,), PEOPLE, hidden=16)
    classifier.build((None, 10))
    defence = MaxEntropy(classifier, weight)
    defence.compile(keras.optimizers.Adam(0.01))
    return defence


def test_thumbnails_are_means_over_areas():
    images = make_batch()["images"].numpy()
    expected = images.reshape(BATCH, 16, 2, 16, 2, 3).mean((2, 4)).reshape(BATCH, -1)
    np.testing.assert_allclose(thumbnails(tf.constant(images)), expected, atol=1e-6)


def test_nopeek_weighs_the_distance_correlation_with_the_image():
    batch, features = make_batch(), make_features()
    losses, penalty = NoPeek(2.5).penalize(batch, features)
    expected = distance_correlation(features, thumbnails(batch["images"]))
    assert float(losses["distance_correlation"]) == pytest.approx(float(expected), rel=1e-6)
    assert float(penalty) == pytest.approx(2.5 * float(expected), rel=1e-6)


@pytest.mark.parametrize("target", ["pixels", "identity"])
def test_excess_takes_off_what_least_squares_make_of_the_labels(target):
    batches = [make_batch(40, seed) for seed in range(3)]
    size = 768 if target == "pixels" else EMBEDDING
    defence = Excess(target, 3.0, ATTRIBUTES, size)
    defence.adapt(batches)
    labels = np.concatenate([batch["labels"] for batch in batches]).astype(np.float64)
    targets = np.concatenate(
        [thumbnails(b["images"]) if target == "pixels" else b["embeddings"] for b in batches]
    )
    design = np.concatenate([labels, np.ones((120, 1))], axis=1)
    coefficients, *_ = np.linalg.lstsq(design, targets, rcond=None)
    rest = (targets - design @ coefficients)[:40]
    features = make_features(40)
    losses, penalty = defence.penalize(batches[0], features)
    expected = float(distance_correlation(features, tf.constant(rest, tf.float32)))
    assert float(losses[f"excess_{target}"]) == pytest.approx(expected, abs=1e-5)
    assert float(penalty) == pytest.approx(3.0 * expected, abs=1e-4)


def test_excess_of_labels_that_never_differ_is_finite():
    batch = make_batch(40) | {"labels": tf.ones((40, ATTRIBUTES), tf.uint8)}
    defence = Excess("identity", 1.0, ATTRIBUTES, EMBEDDING)
    defence.adapt([batch])
    losses, _ = defence.penalize(batch, make_features(40))
    rest = batch["embeddings"] - tf.reduce_mean(batch["embeddings"], axis=0)
    expected = distance_correlation(make_features(40), rest)
    assert float(losses["excess_identity"]) == pytest.approx(float(expected), abs=1e-5)


def test_features_that_say_what_the_labels_say_have_no_excess():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (400, ATTRIBUTES)).astype(np.uint8)
    targets = labels @ rng.normal(size=(ATTRIBUTES, EMBEDDING)) + 0.5 * rng.normal(size=(400, 6))
    batch = {"labels": tf.constant(labels), "embeddings": tf.constant(targets, tf.float32)}
    defence = Excess("identity", 1.0, ATTRIBUTES, EMBEDDING)
    defence.adapt([batch])
    predictions = tf.constant(labels, tf.float32)
    assert abs(float(defence.penalize(batch, predictions)[1])) < 0.02
    assert float(distance_correlation(predictions, batch["embeddings"])) > 0.3
    assert float(defence.penalize(batch, batch["embeddings"])[1]) > 0.1


def test_max_entropy_measures_the_classifiers_entropy():
    defence, features = make_max_entropy(2.0), make_features()
    shares = tf.nn.softmax(defence.classifier(features)).numpy()
    expected = -(shares * np.log(shares)).sum(1).mean() / np.log(PEOPLE)
    losses, penalty = defence.penalize(make_batch(), features)
    assert float(losses["identity_entropy"]) == pytest.approx(expected, rel=1e-5)
    assert float(penalty) == pytest.approx(-2.0 * expected, rel=1e-5)


def test_the_identity_classifier_learns_who_is_who_and_nobody_unknown():
    defence, batch, features = make_max_entropy(), make_batch(), make_features()
    batch["identity"] = tf.concat([batch["identity"][:-1], [-1]], axis=0)
    for _ in range(200):
        last = defence.update(batch, features)
    predictions = tf.argmax(defence.classifier(features), axis=1).numpy()
    np.testing.assert_array_equal(predictions[:-1], batch["identity"][:-1])
    assert float(last["identity"]) < 0.3
    nobody = batch | {"identity": tf.fill((BATCH,), tf.constant(-1, tf.int64))}
    assert float(defence.update(nobody, features)["identity"]) == 0.0


def make_protector(bottleneck=None, **weights):
    keras.utils.set_random_seed(0)
    config = Config(
        loss=Loss(**{"lambda1": 0.0} | weights), train=Train(decoder_learning_rate=1e-2)
    )
    config.data.size, config.model.depth, config.model.split = SIZE, 18, "avgpool"
    config.model.width = config.model.decoder_width = 0.125
    encoder = Encoder(18, 0.125, "avgpool", bottleneck)
    encoder.build((None, SIZE, SIZE, 3))
    shape = encoder.feature_shape(SIZE)
    classifier = Classifier("avgpool", ATTRIBUTES, 18, 0.125, hidden=16)
    classifier.build((None, *shape))
    defences = build_defences(config, shape, ATTRIBUTES, people=PEOPLE, embedding=EMBEDDING)
    protector = Protector(encoder, classifier, defences)
    protector.compile(keras.optimizers.Adam(1e-3))
    return protector


def as_data(batch):
    pixels = tf.cast(tf.round((batch["images"] + 1.0) * 127.5), tf.uint8)
    private = batch | {"images": pixels}
    return {"private": private, "public": {"images": pixels[:, None]}}


TERMS = {
    "nopeek": "private_distance_correlation",
    "excess_pixels": "private_excess_pixels",
    "excess_identity": "private_excess_identity",
}


@pytest.mark.parametrize("field", TERMS)
def test_training_lowers_what_a_term_penalises(field):
    """Compared with the same training and a negligible weight."""
    data, ends = as_data(make_batch(16)), []
    for weight in (1e-9, 10.0):
        protector = make_protector(**{field: weight})
        step = tf.function(protector.train_step)
        ends.append(np.mean([step(data)[TERMS[field]] for _ in range(40)][-10:]))
    assert ends[1] < ends[0] - 0.2


def test_max_entropy_leaves_the_adversary_more_uncertain():
    data, ends = as_data(make_batch(16)), []
    for weight in (1e-9, 10.0):
        step = tf.function(make_protector(max_entropy=weight).train_step)
        ends.append(np.mean([step(data)["private_identity_entropy"] for _ in range(60)][-10:]))
    assert ends[1] > ends[0] + 0.2


def test_no_gradient_of_the_adversary_of_identity_reaches_the_encoder():
    """With a negligible weight, the encoder learns as without the adversary."""
    data, weights = as_data(make_batch()), []
    for term in ({"max_entropy": 1e-30}, {"nopeek": 1e-30}):
        protector = make_protector(**term)
        for _ in range(3):
            protector.train_step(data)
        weights.append(protector.encoder.get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    ("bottleneck", "weights"),
    [
        ({}, {"nopeek": 1.0, "lambda1": 1.0}),
        ({"variational": 0.1}, {}),
        ({"variational": 0.1, "bits": 2}, {"max_entropy": 1.0}),
        ({"size": 4, "noise": 1.0, "bits": 1}, {"excess_pixels": 1.0, "excess_identity": 1.0}),
    ],
)
def test_terms_and_bottlenecks_add_up_in_any_combination(bottleneck, weights):
    protector = make_protector(bottleneck, **weights)
    losses = tf.function(protector.train_step)(as_data(make_batch()))
    assert set(losses) == set(protector.measurements)
    signs = {"lambda1": ("reconstruction", -1.0), "max_entropy": ("identity_entropy", -1.0)}
    expected = losses["utility"] + losses.get("private_bottleneck", 0.0)
    for field, weight in weights.items():
        name, sign = signs.get(field, (TERMS.get(field, "").removeprefix("private_"), 1.0))
        expected += sign * weight * losses[f"private_{name}"]
    assert float(losses["protector"]) == pytest.approx(float(expected), rel=1e-4)


def test_the_variational_term_is_of_this_step_and_pulls_towards_the_prior():
    data, ends = as_data(make_batch(16)), []
    for weight in (1e-9, 1.0):
        protector = make_protector({"variational": weight})
        step = tf.function(protector.train_step)
        for _ in range(60):
            last = step(data)
        protector(make_batch()["images"])  # another call, which must not count
        last = step(data)
        ends.append(float(last["private_bottleneck"]) / weight)
    assert ends[1] < 0.5 * ends[0]
