import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.public_images import FixedPairs, make_knowledge
from tfadv.attacks.attack import NotApplicableError
from tfadv.attacks.black_box import SavedEncoder
from tfadv.attacks.gradient_search import (
    GradientSearch,
    InputOptimiser,
    Search,
    total_variation,
)
from tfadv.attacks.network_training import Standardisation
from tfadv.config.schema import BlackBox
from tfadv.data.images import to_uint8
from tfadv.evaluation.metrics.image import psnr
from tfadv.models.encoder import Encoder
from tfadv.models.export import export_encoder

SIZE = 8
VALUES = SIZE * SIZE * 3
FAITHFUL = Search(weight=0.0, learning_rate=0.1, steps=400)
SMOOTH = Search(weight=1.0, learning_rate=0.1, steps=400)


def smooth_images(count, seed=0, size=SIZE):
    """A plane of its own for each channel, float32 in [-0.8, 0.8]."""
    random = np.random.default_rng(seed)
    offset, right, down = 0.8 / 3 * random.uniform(-1, 1, (3, count, 1, 1, 3))
    across = np.linspace(-1, 1, size)
    planes = offset + right * across[:, None] + down * across[:, None, None]
    return planes.astype(np.float32)


def linear_encoder(dimensions):
    """An orthogonal map of all pixels, or its first rows."""
    matrix = np.linalg.qr(np.random.default_rng(0).normal(size=(VALUES, VALUES)))[0]
    matrix = tf.constant(matrix[:, :dimensions], tf.float32)
    return lambda images: tf.reshape(images, (-1, VALUES)) @ matrix


def standardise(features):
    layer = Standardisation(dtype="float32")
    layer.build(features.shape)
    layer.adapt(lambda: [np.asarray(features)])
    return layer


def make_optimiser(encode, public=None, **arguments):
    public = smooth_images(300, seed=9) if public is None else public
    arguments = {"restarts": 2, "batch": 4} | arguments
    return InputOptimiser(encode, standardise(encode(public)), public.mean(0), **arguments)


def mean_psnr(images, found):
    return psnr(images, np.broadcast_to(found, images.shape)).mean()


# Known solutions


def test_an_invertible_map_is_inverted():
    encode, images = linear_encoder(VALUES), smooth_images(4)
    found, distances = make_optimiser(encode)(encode(images), FAITHFUL)
    assert distances.max() < 1e-5
    assert psnr(images, found).min() > 50


def test_total_variation_recovers_smooth_images_from_a_quarter_of_the_dimensions():
    encode, images = linear_encoder(VALUES // 4), smooth_images(4)
    optimiser = make_optimiser(encode)
    smooth, _ = optimiser(encode(images), SMOOTH)
    assert mean_psnr(images, smooth) > 27
    assert mean_psnr(images, np.float32(0)) < 20  # the mean image
    plain, _ = optimiser(encode(images), FAITHFUL)
    assert mean_psnr(images, plain) < 20


def test_distances_are_those_of_the_found_images_in_units_of_the_public_deviation():
    encode, images = linear_encoder(20), smooth_images(3)
    public = smooth_images(300, seed=9)
    features = encode(images).numpy()
    found, distances = make_optimiser(encode, public)(features, Search(0.1, 0.1, 5))
    deviation = encode(public).numpy().std(0)
    expected = np.square((encode(found) - features) / deviation).mean(1)
    np.testing.assert_allclose(distances, expected, rtol=1e-3)
    assert distances.max() > 0.01  # after so few steps


def test_dimensions_of_small_variance_count_as_much_as_others():
    plain = linear_encoder(VALUES)
    scales = tf.constant(np.geomspace(1e-4, 1e2, VALUES), tf.float32)

    def encode(images):
        return plain(images) * scales

    images = smooth_images(4)
    found, _ = make_optimiser(encode)(encode(images), FAITHFUL)
    assert psnr(images, found).min() > 50


def test_maps_are_inverted():
    kernel = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))[0]
    kernel = tf.constant(kernel.reshape(2, 2, 3, 12), tf.float32)

    def encode(images):
        return tf.nn.conv2d(images, kernel, 2, "VALID")

    images = smooth_images(4)
    found, distances = make_optimiser(encode)(encode(images).numpy(), FAITHFUL)
    assert distances.max() < 1e-5
    assert psnr(images, found).min() > 50


def test_total_variation_is_the_mean_length_of_the_gradient():
    ramp = np.zeros((2, 5, 5, 3), np.float32)
    ramp[1] = 0.03 * np.arange(5)[:, None, None] + 0.04 * np.arange(5)[:, None]
    np.testing.assert_allclose(total_variation(tf.constant(ramp)), [1e-4, 0.05], rtol=1e-4)


# Starts and batches


def test_the_start_with_the_smallest_feature_distance_counts(monkeypatch):
    encode = linear_encoder(4)
    optimiser = make_optimiser(encode, restarts=3, batch=2)
    distances = iter(np.float32([[0.3, np.nan], [0.1, 0.5], [0.2, 0.4]]))
    shades = iter(np.float32([0.1, 0.2, 0.3]))

    def descend(*_):
        return np.full((2, SIZE, SIZE, 3), next(shades)), next(distances)

    monkeypatch.setattr(optimiser, "_descend", descend)
    found, nearest = optimiser(np.zeros((2, 4), np.float32), FAITHFUL)
    np.testing.assert_array_equal(nearest, np.float32([0.1, 0.4]))
    np.testing.assert_array_equal(found[:, 0, 0, 0], np.float32([0.2, 0.3]))


def test_each_start_is_different():
    def encode(images):
        """Has many solutions: the start decides which one is found."""
        return tf.sin(20 * linear_encoder(4)(images))

    features = encode(smooth_images(4)).numpy()
    few, many = (make_optimiser(encode, restarts=n)(features, FAITHFUL)[0] for n in (1, 4))
    assert np.abs(few - many).max() > 0.01


def test_the_seed_decides_which_images_are_found():
    encode = linear_encoder(10)
    features = encode(smooth_images(3)).numpy()
    first, again, other = (
        make_optimiser(encode, seed=seed)(features, Search(0.01, 0.1, 20))[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


def test_an_image_does_not_depend_on_its_batch():
    encode = linear_encoder(10)
    features = encode(smooth_images(5)).numpy()
    search = Search(0.01, 0.1, 20)
    together = make_optimiser(encode, batch=2)(features, search)
    for row in range(5):
        alone = make_optimiser(encode, batch=1)(features[row : row + 1], search)
        for one, every in zip(alone, together, strict=True):
            np.testing.assert_allclose(one[0], every[row], rtol=1e-3, atol=1e-4)


def test_batches_and_searches_share_one_trace():
    traced = []
    plain = linear_encoder(10)

    def encode(images):
        traced.append(images.shape)
        return plain(images)

    optimiser = make_optimiser(encode, batch=2)
    features = plain(smooth_images(5)).numpy()
    optimiser(features[:1], Search(0.01, 0.1, 2))
    before = len(traced)
    optimiser(features, Search(0.1, 0.2, 3))
    assert len(traced) == before


def test_gradients_that_are_not_finite_do_not_spoil_an_image():
    plain = linear_encoder(VALUES)

    def encode(images):
        # In dark images the gradient is 0 times infinity.
        brightness = tf.reduce_mean(images, (1, 2, 3))
        root = tf.sqrt(tf.square(brightness) * tf.cast(brightness > 0, tf.float32))
        return plain(images) + 1e-3 * root[:, None]

    public = np.abs(smooth_images(300, seed=9))
    dark = -public[:4]
    found, distances = make_optimiser(encode, public)(plain(dark), FAITHFUL)
    assert np.isfinite(found).all()
    assert np.isfinite(distances).all()
    assert found.mean() < 0.1 < public.mean()  # the search reached dark images


# Encoders without gradients


@pytest.mark.parametrize(
    ("harden", "reason"),
    [
        (tf.round, "as if the encoder rounded"),
        (lambda images: tf.cast(tf.cast(127 * images, tf.int32), tf.float32), "rounded"),
        (tf.stop_gradient, "rounded"),
        (tf.function(tf.round), "rounded"),
        (lambda images: tf.image.adjust_hue(images, 0.1), "AdjustHue"),
        (lambda images: tf.sqrt(images - 2.0), "not finite"),
    ],
)
def test_an_encoder_without_gradient_is_refused(harden, reason):
    plain = linear_encoder(10)
    with pytest.raises(
        NotApplicableError, match=rf"^no gradient of the features .*{reason}"
    ) as caught:
        make_optimiser(lambda images: plain(harden(images)))
    assert "\n" not in str(caught.value)


def test_features_whose_sum_is_constant_have_a_gradient():
    def encode(images):
        values = linear_encoder(10)(images)
        return tf.concat([values, -values], 1)

    make_optimiser(encode)


# The attack


def pairs_of(encode, images):
    images = to_uint8(images)
    features = encode(tf.constant(images / 127.5 - 1.0, tf.float32)).numpy()
    return FixedPairs(images, features)


class WhiteBox:
    """An encoder with gradients."""

    feature_shape, split = (10,), None

    def __init__(self, encode):
        self._encode = encode

    def differentiable(self):
        return self._encode


def known_of(encoder, encode=None, train=50):
    encode = encode or linear_encoder(10)
    pairs = (pairs_of(encode, smooth_images(n, seed=n)) for n in (train, 6))
    return dataclasses.replace(make_knowledge(*pairs), encoder=encoder)


def invert(encode, searches, restarts=1):
    known = known_of(WhiteBox(encode), encode, train=200)
    return GradientSearch(4, searches, restarts).fit(known, Path())


@pytest.fixture(scope="module")
def fitted():
    searches = [FAITHFUL, Search(100.0, 0.1, 400), SMOOTH, Search(1.0, 0.1, 2)]
    return invert(linear_encoder(VALUES // 4), searches)


def test_the_search_is_the_best_one_on_held_out_images(fitted):
    encode = linear_encoder(VALUES // 4)
    alone, features = invert(encode, [SMOOTH]), encode(smooth_images(4)).numpy()
    np.testing.assert_allclose(fitted.reconstruct(features), alone.reconstruct(features), atol=1e-5)
    assert fitted.held_out_loss < 0.2 * smooth_images(6, seed=6).var()


def test_it_inverts_images_that_it_was_not_tuned_on(fitted):
    images = smooth_images(20, seed=3)
    found = fitted.reconstruct(linear_encoder(VALUES // 4)(images).numpy())
    assert mean_psnr(images, found) > 27


def test_it_starts_from_the_mean_public_image():
    encode = linear_encoder(10)
    found = invert(encode, [Search(0.0, 1e-6, 1)], 8).reconstruct(encode(smooth_images(50)).numpy())
    # It differs from the mean by noise only, of deviation 0.1.
    mean = smooth_images(200, seed=200).mean(0)
    assert np.std(found[0] - mean) == pytest.approx(0.1, abs=0.02)


def test_the_attack_searches_for_the_first_test_images():
    encode, search = linear_encoder(10), Search(0.1, 0.1, 20)
    known = known_of(WhiteBox(encode))
    fitted = GradientSearch(4, [search], restarts=1, seed=3).fit(known, Path())
    public, held_out = (
        np.float32(known.pairs.images(slice(None)) / 127.5 - 1.0)
        for known in (known.train, known.held_out)
    )
    features = encode(held_out).numpy()
    expected, _ = make_optimiser(encode, public, restarts=1, seed=3)(features, search)
    np.testing.assert_allclose(fitted.reconstruct(features), expected, atol=1e-5)
    assert fitted.examples == 4
    assert fitted.held_out_loss == pytest.approx(np.square(expected - held_out).mean(), rel=1e-4)


@pytest.mark.parametrize(
    ("encoder", "reason"),
    [
        (linear_encoder(10), "predictions, and means of several features, have no gradient"),
        (WhiteBox(None), "the encoder takes integers"),
    ],
)
def test_the_attack_does_not_apply_to_an_encoder_that_has_no_gradients(encoder, reason):
    with pytest.raises(NotApplicableError, match=reason):
        GradientSearch(4).fit(known_of(encoder), Path())


# Encoders of ours


def attack_exported(folder, split, search):
    """Inverts an encoder with random weights; returns distances before and after, and PSNRs."""
    tf.keras.utils.set_random_seed(0)
    encoder = Encoder(18, 0.125, split, dtype="float32")
    public = smooth_images(64, seed=1, size=32)
    encoder(public, training=True)
    export_encoder(encoder, 32, folder / "encoder")
    black_box = SavedEncoder(str(folder / "encoder"), BlackBox(), 32)
    images = smooth_images(4, size=32)
    optimiser = make_optimiser(black_box.differentiable(), public, restarts=1)
    features = black_box(to_uint8(images))
    _, before = optimiser(features, Search(0.0, 0.1, 0))
    found, after = optimiser(features, search)
    psnrs = mean_psnr(images, public.mean(0)), mean_psnr(images, found)
    return before.mean(), after.mean(), psnrs


def test_an_exported_encoder_is_inverted_through_its_own_gradients(tmp_path):
    before, after, (guess, found) = attack_exported(tmp_path, "conv1", Search(10.0, 0.1, 60))
    assert after < 0.05 * before
    assert found > guess + 8  # dB above those of the mean image


def test_gradients_pass_a_whole_exported_network(tmp_path):
    before, after, _ = attack_exported(tmp_path, "fc", Search(10.0, 0.1, 60))
    assert after < 0.2 * before
