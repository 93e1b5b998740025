import numpy as np
import pytest
import tensorflow as tf

from tfadv.models.classifier import Classifier
from tfadv.models.encoder import Encoder
from tfadv.models.prediction_output import PredictionOutput, predictions_as_features

ENCODER = {"depth": 18, "width": 0.125, "split": "fc"}
CLASSIFIER = {"split": "fc", "attributes": 200, "depth": 18, "width": 0.125}


def build(**options):
    network = PredictionOutput(ENCODER, CLASSIFIER, dtype="float32", **options)
    network.build((None, 32, 32, 3))
    return network


@pytest.fixture(scope="module")
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3))
    return tf.constant(pixels / 127.5 - 1, tf.float32)


@pytest.mark.parametrize("hard", [True, False])
def test_predictions_are_those_of_the_trained_networks_at_their_thresholds(images, hard):
    encoder, classifier = Encoder(**ENCODER), Classifier(**CLASSIFIER)
    encoder.build((None, 32, 32, 3))
    classifier.build((None, 1000))
    logits = classifier(encoder(images))
    thresholds = np.linspace(-0.01, 0.01, 200)
    network, pass_through = predictions_as_features(
        encoder, classifier, thresholds, 32, hard=hard, flip=0.0
    )
    predictions = network(images)
    if hard:
        np.testing.assert_array_equal(predictions, np.where(logits > thresholds, 1, -1))
    else:
        np.testing.assert_allclose(predictions, logits - thresholds, atol=1e-6)
    np.testing.assert_array_equal(pass_through(predictions), predictions)
    assert network.feature_shape(32) == predictions.shape[1:] == (200,)


def test_the_asked_share_of_predictions_is_flipped(images):
    plain, flipped = build(hard=True), build(hard=True, flip=0.1)
    flipped.encoder.set_weights(plain.encoder.get_weights())
    flipped.classifier.set_weights(plain.classifier.get_weights())
    changed = plain(images).numpy() != flipped(images).numpy()
    # Of 8,000 predictions: the standard error is 0.0034.
    assert changed.mean() == pytest.approx(0.1, abs=0.014)
    assert 0 < changed.mean(1).min() < changed.mean(1).max() < 0.25  # they differ by image
    # Randomised response: the same share of yes and of no.
    for prediction in (1.0, -1.0):
        share = changed[plain(images).numpy() == prediction].mean()
        assert share == pytest.approx(0.1, abs=0.03)


def test_an_image_gets_the_same_predictions_in_any_batch_and_from_a_copy(images):
    network = build(hard=True, flip=0.3)
    np.testing.assert_array_equal(network(images)[3:5], network(images[3:5]))
    copy = build(**{name: network.get_config()[name] for name in ("hard", "flip")})
    copy.set_weights(network.get_weights())
    np.testing.assert_array_equal(network(images), copy(images))


def test_logits_cannot_be_flipped():
    with pytest.raises(ValueError, match="only hard predictions can be flipped"):
        build(hard=False, flip=0.1)
