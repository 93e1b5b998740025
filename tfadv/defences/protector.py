"""The protector: Enc and f trained for a task and against defences' adversaries (Eq. 6 to 9)."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from tfadv.data.images import normalize
from tfadv.defences.terms import Defence
from tfadv.models.layers import track
from tfadv.models.losses import utility_loss


class Protector(keras.Model):
    """Trains Enc and f to do the task while the terms of a defence hold.

    With the paper's, one step makes the paper's two updates: (a) Dec learns to invert, on public
    pictures X2, with Enc a black box, K times (once in the paper); (b) Enc and f learn the task and
    to fool the Dec just updated, on private pictures X1. Any number of terms can stand in its place
    or beside it.

    A step's data is {"private": {"images", "labels", and what the defences need}, "public":
    {"images"}}: uint8 [N, S, S, 3], [N, A] and uint8 [N, K, S, S, 3]. Where no adversary learns
    from public pictures, "public" is not looked at.

    Args:
        encoder: Enc, built: pictures in [-1, 1] to features. A penalty of its code counts, too.
        classifier: f, built: features to logits.
        defences: terms; those that have an adversary are compiled. None trains the baseline.
        warm_up: steps over which all terms grow from 0 to their weights, so that Enc learns the
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
        """The names of what `train_step` returns."""
        names = ["utility"]
        for defence in self.defences:
            names += [f"private_{name}" for name in defence.measurements]
        if self._bottleneck_is_penalised:
            names.append("private_bottleneck")
        if len(names) > 1:
            names.append("protector")
        for defence in self.defences:
            source = defence.learns_from
            names += [f"{source}_{name}" for name in defence.update_measurements]
        return tuple(names)

    @property
    def _bottleneck_is_penalised(self):
        bottleneck = getattr(self.encoder, "bottleneck", None)
        return bottleneck is not None and bool(bottleneck.variational)

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
        losses, private = {}, dict(data["private"])
        learners = [defence for defence in self.defences if defence.learns_from == "public"]
        if learners:
            for images in tf.unstack(data["public"]["images"], axis=1):
                losses |= self._update_adversaries(learners, normalize(images))
            # Else TensorFlow starts (b) beside (a), and holds what both need for their gradients.
            with tf.control_dependencies([_last_updated(each) for each in learners]):
                private["images"] = tf.identity(private["images"])
        return losses | self._update_encoder(private | {"images": normalize(private["images"])})

    @property
    def _strength(self):
        """What all terms are multiplied by in this step."""
        if not self.warm_up:
            return 1.0
        return tf.minimum(1.0, tf.cast(self.optimizer.iterations.value, tf.float32) / self.warm_up)

    def _update_adversaries(self, learners, images):
        """Update (a): no gradient reaches Enc, whose statistics stay too."""
        features, losses = self.encoder(images, training=False), {}
        for defence in learners:
            measured = defence.update({"images": images}, features)
            losses |= {f"public_{name}": loss for name, loss in measured.items()}
        return losses

    def _update_encoder(self, batch):
        """Update (b): Enc and f minimise the task's loss and all terms; adversaries are held."""
        learned = {}
        with tf.GradientTape() as tape:
            if self._bottleneck_is_penalised:
                features, kl = self.encoder.penalised(batch["images"], training=True)
            else:
                features = self.encoder(batch["images"], training=True)
            utility = utility_loss(batch["labels"], self.classifier(features, training=True))
            losses, penalties = {"utility": utility}, []
            for defence in self.defences:
                if defence.learns_from == "private":
                    with tape.stop_recording():
                        measured = defence.update(batch, tf.stop_gradient(features))
                    learned |= {f"private_{name}": loss for name, loss in measured.items()}
                measured, penalty = defence.penalise(batch, features)
                losses |= {f"private_{name}": loss for name, loss in measured.items()}
                penalties.append(penalty)
            if self._bottleneck_is_penalised:
                losses["private_bottleneck"] = kl
                penalties.append(kl)
            total = utility
            if penalties:
                total += self._strength * tf.add_n(penalties)
                losses["protector"] = total
        variables = self._private_variables
        self.optimizer.apply(tape.gradient(total, variables), variables)
        return losses | learned


def _last_updated(defence):
    """An adversary's first kernel, whose gradient comes last."""
    return tf.convert_to_tensor(defence.trainable_variables[0])
