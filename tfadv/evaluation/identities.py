"""Which images show the same person. Identities are integers, and -1 is unknown."""

import numpy as np


def number_people(identities: np.ndarray) -> np.ndarray:
    """Returns the number of the person in each image, from 0, int [N], of identities [N].

    Each unknown identity counts as a person of its own. Known people come first, in the order of
    their identities, then the unknown ones, in the order of the images.

    Raises:
        ValueError: identities are not integers [N].
    """
    identities = np.asarray(identities)
    if identities.ndim != 1 or not np.issubdtype(identities.dtype, np.integer):
        raise ValueError(
            f"identities must be integers [N], not {identities.dtype} {identities.shape}"
        )
    is_known = identities >= 0
    people, known = np.unique(identities[is_known], return_inverse=True)
    person = np.empty(len(identities), np.intp)
    person[is_known] = known
    person[~is_known] = len(people) + np.arange(np.count_nonzero(~is_known))
    return person


def repeated_people(identities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images of known people who have at least two, of identities [N].

    Returns:
        Positions of the images, ascending, [M]; and the number of the person in each, from 0, in
        the order of the identities, [M].

    Raises:
        ValueError: as `number_people`.
    """
    person = number_people(identities)
    positions = np.flatnonzero(np.bincount(person)[person] > 1)
    return positions, np.unique(person[positions], return_inverse=True)[1]
