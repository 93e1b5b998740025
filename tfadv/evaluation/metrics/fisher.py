"""What noise on features guarantees: the Fisher information bound on reconstruction error."""

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
    """Returns the diagonal Fisher information leakage (dFIL) of images with noisy features.

    dFIL = trace(FIM) / d with FIM = J'J / sigma^2, for features h(x) + sigma n, n standard normal:
    J is the Jacobian of h at the image, d the number of the image's values, S S 3 (Guo et al. 2022,
    Bounding Training Data Reconstruction in Private (Deep) Learning; Maeng et al. 2023, Bounding
    the Invertibility of Privacy-preserving Instance Encoding using Fisher Information Leakage).

    trace(J'J) is the mean of |J'v|^2 over vectors v of random signs (Hutchinson 1990), drawn for
    each image. If an image has no more features than `probes`, it is exact, from one gradient per
    feature. The estimate is unbiased. Its variance is
    2 (|JJ'|_F^2 - sum of the squares of JJ's diagonal) / probes, at most 2 / probes of its square,
    and `mse_bound` of the estimate is too high by that share on average.

    It uses gradients, not forward-mode products. These are None or 0 through a `tf.function` with
    batch normalisation in inference mode (TensorFlow 2.21), and 0 would look like privacy.

    Args:
        h: from float32 images [N, S, S, 3] in [-1, 1] to features without noise, float [N, ...].
            The features of an image must not depend on other images: batch normalisation in
            inference mode. h must be differentiable almost everywhere, with informative gradients:
            rounding has gradient 0, and no bound.
        images: in [-1, 1], [N, S, S, 3]; few enough for one gradient of all.
        sigma: standard deviation of the noise on each feature, above 0.
        probes: gradients per image.
        seed: of the random signs.

    Returns:
        In units of 1 / (a value of an image)^2, at least 0, float64 [N].

    Raises:
        ValueError: sigma is not above 0 and finite, or probes below 1; images are not
            [N, S, S, 3] in [-1, 1]; h does not give one row of features per image, has no gradient,
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
        signs = np.array([-1.0, 1.0], np.float32)
        vectors = (random.choice(signs, features.shape) for _ in range(probes))
    squares = [_squares(tape, features, images, vector) for vector in vectors]
    trace = np.sum(squares, axis=0) / (1 if count <= probes else probes)
    if not np.isfinite(trace).all():
        raise ValueError(f"h has gradients that are not finite at {(~np.isfinite(trace)).sum()}")
    return trace / (sigma**2 * np.prod(images.shape[1:]))


def mse_bound(leakage: np.ndarray) -> np.ndarray:
    """Returns the lower bound on the mean squared error of unbiased reconstructions, 1 / dFIL.

    1 / dFIL = d / trace(FIM). By the Cramer-Rao bound the error is at least trace(FIM^-1) / d. That
    is at least d / trace(FIM), since an arithmetic mean is at least the harmonic mean. The error is
    per value of an image in [-1, 1]; in [0, 255] units it is 127.5^2 times as large.

    Limits:

    - It bounds unbiased attackers only, which are right on average for every possible image. An
      attacker who knows that the image is a face, or just that values lie in [-1, 1], is biased and
      may do better. A grey guess beats a bound above the image's own mean square (at most 1). For
      such attackers Maeng et al. (2023) add the information of a known prior to dFIL (van Trees).
    - With fewer features than values of an image, FIM is singular and no attacker is unbiased. The
      number then says only how much features change with the image.
    - Noise that is not Gaussian, independent and of one sigma has another FIM and is not covered.
      Rounding or clipping after the noise leaks no more.
    - Noise must be fresh for each image sent: sending an image k times multiplies dFIL by k.

    Returns:
        Of dFIL [N], float64 [N]; infinite where dFIL is 0.

    Raises:
        ValueError: a value is negative or NaN.
    """
    leakage = np.asarray(leakage, np.float64)
    if not (leakage >= 0).all():
        raise ValueError(f"{(~(leakage >= 0)).sum()} values of dFIL are negative or NaN")
    with np.errstate(divide="ignore"):
        return 1.0 / leakage


def _checked(images: np.ndarray) -> tf.Tensor:
    """Images as float32, or a ValueError that names what is wrong."""
    images = np.asarray(images, np.float32)
    if images.ndim != 4 or images.shape[-1] != 3 or not images.size:
        raise ValueError(f"images {images.shape} must be [N, S, S, 3]")
    if not (np.abs(images) <= 1).all():
        raise ValueError("images must lie in [-1, 1]")
    return tf.constant(images)


def _rows(features: tf.Tensor, count: int) -> tf.Tensor:
    """Features of `count` images as [N, D], or a ValueError."""
    if features.shape.rank < 2 or features.shape[0] != count:
        raise ValueError(f"h must give [{count}, ...] of {count} images, not {features.shape}")
    return tf.reshape(features, (count, -1))


def _squares(
    tape: tf.GradientTape, features: tf.Tensor, images: tf.Tensor, vectors: np.ndarray
) -> np.ndarray:
    """|J'v|^2 for each image, of features [N, D] and vectors v [N, D]; float64 [N]."""
    gradient = tape.gradient(features, images, tf.cast(vectors, features.dtype))
    if gradient is None:
        raise ValueError("h has no gradient: TensorFlow must compute features from images")
    return np.square(gradient.numpy(), dtype=np.float64).sum(axis=(1, 2, 3))
