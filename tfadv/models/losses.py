"""The paper's losses: tensors in, a scalar tensor out.

The paper's norms are means here, over pixels and channels and over the batch: summed, lambda_1 = 1
would drown the utility loss. Everything is computed in float32.
"""

from collections.abc import Sequence

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


def adversarial_loss(fake_logits: tf.Tensor, saturating: bool = False) -> tf.Tensor:
    """L_adv, Eq. 2, what Dec and Dec^a minimise to pass their pictures off as real.

    Args:
        fake_logits: of D(X_hat), the probability that X_hat is real; float [N].
        saturating: log(1 - D(X_hat)) as printed, at most 0; its gradient vanishes where D is sure.
            Otherwise -log D(X_hat), at least 0, which has the same fixed points (Goodfellow et al.
            2014, Section 3).

    Returns:
        The mean over the batch, in nats.
    """
    logits = tf.cast(fake_logits, tf.float32)
    # log(1 - sigmoid(x)) = -softplus(x) and -log sigmoid(x) = softplus(-x): stable at any logit.
    losses = -tf.nn.softplus(logits) if saturating else tf.nn.softplus(-logits)
    return tf.reduce_mean(losses)


def discriminator_loss(real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
    """-log D(X) - log(1 - D(X_hat)), what D minimises: Eq. 3 with its labels the usual way round.

    As printed, Eq. 3 has D maximise log(1 - D(X)) + log D(X_hat), so that D(X_hat) = 1 for a D that
    knows; Eq. 2 would then have Dec help D. With D(X) the probability that X is real, both hold.

    Args:
        real_logits: of D(X), float [N].
        fake_logits: of D(X_hat), float [N].

    Returns:
        The mean over the batch, in nats; 2 log 2 for a D that can't tell.
    """
    real = tf.nn.softplus(-tf.cast(real_logits, tf.float32))
    fake = tf.nn.softplus(tf.cast(fake_logits, tf.float32))
    return tf.reduce_mean(real) + tf.reduce_mean(fake)


def perceptual_loss(
    features: Sequence[tf.Tensor],
    reconstructed: Sequence[tf.Tensor],
    mean_squares: tf.Tensor,
) -> tf.Tensor:
    """L_perc, the perceptual distance: Eq. 4 for Dec and Dec^a, Eq. 8 for Enc.

    Args:
        features: g(X), a map [N, H, W, C] for each layer.
        reconstructed: g(X_hat), of the same shapes.
        mean_squares: of each layer's map over real pictures, float [L], above 0. Raw features of
            VGG19 are large and differ between weight files, so that a weight would mean nothing.

    Returns:
        The sum over layers of the mean squared difference as a share of the layer's mean square.
    """
    distances = [
        tf.reduce_mean(tf.square(tf.cast(one, tf.float32) - tf.cast(other, tf.float32)))
        for one, other in zip(features, reconstructed, strict=True)
    ]
    return tf.reduce_sum(tf.stack(distances) / tf.cast(mean_squares, tf.float32))


def feature_loss(embeddings: tf.Tensor, guesses: tf.Tensor) -> tf.Tensor:
    """The mean squared difference of M(Z) and C(X), Eq. 10.

    Args:
        embeddings: C(X), float [N, E].
        guesses: M(Z), float [N, E].

    Returns:
        The mean over embedding and batch.
    """
    return tf.reduce_mean(tf.square(tf.cast(guesses, tf.float32) - embeddings))


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


def protector_penalty(
    reconstruction: tf.Tensor | float,
    perceptual: tf.Tensor | float,
    lambda1: float,
    lambda2: float,
) -> tf.Tensor:
    """-lambda_1 L_p - lambda_2 L_perc: what Eq. 9 adds to L_u for Enc to minimise."""
    return -lambda1 * reconstruction - lambda2 * perceptual
