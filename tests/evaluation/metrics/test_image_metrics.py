import numpy as np
import pytest
import tensorflow as tf
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from tfadv.evaluation.metrics.image import psnr, ssim


@pytest.fixture(scope="module")
def pairs():
    random = np.random.default_rng(0)
    ramp = np.linspace(-1, 1, 32)[None, :, None, None] * np.ones((4, 32, 32, 3))
    images = np.clip(ramp + random.normal(0, 0.2, ramp.shape), -1, 1)
    noise = random.normal(0, [[[[0.05]]], [[[0.2]]], [[[0.5]]], [[[1.0]]]], ramp.shape)
    return images.astype(np.float32), np.clip(images + noise, -1, 1).astype(np.float32)


def test_ssim_agrees_with_scikit_image_where_the_window_fits(pairs):
    def scikit_ssim(image, reconstruction):
        _, full = structural_similarity(
            image.astype(np.float64),
            reconstruction.astype(np.float64),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=2,
            channel_axis=-1,
            full=True,
        )
        return full[5:-5, 5:-5].mean()

    expected = [scikit_ssim(*pair) for pair in zip(*pairs, strict=True)]
    np.testing.assert_allclose(ssim(*pairs), expected, atol=1e-5)


@pytest.mark.parametrize("side", [11, 32])
def test_ssim_and_psnr_agree_with_tensorflow(pairs, side):
    images, reconstructions = (each[:, :side, :side] for each in pairs)
    for ours, peer in ((ssim, tf.image.ssim), (psnr, tf.image.psnr)):
        expected = peer(images, reconstructions, max_val=2.0).numpy()
        found = ours(images, reconstructions)
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_psnr_agrees_with_scikit_image(pairs):
    expected = [peak_signal_noise_ratio(*pair, data_range=2) for pair in zip(*pairs, strict=True)]
    np.testing.assert_allclose(psnr(*pairs), expected, rtol=1e-5)


def test_equal_images_have_ssim_one_and_infinite_psnr(pairs):
    images, _ = pairs
    np.testing.assert_allclose(ssim(images, images), 1.0, atol=1e-6)
    assert np.isposinf(psnr(images, images)).all()


def test_psnr_of_a_constant_offset():
    images = np.zeros((1, 16, 16, 3), np.float32)
    # 10 log10(2^2 / 0.2^2) = 20 dB
    np.testing.assert_allclose(psnr(images, images + 0.2), 20.0, rtol=1e-5)


def test_ssim_of_two_flat_images_is_the_luminance_term():
    images = np.full((1, 16, 16, 3), 0.5, np.float32)
    c1 = (0.01 * 2) ** 2
    expected = (2 * 0.5 * 0.1 + c1) / (0.5**2 + 0.1**2 + c1)
    np.testing.assert_allclose(ssim(images, images / 5), expected, rtol=1e-4)


@pytest.mark.parametrize("metric", [ssim, psnr])
def test_batches_do_not_change_the_values_or_their_order(metric):
    random = np.random.default_rng(2)
    images = random.uniform(-1, 1, (300, 11, 11, 3)).astype(np.float32)
    reconstructions = images * np.linspace(0, 0.9, 300, dtype=np.float32)[:, None, None, None]
    values = metric(images, reconstructions)
    assert values.shape == (300,)
    np.testing.assert_allclose(values[250:], metric(images[250:], reconstructions[250:]), rtol=1e-5)


@pytest.mark.parametrize("metric", [ssim, psnr])
def test_no_images_give_no_values(metric):
    assert metric(np.zeros((0, 16, 16, 3)), np.zeros((0, 16, 16, 3))).shape == (0,)


def test_bytes_and_other_shapes_are_refused():
    images = np.zeros((1, 16, 16, 3), np.float32)
    with pytest.raises(ValueError, match="uint8"):
        psnr(images.astype(np.uint8), images.astype(np.uint8))
    with pytest.raises(ValueError, match=r"\(1, 16, 16, 3\) and reconstructions \(1, 8, 8, 3\)"):
        psnr(images, images[:, ::2, ::2])
    with pytest.raises(ValueError, match="at least 11x11"):
        ssim(images[:, ::2, ::2], images[:, ::2, ::2])
