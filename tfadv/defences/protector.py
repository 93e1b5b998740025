"""The protector: encoder and classifier, trained against simulated attackers (Eq. 6 to 9)."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from tfadv.data.images import normalize
from tfadv.defences.terms import Defence
from tfadv.models.layers import track
from tfadv.models.losses import utility_loss

TOTAL = "protector"  # the name of the sum of all loss terms


class Protector(keras.Model):
    """Trains encoder and classifier for the task, with the loss terms of its defences.

    With the paper's defence, one step makes two updates. Update (a): the decoder learns to invert
    the encoder, a black box, on public images X2; K times, once in the paper. Update (b): encoder
    and classifier learn the task and to fool the updated decoder, on private images X1.

    A step's data is {"private": {"images", "labels", further inputs of the defences}, "public":
    {"images"}}: uint8 [N, S, S, 3], [N, A], and uint8 [N, K, S, S, 3]. "public" is needed only by
    an adversary that learns from public images.

    Args:
        encoder: built: images in [-1, 1] to features. The loss of a variational bottleneck in it
            counts like a defence's term.
        classifier: built: features to logits.
        defences: terms; those with an adversary compiled. None trains an unprotected encoder.
        warm_up: steps in which the weight of all terms grows from 0, so that the encoder learns the
            task first.
    """

    def __init__(self, encoder, classifier, defences: Sequence[Defence] = (), *, warm_up=0):
        super().__init__()
        self.encoder = encoder
        self.classifier = classifier
        self.defences = track(self, "defence", defences)
        self.warm_up = warm_up

    @property
    def measurements(self) -> tuple[str, ...]:
        """The names of the losses that `train_step` returns."""
        names = ["utility"]
        for defence in self.defences:
            names += [f"private_{name}" for name in defence.measurements]
        if self._is_variational:
            names.append("private_bottleneck")
        if len(names) > 1:
            names.append(TOTAL)
        for defence in self.defences:
            names += [f"{defence.learns_from}_{name}" for name in defence.update_measurements]
        return tuple(names)

    @property
    def _is_variational(self):
        bottleneck = getattr(self.encoder, "bottleneck", None)
        return bottleneck is not None and bool(bottleneck.variational)

    def compile(self, optimizer, **kwargs):
        """Sets the optimiser of encoder and classifier, and builds it."""
        # XLA on a CPU makes these convolutions 4 to 5 times slower.
        kwargs.setdefault("jit_compile", False)
        super().compile(optimizer=optimizer, **kwargs)
        self.optimizer.build(self._private_variables)

    @property
    def _private_variables(self):
        return self.encoder.trainable_variables + self.classifier.trainable_variables

    def call(self, images, training=False):
        """Returns the task's logits, float32 [N, A], for images in [-1, 1]."""
        return self.classifier(self.encoder(images, training=training), training=training)

    def train_step(self, data):
        """Makes updates (a) and (b); returns the losses, each over its batch."""
        losses, private = {}, dict(data["private"])
        learners = [defence for defence in self.defences if defence.learns_from == "public"]
        if learners:
            for images in tf.unstack(data["public"]["images"], axis=1):
                losses |= self._update_adversaries(learners, normalize(images))
            # Else TensorFlow runs (b) at the same time as (a), and keeps the activations of both.
            with tf.control_dependencies([_last_updated(defence) for defence in learners]):
                private["images"] = tf.identity(private["images"])
        return losses | self._update_encoder(private | {"images": normalize(private["images"])})

    @property
    def _strength(self):
        """The factor of all terms in this step, from 0 to 1."""
        if not self.warm_up:
            return 1.0
        return tf.minimum(1.0, tf.cast(self.optimizer.iterations.value, tf.float32) / self.warm_up)

    def _update_adversaries(self, learners, images):
        """Makes update (a); the encoder's weights and statistics stay unchanged."""
        features, losses = self.encoder(images, training=False), {}
        for defence in learners:
            measured = defence.update({"images": images}, features)
            losses |= {f"public_{name}": loss for name, loss in measured.items()}
        return losses

    def _update_encoder(self, batch):
        """Makes update (b): minimises the task's loss and all terms; adversaries stay unchanged."""
        learned = {}
        with tf.GradientTape() as tape:
            if self._is_variational:
                features, divergence = self.encoder.penalized(batch["images"], training=True)
            else:
                features = self.encoder(batch["images"], training=True)
            utility = utility_loss(batch["labels"], self.classifier(features, training=True))
            losses, penalties = {"utility": utility}, []
            for defence in self.defences:
                if defence.learns_from == "private":
                    with tape.stop_recording():
                        measured = defence.update(batch, tf.stop_gradient(features))
                    learned |= {f"private_{name}": loss for name, loss in measured.items()}
                measured, penalty = defence.penalize(batch, features)
                losses |= {f"private_{name}": loss for name, loss in measured.items()}
                penalties.append(penalty)
            if self._is_variational:
                losses["private_bottleneck"] = divergence
                penalties.append(divergence)
            total = utility
            if penalties:
                total += self._strength * tf.add_n(penalties)
                losses[TOTAL] = total
        variables = self._private_variables
        self.optimizer.apply(tape.gradient(total, variables), variables)
        return losses | learned


def _last_updated(defence):
    """Returns the adversary's first kernel, whose gradient is computed last."""
    return tf.convert_to_tensor(defence.trainable_variables[0])
