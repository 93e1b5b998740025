"""The paper's losses: functions from tensors to a scalar tensor, computed in float32.

The paper's norms are means here, over pixels and channels and over the batch. As sums, they would
dwarf the utility loss at lambda_1 = 1.
"""

from collections.abc import Sequence

import tensorflow as tf


def reconstruction_loss(images: tf.Tensor, reconstructions: tf.Tensor) -> tf.Tensor:
    """Returns L_p, the pixel reconstruction loss: Eq. 1 for Dec and Dec^a, Eq. 7 for Enc.

    Args:
        images: X, float [N, S, S, 3] in [-1, 1].
        reconstructions: X_hat, of the same shape and range.

    Returns:
        The mean squared difference; between 0 and 4.
    """
    difference = tf.cast(reconstructions, tf.float32) - tf.cast(images, tf.float32)
    return tf.reduce_mean(tf.square(difference))


def adversarial_loss(fake_logits: tf.Tensor, saturating: bool = False) -> tf.Tensor:
    """Returns L_adv, Eq. 2, which Dec and Dec^a minimise so that D takes their images for real.

    Args:
        fake_logits: of D(X_hat), the probability that X_hat is real; float [N].
        saturating: whether the loss is log(1 - D(X_hat)) as printed, at most 0; its gradient
            vanishes where D is sure. Otherwise it is -log D(X_hat), at least 0, which has the same
            fixed points (Goodfellow et al. 2014, Section 3).

    Returns:
        The mean over the batch, in nats.
    """
    logits = tf.cast(fake_logits, tf.float32)
    # Stable at any logit: log(1 - sigmoid(x)) = -softplus(x), -log sigmoid(x) = softplus(-x).
    losses = -tf.nn.softplus(logits) if saturating else tf.nn.softplus(-logits)
    return tf.reduce_mean(losses)


def discriminator_loss(real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
    """Returns -log D(X) - log(1 - D(X_hat)), which D minimises: Eq. 3 with swapped labels.

    As printed, Eq. 3 has D maximise log(1 - D(X)) + log D(X_hat), so that a perfect D has
    D(X_hat) = 1, and Dec would help D in Eq. 2. Here D(X) is the probability that X is real.

    Args:
        real_logits: of D(X), float [N].
        fake_logits: of D(X_hat), float [N].

    Returns:
        The mean over the batch, in nats; 2 log 2 if D = 1/2 everywhere.
    """
    real = tf.nn.softplus(-tf.cast(real_logits, tf.float32))
    fake = tf.nn.softplus(tf.cast(fake_logits, tf.float32))
    return tf.reduce_mean(real) + tf.reduce_mean(fake)


def perceptual_loss(
    features: Sequence[tf.Tensor],
    reconstructed: Sequence[tf.Tensor],
    mean_squares: tf.Tensor,
) -> tf.Tensor:
    """Returns L_perc, the perceptual distance: Eq. 4 for Dec and Dec^a, Eq. 8 for Enc.

    Args:
        features: g(X), a map [N, H, W, C] for each layer.
        reconstructed: g(X_hat), of the same shapes.
        mean_squares: of each layer's map over real images, float [L], above 0. Without them, a
            loss weight would depend on the scale of VGG19's features in a weight file.

    Returns:
        The sum over layers of the mean squared difference, divided by the layer's mean square.
    """
    distances = [
        tf.reduce_mean(tf.square(tf.cast(one, tf.float32) - tf.cast(other, tf.float32)))
        for one, other in zip(features, reconstructed, strict=True)
    ]
    return tf.reduce_sum(tf.stack(distances) / tf.cast(mean_squares, tf.float32))


def feature_loss(embeddings: tf.Tensor, guesses: tf.Tensor) -> tf.Tensor:
    """Returns the mean squared difference between M(Z) and C(X), Eq. 10.

    Args:
        embeddings: C(X), float [N, E].
        guesses: M(Z), float [N, E].

    Returns:
        The mean over embedding and batch.
    """
    return tf.reduce_mean(tf.square(tf.cast(guesses, tf.float32) - embeddings))


def utility_loss(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns L_u, Eq. 6, as binary cross entropy.

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
