"""Pictures made less sharp."""

import math

import tensorflow as tf


def soften(images: tf.Tensor, blur: float = 0.0, downscale: int = 1) -> tf.Tensor:
    """Shrinks pictures and enlarges them again, then blurs them.

    Args:
        images: float [N, S, S, 3]; S a multiple of `downscale`.
        blur: standard deviation of the Gaussian in pixels, cut at three of them; 0: none.
        downscale: whole factor to shrink by; 1: none.

    Returns:
        float32 [N, S, S, 3], in the same range.
    """
    if downscale > 1:
        images = downscaled(images, downscale)
    if blur:
        reach = math.ceil(3 * blur)
        weights = tf.exp(-0.5 * tf.square(tf.range(-reach, reach + 1, dtype=tf.float32) / blur))
        weights = tf.tile((weights / tf.reduce_sum(weights))[:, None, None, None], (1, 1, 3, 1))
        padded = tf.pad(images, [(0, 0), (reach, reach), (reach, reach), (0, 0)], "SYMMETRIC")
        for kernel in (weights, tf.transpose(weights, (1, 0, 2, 3))):
            padded = tf.nn.depthwise_conv2d(padded, kernel, (1, 1, 1, 1), "VALID")
        images = padded
    return images


def downscaled(images: tf.Tensor, factor: int) -> tf.Tensor:
    """Returns pictures as if enlarged from a smaller size.

    Args:
        images: float [N, S, S, 3].
        factor: the smaller size is S / factor, whole.

    Returns:
        float [N, S, S, 3], in the same range.
    """
    small = tf.nn.avg_pool2d(images, factor, factor, "VALID")
    return tf.image.resize(small, images.shape[1:3])
