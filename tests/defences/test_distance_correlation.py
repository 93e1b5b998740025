import numpy as np
import pytest
import tensorflow as tf

from tfadv.defences.distance_correlation import distance_correlation


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def by_definition(one, other):
    """Székely and Rizzo (2013), Eq. 2.5 to 2.11, sum by sum."""

    def centred(points):
        n = len(points)
        a = np.array([[np.linalg.norm(p - q) for q in points] for p in points])
        mean = a.sum() / (n - 1) / (n - 2)
        u = a - a.sum(1, keepdims=True) / (n - 2) - a.sum(0, keepdims=True) / (n - 2) + mean
        np.fill_diagonal(u, 0.0)
        return u

    a, b = centred(one), centred(other)
    return (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())


def value(one, other):
    return float(distance_correlation(tf.constant(one, tf.float32), tf.constant(other, tf.float32)))


@pytest.mark.parametrize("count", [4, 5, 30])
def test_is_the_definitions(rng, count):
    one, noise = rng.normal(size=(count, 3)), rng.normal(size=(count, 5))
    other = noise + one @ rng.normal(size=(3, 5))
    assert value(one, other) == pytest.approx(by_definition(one, other), abs=1e-5)


def test_far_from_the_origin_it_is_as_exact(rng):
    one, other = rng.normal(size=(20, 3)), rng.normal(size=(20, 3))
    assert value(one + 1000.0, 1e-3 * other) == pytest.approx(value(one, other), abs=1e-3)


def test_what_is_rotated_moved_and_scaled_depends_wholly(rng):
    one = rng.normal(size=(20, 4))
    rotation, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    assert value(one, 3.0 * one @ rotation + 2.0) == pytest.approx(1.0, abs=1e-5)


def test_independent_samples_have_none_in_the_mean(rng):
    values = [value(rng.normal(size=(16, 8)), rng.normal(size=(16, 20))) for _ in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200)


def test_sees_what_correlation_does_not(rng):
    one = rng.normal(size=(400, 1))
    assert abs(np.corrcoef(one[:, 0], one[:, 0] ** 2)[0, 1]) < 0.15
    assert value(one, one**2) > 0.1


def test_of_normal_variables_it_tends_to_the_closed_form(rng):
    """Székely, Rizzo and Bakirov (2007), Theorem 7."""
    rho = 0.6
    one = rng.normal(size=(1500, 1))
    other = rho * one + np.sqrt(1 - rho**2) * rng.normal(size=(1500, 1))
    top = rho * np.arcsin(rho) + np.sqrt(1 - rho**2) - rho * np.arcsin(rho / 2)
    top += 1 - np.sqrt(4 - rho**2)
    assert value(one, other) == pytest.approx(top / (1 + np.pi / 3 - np.sqrt(3)), abs=0.04)


def test_maps_count_as_vectors(rng):
    maps, other = rng.normal(size=(8, 2, 2, 3)), rng.normal(size=(8, 4))
    assert value(maps, other) == pytest.approx(value(maps.reshape(8, -1), other), abs=1e-6)


def test_what_does_not_vary_has_none_and_a_finite_gradient(rng):
    other = tf.constant(rng.normal(size=(6, 2)), tf.float32)
    points = tf.Variable(tf.ones((6, 3)))
    with tf.GradientTape() as tape:
        result = distance_correlation(points, other)
    assert float(result) == pytest.approx(0.0, abs=1e-6)
    assert np.isfinite(tape.gradient(result, points).numpy()).all()


def test_equal_rows_have_a_finite_gradient(rng):
    points = tf.Variable(np.repeat(rng.normal(size=(4, 3)), 2, axis=0).astype(np.float32))
    other = tf.constant(rng.normal(size=(8, 2)), tf.float32)
    with tf.GradientTape() as tape:
        result = distance_correlation(points, other)
    gradient = tape.gradient(result, points).numpy()
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0


def test_its_gradient_leads_away_from_dependence(rng):
    other = tf.constant(rng.normal(size=(32, 2)), tf.float32)
    points = tf.Variable(other + 0.1 * tf.random.stateless_normal((32, 2), (0, 0)))
    before = float(distance_correlation(points, other))
    for _ in range(100):
        with tf.GradientTape() as tape:
            result = distance_correlation(points, other)
        points.assign_sub(2.0 * tape.gradient(result, points))
    assert float(distance_correlation(points, other)) < 0.3 * before
