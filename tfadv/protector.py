"""The protector: Enc and f trained against a simulated attacker Dec (Eq. 5 to 9, Figure 2)."""

import keras
import tensorflow as tf

from tfadv.data import normalise
from tfadv.losses import protector_loss, reconstruction_loss, utility_loss


class Protector(keras.Model):
    """Trains Enc and f to do the task while Dec fails to turn Z = Enc(X) back into X.

    One step makes the paper's two updates: (a) Dec learns to invert, on public pictures X2, with
    Enc a black box; (b) Enc and f learn the task and to fool the Dec just updated, on private
    pictures X1.

    A step's data is {"private": {"images", "labels"}, "public": {"images"}}: uint8 [N, S, S, 3],
    [N, A] and uint8 [N * decoder_steps, S, S, 3]. Without a decoder, "public" is not looked at.

    Args:
        encoder: Enc, built: pictures in [-1, 1] to features.
        classifier: f, built: features to logits.
        decoder: Dec, built: features to pictures in [-1, 1]; None trains the baseline without
            defence.
        lambda1: weight of the negative reconstruction loss in Eq. 9.
        decoder_steps: updates (a) for each update (b); 1 in the paper.
    """

    def __init__(
        self, encoder, classifier, decoder=None, *, lambda1=0.0, decoder_steps=1, **kwargs
    ):
        super().__init__(**kwargs)
        if bool(lambda1) != (decoder is not None):
            raise ValueError(f"lambda1 = {lambda1} needs {'a' if lambda1 else 'no'} decoder")
        self.encoder = encoder
        self.classifier = classifier
        self.decoder = decoder
        self.lambda1 = lambda1
        self.decoder_steps = decoder_steps

    @property
    def measurements(self) -> tuple[str, ...]:
        """The names of what `train_step` returns."""
        if self.decoder is None:
            return ("utility",)
        return ("utility", "private_reconstruction", "protector", "public_reconstruction")

    def compile(self, optimizer, decoder_optimizer=None, **kwargs):
        """Takes the optimiser of Enc and f, and that of Dec; builds both with their variables."""
        # XLA on a CPU makes these convolutions 4 to 5 times slower.
        kwargs.setdefault("jit_compile", False)
        super().compile(optimizer=optimizer, **kwargs)
        self.optimizer.build(self._private_variables)
        self.decoder_optimizer = decoder_optimizer
        if self.decoder is not None:
            self.decoder_optimizer.build(self.decoder.trainable_variables)

    @property
    def _private_variables(self):
        return self.encoder.trainable_variables + self.classifier.trainable_variables

    def call(self, images, training=False):
        """Returns the task's logits, float32 [N, A], of pictures in [-1, 1]."""
        return self.classifier(self.encoder(images, training=training), training=training)

    def train_step(self, data):
        """Makes the updates (a) and (b); returns the losses, each over its batch."""
        losses = {}
        if self.decoder is not None:
            for images in tf.split(data["public"]["images"], self.decoder_steps):
                losses["public_reconstruction"] = self._update_decoder(normalise(images))
        private = data["private"]
        return losses | self._update_encoder(normalise(private["images"]), private["labels"])

    def _update_decoder(self, images):
        """Update (a): Dec minimises Eq. 5; no gradient reaches Enc, whose statistics stay too."""
        features = tf.stop_gradient(self.encoder(images, training=False))
        with tf.GradientTape() as tape:
            loss = reconstruction_loss(images, self.decoder(features, training=True))
        variables = self.decoder.trainable_variables
        self.decoder_optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    def _update_encoder(self, images, labels):
        """Update (b): Enc and f minimise Eq. 9; Dec is held, its statistics too."""
        with tf.GradientTape() as tape:
            features = self.encoder(images, training=True)
            utility = utility_loss(labels, self.classifier(features, training=True))
            losses = {"utility": utility}
            total = utility
            if self.decoder is not None:
                reconstructions = self.decoder(features, training=False)
                reconstruction = reconstruction_loss(images, reconstructions)
                total = protector_loss(utility, reconstruction, self.lambda1)
                losses |= {"private_reconstruction": reconstruction, "protector": total}
        variables = self._private_variables
        self.optimizer.apply(tape.gradient(total, variables), variables)
        return losses
