import numpy as np
import pytest
import tensorflow as tf

from tfadv.evaluation.metrics.fisher import dfil, mse_bound
from tfadv.models.encoder import Encoder

SIDE = 4
VALUES = SIDE * SIDE * 3


def make_images(count, seed=0, side=SIDE):
    return np.random.default_rng(seed).uniform(-1, 1, (count, side, side, 3)).astype(np.float32)


def make_matrix(features, seed=1):
    return np.random.default_rng(seed).normal(size=(VALUES, features)).astype(np.float32)


def linear(matrix):
    return lambda images: tf.reshape(images, (len(images), -1)) @ matrix


def curved(images, matrix, mean, sin):
    """Features of which each depends on each value, in NumPy or in TensorFlow."""
    rows = mean(images, (1,))
    return sin(rows @ matrix) * mean(images**2, (1, 2, 3))[:, None, None]


@pytest.mark.parametrize("features", [1, 7, 60])
@pytest.mark.parametrize("sigma", [0.5, 3.0])
def test_dfil_of_a_linear_map_is_the_sum_of_the_matrixs_squares(features, sigma):
    matrix = make_matrix(features)
    found = dfil(linear(matrix), make_images(3), sigma, probes=60)
    np.testing.assert_allclose(found, np.square(matrix).sum() / (sigma**2 * VALUES), rtol=1e-5)


def test_dfil_of_a_curved_map_agrees_with_finite_differences():
    images, matrix = make_images(2), np.random.default_rng(1).normal(size=(3, 5))
    step, expected = 1e-5, np.zeros(2)
    for change in step * np.eye(VALUES).reshape(VALUES, 1, SIDE, SIDE, 3):
        ends = [curved(images + sign * change, matrix, np.mean, np.sin) for sign in (1.0, -1.0)]
        expected += np.square((ends[0] - ends[1]) / (2 * step)).sum(axis=(1, 2))

    def h(values):
        return curved(values, matrix.astype(np.float32), tf.reduce_mean, tf.sin)

    found = dfil(h, images, sigma=2.0, probes=SIDE * 5)
    np.testing.assert_allclose(found, expected / (4.0 * VALUES), rtol=1e-4)
    assert found[0] != pytest.approx(found[1], rel=0.01)


def test_estimates_have_the_mean_and_the_spread_of_random_signs():
    matrix, probes, count = make_matrix(20), 5, 4000
    # The same image many times, each with its own signs.
    images = make_images(1).repeat(count, axis=0)
    found = dfil(linear(matrix), images, 1.0, probes) * VALUES
    products = (matrix.T @ matrix).astype(np.float64)
    deviation = np.sqrt(2 * (np.square(products).sum() - np.square(np.diag(products)).sum()))
    deviation /= np.sqrt(probes)
    assert found.mean() == pytest.approx(np.trace(products), abs=4 * deviation / np.sqrt(count))
    assert found.std() == pytest.approx(deviation, rel=0.08)


def test_a_seed_gives_the_same_estimate_again_and_another_seed_another():
    def estimate(seed):
        return dfil(linear(make_matrix(20)), make_images(3), 1.0, probes=4, seed=seed)

    np.testing.assert_array_equal(estimate(3), estimate(3))
    assert (estimate(3) != estimate(4)).all()


def test_dfil_of_an_encoder_agrees_with_tensorflows_jacobian():
    images = make_images(2, side=8)
    encoder = tf.function(Encoder(depth=18, width=0.125, split="conv3"))  # of 16 features
    with tf.GradientTape(persistent=True) as tape:
        inputs = tf.constant(images)
        tape.watch(inputs)
        features = tf.reshape(encoder(inputs), (2, 16))
    jacobian = tape.batch_jacobian(features, inputs, experimental_use_pfor=False)
    expected = np.square(jacobian).sum(axis=(1, 2, 3, 4)) / (0.3**2 * 8 * 8 * 3)
    for h in (encoder, encoder.python_function):
        np.testing.assert_allclose(dfil(h, images, 0.3), expected, rtol=1e-3)


@pytest.mark.parametrize("is_tight", [True, False])
def test_least_squares_from_noisy_linear_features_errs_no_less_than_the_bound(is_tight):
    matrix, sigma = make_matrix(60).astype(np.float64), 0.7
    if is_tight:  # all values are as well known as any, and the bound is what least squares does
        matrix = 3.0 * np.linalg.qr(matrix.T)[0].T
    bound = mse_bound(dfil(linear(matrix.astype(np.float32)), make_images(1), sigma, probes=60))[0]

    truth = make_images(1).reshape(VALUES).astype(np.float64)
    noise = sigma * np.random.default_rng(2).normal(size=(5000, 60))
    guesses = (truth @ matrix + noise) @ np.linalg.pinv(matrix)
    errors = np.square(guesses - truth).mean(axis=1)
    if is_tight:
        assert errors.mean() == pytest.approx(bound, abs=4 * errors.std() / np.sqrt(5000))
    else:
        assert errors.mean() > 1.5 * bound


def test_a_grey_guess_is_biased_and_beats_a_high_bound():
    images = make_images(3)
    bound = mse_bound(dfil(linear(make_matrix(60)), images, sigma=20.0, probes=60))
    assert (np.square(images).mean(axis=(1, 2, 3)) < bound).all()


def test_the_bound_is_one_over_dfil_and_infinite_where_nothing_leaks():
    np.testing.assert_array_equal(mse_bound(np.array([0.0, 0.5, 4.0])), [np.inf, 2.0, 0.25])


def test_features_that_do_not_depend_on_the_image_leak_nothing():
    found = dfil(lambda images: tf.reshape(0.0 * images, (len(images), -1)), make_images(2), 1.0)
    np.testing.assert_array_equal(found, [0.0, 0.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0.0}, "sigma must be above 0 and finite, not 0.0"),
        ({"sigma": np.nan}, "sigma .* not nan"),
        ({"sigma": np.inf}, "sigma .* not inf"),
        ({"probes": 0}, "probes must be at least 1, not 0"),
        ({"images": np.zeros((4, 4, 3))}, r"images \(4, 4, 3\) must be \[N, S, S, 3\]"),
        ({"images": np.zeros((0, 4, 4, 3))}, r"images \(0, 4, 4, 3\)"),
        ({"images": np.full((1, 4, 4, 3), 255)}, r"must lie in \[-1, 1\]"),
        ({"images": np.full((1, 4, 4, 3), np.nan)}, r"must lie in \[-1, 1\]"),
        ({"h": lambda images: tf.reduce_mean(images)}, r"of 2 images, not \(\)"),
        ({"h": lambda images: images[:1]}, r"of 2 images, not \(1, 4, 4, 3\)"),
        ({"h": lambda images: tf.constant(images.numpy())}, "h has no gradient"),
        ({"h": lambda images: tf.cast(images, tf.int32)}, "h has no gradient"),
        ({"h": lambda images: tf.sqrt(0.0 * images)}, "not finite at 2"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"h": linear(make_matrix(2)), "images": make_images(2), "sigma": 1.0} | change
    with pytest.raises(ValueError, match=message):
        dfil(**arguments)


@pytest.mark.parametrize("leakage", [[-1.0], [1.0, np.nan]])
def test_a_negative_dfil_is_refused(leakage):
    with pytest.raises(ValueError, match="1 values of dFIL are negative or NaN"):
        mse_bound(np.array(leakage))
