import numpy as np
import pytest

from tfadv.evaluation.moments import RunningMean, is_informative, moments, standard_scale


@pytest.fixture
def vectors():
    """60 vectors whose dimensions differ in mean and scale, float32 [60, 4]."""
    random = np.random.default_rng(0)
    return (random.normal(size=(60, 4)) * [1, 10, 1e-3, 1] + [0, 5, 1, -3]).astype(np.float32)


@pytest.mark.parametrize("parts", [1, 7, 60])
def test_moments_of_batches_are_numpys_moments_of_all_vectors(vectors, parts):
    batches = np.array_split(vectors, parts)
    expected = vectors.astype(np.float64)
    count, mean, squares = moments(batches)
    assert count == 60
    np.testing.assert_allclose(mean, expected.mean(0), rtol=1e-12)
    np.testing.assert_allclose(squares / count, expected.var(0), rtol=1e-12)
    count, mean, products = moments(batches, products=True)
    assert count == 60
    np.testing.assert_allclose(mean, expected.mean(0), rtol=1e-12)
    np.testing.assert_allclose(products / count, np.cov(expected.T, bias=True), atol=1e-12)


def test_a_small_variance_next_to_a_large_mean_is_kept(vectors):
    # Multiples of 1/16, which float64 holds exactly next to 2**30, but not their squares.
    small = np.round(vectors.astype(np.float64) * 16) / 16
    _, _, squares = moments(np.array_split(small + 2.0**30, 7))
    np.testing.assert_allclose(squares, 60 * small.var(0), rtol=1e-6, atol=1e-9)


def test_a_merge_gives_the_squares_between_two_groups(vectors):
    mean = RunningMean()
    mean.merge(20, vectors[:20].mean(0, dtype=np.float64))
    shift, weight = mean.merge(40, vectors[20:].mean(0, dtype=np.float64))
    expected = vectors.astype(np.float64)
    within = 20 * expected[:20].var(0) + 40 * expected[20:].var(0)
    assert mean.count == 60
    np.testing.assert_allclose(within + weight * shift**2, 60 * expected.var(0), rtol=1e-12)


def test_a_dimension_that_only_rounding_of_float64_moves_is_not_informative():
    mean = np.array([0.0, 1e-20, 1000.0, 1000.0, 3.0])
    deviation = np.array([1.0, 1e-20, 1e-10, 1e-5, 0.0])
    assert is_informative(mean, deviation).tolist() == [True, True, False, True, False]
    scale = standard_scale(mean, deviation)
    np.testing.assert_allclose(scale, [1.0, 1e20, 0.0, 1e5, 0.0])


def test_the_last_bit_of_a_float32_is_informative_even_if_one_image_in_100_000_has_it():
    values = np.full((100_000, 2), np.float32(1000.1))
    values[7, 0] = np.nextafter(values[7, 0], np.float32(2000))
    count, mean, squares = moments(np.array_split(values, 7))
    assert is_informative(mean, np.sqrt(squares / count)).tolist() == [True, False]
