"""The protector: Enc and f trained against a simulated attacker Dec (Eq. 6 to 9, Figure 2)."""

import keras
import tensorflow as tf

from tfadv.data import normalise
from tfadv.losses import protector_loss, utility_loss


class Protector(keras.Model):
    """Trains Enc and f to do the task while Dec fails to turn Z = Enc(X) back into X.

    One step makes the paper's two updates: (a) Dec learns to invert, on public pictures X2, with
    Enc a black box, K times (once in the paper); (b) Enc and f learn the task and to fool the Dec
    just updated, on private pictures X1.

    A step's data is {"private": {"images", "labels"}, "public": {"images"}}: uint8 [N, S, S, 3],
    [N, A] and uint8 [N, K, S, S, 3]. Without an adversary, "public" is not looked at.

    Args:
        encoder: Enc, built: pictures in [-1, 1] to features.
        classifier: f, built: features to logits.
        adversary: Dec, and D and g as its losses need them; compiled. None trains the baseline
            without defence.
        lambda1: weight of the negative reconstruction loss in Eq. 9.
        lambda2: weight of the negative perceptual distance in Eq. 9; needs an adversary with g.
        warm_up: steps over which lambda1 and lambda2 grow from 0 to their values, so that Enc
            learns the task first.
    """

    def __init__(
        self,
        encoder,
        classifier,
        adversary=None,
        *,
        lambda1=0.0,
        lambda2=0.0,
        warm_up=0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if bool(lambda1 or lambda2) != (adversary is not None):
            needed = "an" if adversary is None else "no"
            raise ValueError(f"lambda1 = {lambda1} and lambda2 = {lambda2} need {needed} adversary")
        if lambda2 and adversary.g is None:
            raise ValueError(f"lambda2 = {lambda2} needs an adversary with g")
        self.encoder = encoder
        self.classifier = classifier
        self.adversary = adversary
        self.lambda1 = lambda1
        self.lambda2 = lambda2
        self.warm_up = warm_up

    @property
    def measurements(self) -> tuple[str, ...]:
        """The names of what `train_step` returns."""
        if self.adversary is None:
            return ("utility",)
        names = ["utility", "private_reconstruction"]
        if self.lambda2:
            names.append("private_perceptual")
        return (*names, "protector", *(f"public_{name}" for name in self.adversary.measurements))

    def compile(self, optimizer, **kwargs):
        """Takes the optimiser of Enc and f and builds it with their variables."""
        # XLA on a CPU makes these convolutions 4 to 5 times slower.
        kwargs.setdefault("jit_compile", False)
        super().compile(optimizer=optimizer, **kwargs)
        self.optimizer.build(self._private_variables)

    @property
    def _private_variables(self):
        return self.encoder.trainable_variables + self.classifier.trainable_variables

    def call(self, images, training=False):
        """Returns the task's logits, float32 [N, A], of pictures in [-1, 1]."""
        return self.classifier(self.encoder(images, training=training), training=training)

    def train_step(self, data):
        """Makes the updates (a) and (b); returns the losses, each over its batch."""
        losses = {}
        if self.adversary is not None:
            for images in tf.unstack(data["public"]["images"], axis=1):
                public = self._update_adversary(normalise(images))
                losses |= {f"public_{name}": loss for name, loss in public.items()}
        images, labels = data["private"]["images"], data["private"]["labels"]
        if self.adversary is not None:
            # Else TensorFlow starts (b) beside (a), and holds what both need for their gradients.
            with tf.control_dependencies([self._last_updated_by_adversary()]):
                images = tf.identity(images)
        return losses | self._update_encoder(normalise(images), labels)

    def _last_updated_by_adversary(self):
        """Dec's first kernel, whose gradient comes last."""
        return tf.convert_to_tensor(self.adversary.decoder.trainable_variables[0])

    @property
    def _strength(self):
        """What both lambda are multiplied by in this step."""
        if not self.warm_up:
            return 1.0
        return tf.minimum(1.0, tf.cast(self.optimizer.iterations.value, tf.float32) / self.warm_up)

    def _update_adversary(self, images):
        """Update (a): Dec and D by Eq. 5; no gradient reaches Enc, whose statistics stay too."""
        return self.adversary.update(images, self.encoder(images, training=False))

    def _update_encoder(self, images, labels):
        """Update (b): Enc and f minimise Eq. 9; Dec is held, its statistics too."""
        with tf.GradientTape() as tape:
            features = self.encoder(images, training=True)
            utility = utility_loss(labels, self.classifier(features, training=True))
            losses = {"utility": utility}
            total = utility
            if self.adversary is not None:
                private = self.adversary.distances(
                    images, self.adversary(features), perceptual=bool(self.lambda2)
                )
                losses |= {f"private_{name}": loss for name, loss in private.items()}
                total = protector_loss(
                    utility,
                    private["reconstruction"],
                    private.get("perceptual", 0.0),
                    self._strength * self.lambda1,
                    self._strength * self.lambda2,
                )
                losses["protector"] = total
        variables = self._private_variables
        self.optimizer.apply(tape.gradient(total, variables), variables)
        return losses
