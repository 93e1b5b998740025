import numpy as np
import pytest

from tfadv.evaluation.capacity import most_bits


def test_hard_predictions_carry_a_bit_each():
    random = np.random.default_rng(0)
    assert most_bits(random.choice([-1.0, 1.0], (500, 40))) == 40


def test_levels_count_by_their_logarithm_and_constants_not_at_all():
    values = np.stack([np.arange(64) % 8, np.arange(64) % 3, np.ones(64)], axis=1)
    assert most_bits(values) == pytest.approx(3 + np.log2(3))


def test_values_that_differ_between_images_count_as_floats():
    assert most_bits(np.random.default_rng(0).normal(size=(100, 2, 2, 3))) == 12 * 32


def test_the_last_bit_of_a_float_is_a_level():
    ones = np.float32([1.0, np.nextafter(np.float32(1), np.float32(2))])
    assert most_bits(ones[np.arange(50) % 2][:, None]) == 1
