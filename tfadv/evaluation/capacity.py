"""How much a feature can carry, whoever reads it."""

import numpy as np

_FLOAT32 = 32.0  # bits


def most_bits(features: np.ndarray) -> float:
    """Returns the bits that one feature carries at most, as far as its values show.

    Each of its values adds the logarithm of the number of its distinct levels. No attacker, with
    whatever key, can learn more from a feature: 40 hard predictions carry 40 bits. A value that
    differs between more than half of the images counts as a float32, 32 bits: more levels would be
    seen with more images.

    Args:
        features: of different images, float32 [N, ...]; levels that none of them has are not seen.
    """
    vectors = np.sort(np.asarray(features, np.float32).reshape(len(features), -1), axis=0)
    levels = 1 + (np.diff(vectors, axis=0) != 0).sum(axis=0)
    return float(np.where(levels > len(vectors) / 2, _FLOAT32, np.log2(levels)).sum())
