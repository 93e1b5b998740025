import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import log_loss, mean_squared_error

from tfadv.models.losses import (
    adversarial_loss,
    discriminator_loss,
    feature_loss,
    perceptual_loss,
    reconstruction_loss,
    utility_loss,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_reconstruction_loss_is_the_mean_squared_error_over_pixels_channels_and_batch(rng):
    images, reconstructions = rng.uniform(-1, 1, (2, 3, 8, 8, 3)).astype(np.float32)
    expected = mean_squared_error(images.ravel(), reconstructions.ravel())
    assert reconstruction_loss(images, reconstructions).numpy() == pytest.approx(expected, rel=1e-5)


def test_reconstruction_loss_of_black_against_white_is_four():
    white = np.ones((2, 4, 4, 3), np.float32)
    assert reconstruction_loss(white, -white).numpy() == 4.0


def test_reconstruction_loss_of_bfloat16_images_is_computed_in_float32(rng):
    images = tf.cast(rng.uniform(-1, 1, (2, 64, 64, 3)), tf.bfloat16)
    loss = reconstruction_loss(images, tf.zeros_like(images))
    assert loss.dtype == tf.float32
    expected = np.square(images.numpy().astype(np.float64)).mean()
    assert loss.numpy() == pytest.approx(expected, rel=1e-5)


def test_utility_loss_is_the_log_loss_averaged_over_attributes(rng):
    labels = rng.integers(0, 2, (50, 4)).astype(np.uint8)
    logits = rng.normal(size=(50, 4)).astype(np.float32)
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = np.mean([log_loss(labels[:, i], probabilities[:, i]) for i in range(4)])
    assert utility_loss(labels, logits).numpy() == pytest.approx(expected, rel=1e-5)


def test_utility_loss_is_finite_for_extreme_logits():
    loss = utility_loss(np.array([[0, 1]]), np.array([[1e4, -1e4]], np.float32))
    assert loss.numpy() == pytest.approx(1e4)


def probabilities_of(logits):
    return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))


def test_adversarial_loss_is_minus_the_log_of_d_or_as_printed_in_equation_2(rng):
    logits = rng.normal(size=20).astype(np.float32)
    fooled = probabilities_of(logits)
    assert adversarial_loss(logits).numpy() == pytest.approx(-np.log(fooled).mean(), rel=1e-5)
    printed = np.log(1 - fooled).mean()
    assert adversarial_loss(logits, saturating=True).numpy() == pytest.approx(printed, rel=1e-5)


@pytest.mark.parametrize("saturating", [False, True])
def test_adversarial_loss_falls_as_the_reconstruction_passes_for_real(saturating):
    losses = [float(adversarial_loss(tf.constant([x]), saturating)) for x in (-30.0, 0.0, 30.0)]
    assert losses[0] > losses[1] > losses[2]
    assert np.isfinite(losses).all()


def test_discriminator_loss_is_the_log_loss_of_telling_real_from_reconstructed(rng):
    real, fake = rng.normal(size=(2, 30)).astype(np.float32)
    labels = np.repeat([1, 0], 30)
    expected = 2 * log_loss(labels, probabilities_of(np.concatenate([real, fake])))
    assert discriminator_loss(real, fake).numpy() == pytest.approx(expected, rel=1e-5)


def test_discriminator_that_cannot_tell_pays_two_log_two():
    undecided = tf.zeros([5])
    assert discriminator_loss(undecided, undecided).numpy() == pytest.approx(2 * np.log(2))


def test_discriminator_loss_is_finite_for_extreme_logits():
    loss = discriminator_loss(tf.constant([-1e4]), tf.constant([1e4]))
    assert loss.numpy() == pytest.approx(2e4)


def test_perceptual_loss_is_each_layers_squared_error_over_its_mean_square_summed(rng):
    shapes = [(3, 8, 8, 2), (3, 4, 4, 5)]
    features = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    reconstructed = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    errors = [
        mean_squared_error(one.ravel(), other.ravel())
        for one, other in zip(features, reconstructed, strict=True)
    ]
    expected = errors[0] / 0.5 + errors[1] / 20.0
    loss = perceptual_loss(features, reconstructed, tf.constant([0.5, 20.0]))
    assert loss.numpy() == pytest.approx(expected, rel=1e-5)


def test_perceptual_loss_of_zero_features_is_the_number_of_layers(rng):
    features = [rng.normal(size=(4, 6, 6, 3)).astype(np.float32) for _ in range(3)]
    squares = [np.square(feature).mean() for feature in features]
    nothing = [np.zeros_like(feature) for feature in features]
    assert perceptual_loss(features, nothing, squares).numpy() == pytest.approx(3.0, rel=1e-5)


def test_feature_loss_is_the_mean_squared_error_of_the_embedding(rng):
    embeddings, guesses = rng.normal(size=(2, 7, 5)).astype(np.float32)
    expected = mean_squared_error(embeddings.ravel(), guesses.ravel())
    assert feature_loss(embeddings, guesses).numpy() == pytest.approx(expected, rel=1e-5)
