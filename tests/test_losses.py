import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import log_loss, mean_squared_error

from tfadv.losses import protector_loss, reconstruction_loss, utility_loss


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


def test_reconstruction_loss_of_bfloat16_pictures_is_computed_in_float32(rng):
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


def test_protector_loss_subtracts_the_weighted_reconstruction_loss():
    assert protector_loss(tf.constant(0.5), tf.constant(0.2), 3.0).numpy() == pytest.approx(-0.1)
