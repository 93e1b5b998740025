"""Distance correlation: a differentiable measure of the dependence between two samples."""

import tensorflow as tf

_TINY = 1e-12


def distance_correlation(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Returns the bias-corrected squared distance correlation (Székely and Rizzo 2013, Eq. 2.11).

    Its expectation is 0 for independent samples. It is 1 if one sample is the other after rotation,
    translation and scaling.

    Args:
        one: float [N, ...], N at least 4.
        other: float [N, ...].

    Returns:
        A float32 scalar in [-1, 1]; 0 if a sample is constant.
    """
    a, b = _centred_distances(one), _centred_distances(other)
    scale = tf.reduce_sum(a * a) * tf.reduce_sum(b * b)
    is_defined = scale > _TINY
    safe = tf.where(is_defined, scale, 1.0)
    return tf.where(is_defined, tf.reduce_sum(a * b) * tf.math.rsqrt(safe), 0.0)


def _centred_distances(points: tf.Tensor) -> tf.Tensor:
    """Returns U-centred Euclidean distances, [N, N] (Székely and Rizzo 2014, Eq. 1.1).

    Distances are in units of their mean, so that the sums above have the same size at any scale.
    """
    points = tf.reshape(tf.cast(points, tf.float32), (tf.shape(points)[0], -1))
    points -= tf.reduce_mean(points, axis=0)  # else large norms cancel
    squares = tf.reduce_sum(tf.square(points), axis=1)
    squared = squares[:, None] + squares - 2.0 * tf.matmul(points, points, transpose_b=True)
    is_pair = 1.0 - tf.eye(tf.shape(points)[0])
    distances = tf.sqrt(tf.maximum(squared, _TINY)) * is_pair
    distances /= tf.maximum(tf.reduce_mean(distances), _TINY)
    count = tf.cast(tf.shape(points)[0], tf.float32)
    rows = tf.reduce_sum(distances, axis=1, keepdims=True) / (count - 2.0)
    total = tf.reduce_sum(distances) / ((count - 1.0) * (count - 2.0))
    return (distances - rows - tf.transpose(rows) + total) * is_pair
