import numpy as np
import pytest

from tfadv.evaluation.identities import number_people, repeated_people

IDENTITIES = np.array([7, -1, 3, 7, -1, 9, 3])


def test_people_are_numbered_in_the_order_of_identities_and_unknown_ones_count_singly():
    assert number_people(IDENTITIES).tolist() == [1, 3, 0, 1, 4, 2, 0]
    assert number_people(np.array([], int)).tolist() == []


def test_repeated_people_are_those_known_with_at_least_two_images():
    positions, person = repeated_people(IDENTITIES)
    assert positions.tolist() == [0, 2, 3, 6]
    assert person.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("identities", [[], [-1, -1], [4, 5, -1]])
def test_nobody_is_repeated(identities):
    positions, person = repeated_people(np.array(identities, int))
    assert positions.tolist() == person.tolist() == []


@pytest.mark.parametrize("measure", [number_people, repeated_people])
def test_identities_must_be_integers_in_a_row(measure):
    with pytest.raises(ValueError, match=r"must be integers \[N\], not float64 \(1,\)"):
        measure(np.array([0.5]))
    with pytest.raises(ValueError, match=r"must be integers \[N\], not int64 \(2, 2\)"):
        measure(np.zeros((2, 2), int))
