"""f's answers in the place of features: the least that a service can be sent."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tfadv.models.bottleneck import add_key, uniform_by_picture
from tfadv.models.classifier import Classifier
from tfadv.models.encoder import Encoder


class PredictionOutput(keras.Model):
    """Enc and f in one: what leaves is f's logits, or its answers.

    Args:
        encoder: arguments of `Encoder`.
        classifier: arguments of `Classifier`, whose attributes are A.
        hard: whether what leaves is 1 where an attribute is there and -1 where it isn't; else its
            logit.
        flip: chance that a hard answer is turned round before it leaves: randomised response
            (Warner 1965), fixed by the picture as `code.Noise` is.
        dtype: Keras dtype policy; None is the global one.
        name: name of the model.

    Attributes:
        thresholds: logits from which on an attribute is there, float32 [A]; 0 unless assigned. They
            are taken off the logits.
    """

    def __init__(
        self,
        encoder: Mapping[str, Any],
        classifier: Mapping[str, Any],
        hard: bool,
        flip: float = 0.0,
        dtype: keras.DTypePolicy | str | None = None,
        name: str = "answers",
    ):
        if flip and not hard:
            raise ValueError(f"flip {flip}: only hard answers can be turned round")
        super().__init__(dtype=dtype, name=name, autocast=False)
        self.encoder = Encoder(**encoder, dtype=dtype)
        self.classifier = Classifier(**classifier, dtype=dtype)
        self.hard = hard
        self.flip = flip
        self.split = self.encoder.split
        self.key = add_key(self) if flip else None
        self.thresholds = self.add_weight(
            shape=(self.classifier.attributes,),
            initializer="zeros",
            dtype="float32",
            trainable=False,
            name="thresholds",
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates all variables, for pictures [N, S, S, 3]."""
        self.encoder.build(input_shape)
        self.classifier.build((None, *self.encoder.feature_shape(input_shape[1])))

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """PredictionOutput for pictures, float [N, S, S, 3] in [-1, 1]: float32 [N, A]."""
        features = self.encoder(images, training=training)
        logits = self.classifier(features, training=training) - self.thresholds.value
        if not self.hard:
            return logits
        answers = tf.where(logits > 0.0, 1.0, -1.0)
        if self.flip:
            chances = uniform_by_picture(images, self.key.value, answers.shape[1])
            answers = tf.where(chances < self.flip, -answers, answers)
        return answers

    def feature_shape(self, size: int) -> tuple[int, ...]:
        """Shape of one picture's answers: (A,)."""
        return (self.classifier.attributes,)

    def get_config(self) -> dict:
        """The arguments that give this architecture again; precision is not one of them."""
        networks = {"encoder": self.encoder, "classifier": self.classifier}
        networks = {name: each.get_config() for name, each in networks.items()}
        return networks | {"hard": self.hard, "flip": self.flip}


class Identity(keras.Model):
    """f of an encoder whose features are the answers: it gives them back."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """There is nothing to create."""

    def call(self, features: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the features, [N, A], as logits."""
        return features

    def get_config(self) -> dict:
        """There are no arguments."""
        return {}
