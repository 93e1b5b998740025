import numpy as np
import pytest

from tfadv.config.errors import UserError
from tfadv.defences.batches import known_identities


class People:
    """A dataset whose private images show these people."""

    def __init__(self, identities):
        self.identities = np.array(identities)
        self.description = {"name": "faces/1.0.0"}

    def annotations(self, split, part):
        assert (split, part) == ("private", "train")
        return self.identities, None


def test_people_are_numbered_and_unknown_ones_are_minus_1():
    found = known_identities(People([70, -1, 5, 70, 9]))
    np.testing.assert_array_equal(found, [2, -1, 0, 2, 1])


@pytest.mark.parametrize(("identities", "count"), [([-1, -1], 0), ([3, 3, -1], 1)])
def test_hiding_identities_needs_two_known_people(identities, count):
    message = rf"max_entropy needs at least two .* of faces/1\.0\.0, which has {count}; prepare the"
    with pytest.raises(UserError, match=message):
        known_identities(People(identities))
