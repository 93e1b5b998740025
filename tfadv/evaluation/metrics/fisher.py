"""What noise on features promises: the Fisher information bound on the error of reconstructions."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf


def dfil(
    h: Callable[[tf.Tensor], tf.Tensor],
    images: np.ndarray,
    sigma: float,
    probes: int = 32,
    seed: int = 0,
) -> np.ndarray:
    """The diagonal Fisher information leakage of pictures whose noisy features are sent.

    dFIL = trace(FIM) / d with FIM = J'J / sigma^2, for features h(x) + sigma n, n standard normal:
    J is the Jacobian of h at the picture, d the number of its values, S S 3 (Guo et al. 2022,
    Bounding Training Data Reconstruction in Private (Deep) Learning; Maeng et al. 2023, Bounding
    the Invertibility of Privacy-preserving Instance Encoding using Fisher Information Leakage).

    trace(J'J) is the mean of |J'v|^2 over vectors v of random signs (Hutchinson 1990), of which
    each picture has its own. Where a picture has no more features than `probes` it is exact, from
    one gradient per feature. The estimate is unbiased; its variance is
    2 (|JJ'|_F^2 - sum of the squares of JJ's diagonal) / probes, at most 2 / probes of its square,
    and `mse_bound` of it is too high by that share on average.

    Gradients, not forward-mode products: those are None or 0 through a `tf.function` with batch
    normalisation in inference mode (TensorFlow 2.21), and 0 would be taken for privacy.

    Args:
        h: from float32 pictures [N, S, S, 3] in [-1, 1] to features without noise, float [N, ...].
            Each picture's must not depend on the others: batch normalisation in inference mode. It
            must be differentiable almost everywhere, with gradients that say how it changes: what
            rounds has gradient 0, and no bound.
        images: in [-1, 1], [N, S, S, 3]; few enough for a gradient of all at a time.
        sigma: standard deviation of the noise on each feature, above 0.
        probes: gradients per picture.
        seed: of the random signs.

    Returns:
        In units of 1 / (a value of a picture)^2, at least 0, float64 [N].

    Raises:
        ValueError: sigma is not above 0 and finite, or probes below 1; pictures are not
            [N, S, S, 3] in [-1, 1]; h doesn't give a row of features for each, has no gradient,
            or one that is not finite.
    """
    if not 0 < sigma < np.inf:
        raise ValueError(f"sigma must be above 0 and finite, not {sigma!r}")
    if probes < 1:
        raise ValueError(f"probes must be at least 1, not {probes!r}")
    images = _checked(images)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(images)
        features = _rows(h(images), len(images))
    count = features.shape[1]
    if count <= probes:
        vectors = (np.tile(row, (len(images), 1)) for row in np.eye(count, dtype=np.float32))
    else:
        random = np.random.default_rng(seed)
        vectors = (_signs(random, features.shape) for _ in range(probes))
    squares = [_squares(tape, features, images, vector) for vector in vectors]
    trace = np.sum(squares, axis=0) / (1 if count <= probes else probes)
    if not np.isfinite(trace).all():
        raise ValueError(f"h has gradients that are not finite at {(~np.isfinite(trace)).sum()}")
    return trace / (sigma**2 * np.prod(images.shape[1:]))


def mse_bound(leakage: np.ndarray) -> np.ndarray:
    """The least mean squared error of an unbiased reconstruction: 1 / dFIL = d / trace(FIM).

    By the Cramer-Rao bound the error is at least trace(FIM^-1) / d, and that is at least
    d / trace(FIM), since an arithmetic mean is no less than the harmonic one. The error is per
    value of a picture in [-1, 1]: in [0, 255] units, 127.5^2 times it.

    What it doesn't promise:

    - It binds unbiased attackers only, right on average for every picture there is. Whoever knows
      anything beforehand, such as that it is a face, or just that values lie in [-1, 1], is biased
      and may do better. A bound above the picture's own mean square (at most 1) is beaten by who
      guesses grey and never looks. For them Maeng et al. (2023) add the information of the prior
      to dFIL (van Trees), which must be known.
    - Where features are fewer than the values of a picture, FIM is singular and there is no
      unbiased attacker to bind. The number then says only how much features move with the picture.
    - Noise that isn't Gaussian, independent and of one sigma has another FIM and isn't covered;
      what is rounded or clipped after the noise is added leaks no more.
    - Noise must be fresh and sent once: k sendings of one picture multiply dFIL by k.

    Args:
        leakage: dFIL as from `dfil`, [N].

    Returns:
        float64 [N]; infinite where dFIL is 0.

    Raises:
        ValueError: a value is negative or NaN.
    """
    leakage = np.asarray(leakage, np.float64)
    if not (leakage >= 0).all():
        raise ValueError(f"{(~(leakage >= 0)).sum()} values of dFIL are negative or NaN")
    with np.errstate(divide="ignore"):
        return 1.0 / leakage


def _checked(images: np.ndarray) -> tf.Tensor:
    """Pictures as float32, or a ValueError that names what is wrong."""
    images = np.asarray(images, np.float32)
    if images.ndim != 4 or images.shape[-1] != 3 or not images.size:
        raise ValueError(f"pictures {images.shape} must be [N, S, S, 3]")
    if not (np.abs(images) <= 1).all():
        raise ValueError("pictures must lie in [-1, 1]")
    return tf.constant(images)


def _rows(features: tf.Tensor, count: int) -> tf.Tensor:
    """Features of `count` pictures as [N, D], or a ValueError."""
    if features.shape.rank < 2 or features.shape[0] != count:
        raise ValueError(f"h must give [{count}, ...] of {count} pictures, not {features.shape}")
    return tf.reshape(features, (count, -1))


def _squares(
    tape: tf.GradientTape, features: tf.Tensor, images: tf.Tensor, vectors: np.ndarray
) -> np.ndarray:
    """|J'v|^2 of each picture and its vector, of features and vectors [N, D]; float64 [N]."""
    gradient = tape.gradient(features, images, tf.cast(vectors, features.dtype))
    if gradient is None:
        raise ValueError("h has no gradient: features must come from pictures by TensorFlow")
    return np.square(gradient.numpy(), dtype=np.float64).sum(axis=(1, 2, 3))


def _signs(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return random.choice(np.array([-1.0, 1.0], np.float32), shape)
