"""An encoder whose features are the predictions of its own classifier."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfadv.models.bottleneck import add_key, uniform_by_image
from tfadv.models.classifier import Classifier
from tfadv.models.encoder import Encoder


class PredictionOutput(keras.Model):
    """Encoder and classifier in one: its output is the classifier's predictions.

    Args:
        encoder: arguments of `Encoder`.
        classifier: arguments of `Classifier`, whose attributes are A.
        hard: whether a prediction is 1 (yes) or -1 (no); else it is the logit.
        flip: probability that a hard prediction is flipped: randomised response (Warner 1965). As
            in `bottleneck.Noise`, an image always gets the same output.
        dtype: Keras dtype policy; None is the global one.

    Attributes:
        thresholds: float32 [A], subtracted from the logits; 0 unless assigned. A prediction is yes
            if its logit is above its threshold.

    Raises:
        ValueError: `flip` without `hard`.
    """

    def __init__(
        self,
        encoder: Mapping[str, Any],
        classifier: Mapping[str, Any],
        hard: bool,
        flip: float = 0.0,
        dtype: keras.DTypePolicy | str | None = None,
    ):
        if flip and not hard:
            raise ValueError(f"flip is {flip}: only hard predictions can be flipped")
        super().__init__(dtype=dtype, name="predictions", autocast=False)
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
        """Creates all variables, for images [N, S, S, 3]."""
        self.encoder.build(input_shape)
        self.classifier.build((None, *self.encoder.feature_shape(input_shape[1])))

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns predictions, float32 [N, A], for images, float [N, S, S, 3] in [-1, 1]."""
        features = self.encoder(images, training=training)
        logits = self.classifier(features, training=training) - self.thresholds.value
        if not self.hard:
            return logits
        predictions = tf.where(logits > 0.0, 1.0, -1.0)
        if self.flip:
            chances = uniform_by_image(images, self.key.value, predictions.shape[1])
            predictions = tf.where(chances < self.flip, -predictions, predictions)
        return predictions

    def feature_shape(self, size: int) -> tuple[int, ...]:
        """Returns the shape of one image's output: (A,)."""
        return (self.classifier.attributes,)

    def get_config(self) -> dict:
        """Returns the arguments that rebuild this architecture, without the precision."""
        return {
            "encoder": self.encoder.get_config(),
            "classifier": self.classifier.get_config(),
            "hard": self.hard,
            "flip": self.flip,
        }


def predictions_as_features(
    encoder: Encoder,
    classifier: Classifier,
    thresholds: np.ndarray,
    size: int,
    *,
    hard: bool,
    flip: float,
) -> tuple[PredictionOutput, keras.layers.Identity]:
    """Returns a trained encoder and classifier in one, and the classifier of its predictions.

    Args:
        encoder: built.
        classifier: built.
        thresholds: of the classifier's logits, [A].
        size: S, side of the images in pixels.
        hard: as for `PredictionOutput`.
        flip: as for `PredictionOutput`.
    """
    output = PredictionOutput(encoder.get_config(), classifier.get_config(), hard, flip)
    output.build((None, size, size, 3))
    output.encoder.set_weights(encoder.get_weights())
    output.classifier.set_weights(classifier.get_weights())
    output.thresholds.assign(thresholds)
    return output, keras.layers.Identity()
