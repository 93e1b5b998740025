import cv2
import numpy as np
import pytest
import tensorflow as tf

from tfadv.models.softening import soften


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(-1, 1, size=(2, 32, 32, 3)).astype(np.float32)


def test_does_nothing_by_default(images):
    np.testing.assert_array_equal(soften(tf.constant(images)), images)


@pytest.mark.parametrize("sigma", [0.7, 2.0])
def test_blurs_as_opencv_does(images, sigma):
    side = 2 * int(np.ceil(3 * sigma)) + 1
    expected = [
        cv2.GaussianBlur(each, (side, side), sigma, borderType=cv2.BORDER_REFLECT)
        for each in images
    ]
    np.testing.assert_allclose(soften(tf.constant(images), blur=sigma), expected, atol=1e-5)


@pytest.mark.parametrize("factor", [2, 4])
def test_shrinks_and_enlarges_as_opencv_does(images, factor):
    small = [cv2.resize(each, (32 // factor,) * 2, interpolation=cv2.INTER_AREA) for each in images]
    expected = [cv2.resize(each, (32, 32), interpolation=cv2.INTER_LINEAR) for each in small]
    np.testing.assert_allclose(soften(tf.constant(images), downscale=factor), expected, atol=1e-5)


def test_shrinks_before_it_blurs(images):
    both = soften(tf.constant(images), blur=1.5, downscale=4)
    np.testing.assert_allclose(both, soften(soften(images, downscale=4), blur=1.5), atol=1e-6)
