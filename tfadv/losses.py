"""The paper's losses: tensors in, a scalar tensor out.

The paper's norms are means here, over pixels and channels and over the batch: summed, lambda_1 = 1
would drown the utility loss. Everything is computed in float32.
"""

import tensorflow as tf


def reconstruction_loss(images: tf.Tensor, reconstructions: tf.Tensor) -> tf.Tensor:
    """L_p, the pixel reconstruction loss: Eq. 1 for Dec and Dec^a, Eq. 7 for Enc.

    Args:
        images: X, float [N, S, S, 3] in [-1, 1].
        reconstructions: X_hat, of the same shape and range.

    Returns:
        The mean squared difference; between 0 and 4.
    """
    difference = tf.cast(reconstructions, tf.float32) - tf.cast(images, tf.float32)
    return tf.reduce_mean(tf.square(difference))


def utility_loss(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """L_u, Eq. 6, with binary cross entropy.

    Args:
        labels: Y, [N, A], 0 or 1.
        logits: f(Z), float [N, A].

    Returns:
        The mean over attributes and batch, in nats.
    """
    losses = tf.nn.sigmoid_cross_entropy_with_logits(
        labels=tf.cast(labels, tf.float32), logits=tf.cast(logits, tf.float32)
    )
    return tf.reduce_mean(losses)


def protector_loss(
    utility: tf.Tensor, reconstruction: tf.Tensor | float, lambda1: float
) -> tf.Tensor:
    """L_u - lambda_1 L_p, Eq. 9, what Enc and f minimise."""
    return utility - lambda1 * reconstruction
