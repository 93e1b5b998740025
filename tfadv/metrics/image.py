"""How near a reconstruction comes to the picture, pixel by pixel: SSIM and PSNR."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

_BATCH = 256  # keeps memory flat whatever the number of pictures
_RANGE = 2.0  # of values in [-1, 1]


def ssim(images: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    """Structural similarity of each picture and its reconstruction.

    `tf.image.ssim`: Gaussian window of 11 px and sigma 1.5, k1 0.01, k2 0.03, mean over the
    places where the window fits and over the channels (Wang et al. 2004).

    Args:
        images: Float in [-1, 1], [N, S, S, 3], S at least 11.
        reconstructions: The same.

    Returns:
        At most 1, which is identity; float32 [N].

    Raises:
        ValueError: Shapes differ, values are not floating point, or pictures are too small.
    """
    if min(np.shape(images)[1:3], default=0) < 11:
        raise ValueError(f"SSIM needs pictures of at least 11x11, not {np.shape(images)}")
    return _per_picture(tf.image.ssim, images, reconstructions)


def psnr(images: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of each picture and its reconstruction, in dB.

    Args:
        images: Float in [-1, 1], [N, S, S, 3].
        reconstructions: The same.

    Returns:
        10 log10(2^2 / mean squared error), infinite for identical pictures; float32 [N].

    Raises:
        ValueError: Shapes differ or values are not floating point.
    """
    return _per_picture(tf.image.psnr, images, reconstructions)


def _per_picture(
    metric: Callable[..., tf.Tensor], images: np.ndarray, reconstructions: np.ndarray
) -> np.ndarray:
    """Applies a metric of `tf.image` in batches."""
    if np.shape(images) != np.shape(reconstructions) or np.ndim(images) != 4:
        raise ValueError(
            f"images {np.shape(images)} and reconstructions {np.shape(reconstructions)} "
            "must both be [N, S, S, 3]"
        )
    for pictures in (images, reconstructions):
        if not np.issubdtype(pictures.dtype, np.floating):
            raise ValueError(f"pictures must be floating point in [-1, 1], not {pictures.dtype}")
    values = [
        metric(
            images[start : start + _BATCH].astype(np.float32),
            reconstructions[start : start + _BATCH].astype(np.float32),
            max_val=_RANGE,
        ).numpy()
        for start in range(0, len(images), _BATCH)
    ]
    return np.concatenate(values) if values else np.zeros(0, np.float32)
