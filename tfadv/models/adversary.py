"""The simulated attacker: a decoder, its discriminator and their update (Eq. 1 to 5).

The protector trains it in update (a). An attacker trains the same on the features of a black box.
"""

from collections.abc import Callable, Iterable, Sequence

import keras
import tensorflow as tf

from tfadv.models.losses import (
    adversarial_loss,
    discriminator_loss,
    perceptual_loss,
    reconstruction_loss,
)
from tfadv.models.vgg import mean_squares


class Adversary(keras.Model):
    """A decoder that learns to reconstruct images from features (Eq. 5).

    Args:
        decoder: Dec, built: features to images in [-1, 1].
        discriminator: D, built: images to logits; needed if and only if mu1 is above 0.
        perceptual_network: g, images in [-1, 1] to feature maps, for the perceptual distance; None
            if no loss needs it.
        mu1: weight of the adversarial loss (Eq. 2).
        mu2: weight of the perceptual distance (Eq. 4).
        saturating: whether the decoder minimises log(1 - D(X_hat)), as printed, instead of
            -log D(X_hat).

    Attributes:
        mean_squares: mean square of each layer of g on real images, float32 [L], set by `adapt`;
            None without g.
    """

    def __init__(
        self,
        decoder: keras.Model,
        discriminator: keras.Model | None = None,
        perceptual_network: Callable[[tf.Tensor], Sequence[tf.Tensor]] | None = None,
        *,
        mu1: float = 0.0,
        mu2: float = 0.0,
        saturating: bool = False,
    ):
        super().__init__(name="adversary")
        if bool(mu1) != (discriminator is not None):
            raise ValueError(f"mu1 = {mu1} needs {'a' if mu1 else 'no'} discriminator")
        if mu2 and perceptual_network is None:
            raise ValueError(f"mu2 = {mu2} needs a perceptual network")
        self.decoder = decoder
        self.discriminator = discriminator
        self.perceptual_network = perceptual_network
        self.mu1 = mu1
        self.mu2 = mu2
        self.saturating = saturating
        self.mean_squares = None
        if perceptual_network is not None:
            self.mean_squares = self.add_weight(
                shape=(len(perceptual_network.layers),),
                initializer="ones",
                trainable=False,
                name="mean_squares",
            )

    @property
    def measurements(self) -> tuple[str, ...]:
        """The names of the losses that `update` returns."""
        names = ["reconstruction"]
        if self.mu1:
            names += ["adversarial", "discriminator"]
        if self.mu2:
            names += ["perceptual"]
        return tuple(names)

    def compile(self, optimizer, discriminator_optimizer=None, **kwargs):
        """Sets the optimisers of decoder and discriminator, and builds them."""
        super().compile(optimizer=optimizer, **kwargs)
        self.optimizer.build(self.decoder.trainable_variables)
        self.discriminator_optimizer = discriminator_optimizer
        if self.discriminator is not None:
            discriminator_optimizer.build(self.discriminator.trainable_variables)

    def adapt(self, batches: Iterable[tf.Tensor]) -> None:
        """Measures the mean square of each layer of g on images, float [N, S, S, 3] in [-1, 1].

        Call it once, before the first step; checkpoints keep the result.
        """
        if self.perceptual_network is not None:
            self.mean_squares.assign(mean_squares(self.perceptual_network, batches))

    def call(self, features, training=False):
        """Returns reconstructions, float32 [N, S, S, 3] in [-1, 1]."""
        return self.decoder(features, training=training)

    def update(self, images: tf.Tensor, features: tf.Tensor) -> dict[str, tf.Tensor]:
        """Updates the discriminator, then the decoder, by Eq. 5; returns the losses by name.

        Args:
            images: X, float32 [N, S, S, 3] in [-1, 1].
            features: Z, float [N, ...]; no gradient flows through them.
        """
        losses, features = {}, tf.stop_gradient(features)
        with tf.GradientTape() as tape:
            reconstructions = self.decoder(features, training=True)
            if self.mu1:
                with tape.stop_recording():
                    losses["discriminator"] = self._update_discriminator(images, reconstructions)
            losses |= self.distances(images, reconstructions, perceptual=bool(self.mu2))
            total = self.distance(losses)
            if self.mu1:
                logits = self.discriminator(reconstructions, training=False)
                losses["adversarial"] = adversarial_loss(logits, self.saturating)
                total += self.mu1 * losses["adversarial"]
        variables = self.decoder.trainable_variables
        self.optimizer.apply(tape.gradient(total, variables), variables)
        return losses

    def _update_discriminator(self, images, reconstructions):
        with tf.GradientTape() as tape:
            # One pass over both, so that spectral normalisation takes one step.
            both = tf.concat([images, reconstructions], axis=0)
            real_logits, fake_logits = tf.split(self.discriminator(both, training=True), 2)
            loss = discriminator_loss(real_logits, fake_logits)
        variables = self.discriminator.trainable_variables
        self.discriminator_optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    def distances(self, images, reconstructions, *, perceptual: bool) -> dict[str, tf.Tensor]:
        """Returns L_p and, on request, L_perc between images and their reconstructions."""
        losses = {"reconstruction": reconstruction_loss(images, reconstructions)}
        if perceptual:
            losses["perceptual"] = perceptual_loss(
                self.perceptual_network(images),
                self.perceptual_network(reconstructions),
                self.mean_squares.value,
            )
        return losses

    def distance(self, losses: dict[str, tf.Tensor]) -> tf.Tensor:
        """Returns L_p + mu_2 L_perc: Eq. 5 without L_adv, which also changes as D learns."""
        total = losses["reconstruction"]
        return total + self.mu2 * losses["perceptual"] if self.mu2 else total
