import numpy as np
import pytest
import tensorflow as tf

from tfadv.models.prediction_output import PredictionOutput

ENCODER = {"depth": 18, "width": 0.125, "split": "fc"}
CLASSIFIER = {"split": "fc", "attributes": 200, "depth": 18, "width": 0.125}


def build(**options):
    answers = PredictionOutput(ENCODER, CLASSIFIER, dtype="float32", **options)
    answers.build((None, 32, 32, 3))
    return answers


@pytest.fixture(scope="module")
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3))
    return tf.constant(pixels / 127.5 - 1, tf.float32)


def test_answers_are_those_of_logits_less_thresholds(images):
    soft, hard = build(hard=False), build(hard=True)
    hard.set_weights(soft.get_weights())
    for each in (soft, hard):
        each.thresholds.assign(np.linspace(-0.01, 0.01, 200))
    logits = soft.classifier(soft.encoder(images)) - soft.thresholds.value
    np.testing.assert_allclose(soft(images), logits, atol=1e-6)
    np.testing.assert_array_equal(hard(images), np.where(soft(images) > 0, 1, -1))


def test_as_many_are_turned_round_as_asked_for(images):
    plain, flipped = build(hard=True), build(hard=True, flip=0.1)
    flipped.encoder.set_weights(plain.encoder.get_weights())
    flipped.classifier.set_weights(plain.classifier.get_weights())
    turned = plain(images).numpy() != flipped(images).numpy()
    # Of 8,000 answers: the standard error is 0.0034.
    assert turned.mean() == pytest.approx(0.1, abs=0.014)
    assert 0 < turned.mean(1).min() < turned.mean(1).max() < 0.25  # others for each picture
    # Randomised response: of either answer the same share.
    for answer in (1.0, -1.0):
        assert turned[plain(images).numpy() == answer].mean() == pytest.approx(0.1, abs=0.03)


def test_a_picture_gets_the_same_answers_however_it_comes(images):
    answers = build(hard=True, flip=0.3)
    np.testing.assert_array_equal(answers(images)[3:5], answers(images[3:5]))
    copy = build(**{name: answers.get_config()[name] for name in ("hard", "flip")})
    copy.set_weights(answers.get_weights())
    np.testing.assert_array_equal(answers(images), copy(images))


def test_logits_cannot_be_turned_round():
    with pytest.raises(ValueError, match="only hard answers can be turned round"):
        build(hard=False, flip=0.1)
