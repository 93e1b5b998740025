"""The classifier: features to attributes."""

import keras
import tensorflow as tf

from tfadv.models import resnet
from tfadv.models.layers import build_in_order, track


class Classifier(keras.Model):
    """f of the paper: the rest of ResNet after the split, then two fully connected layers.

    Args:
        split: the encoder's split point: one of `resnet.SPLITS`.
        attributes: A, number of the task's attributes.
        depth: 18, 34 or 50, the encoder's.
        width: multiplier of the channel counts, the encoder's.
        hidden: units of the first fully connected layer.
        dtype: Keras dtype policy; None is the global one.

    Raises:
        ValueError: there is no such depth or split point, or a number is not positive.
    """

    def __init__(
        self,
        split: str,
        attributes: int,
        depth: int = 50,
        width: float = 1.0,
        hidden: int = 512,
        dtype: keras.DTypePolicy | str | None = None,
    ):
        resnet.check(depth, split)
        super().__init__(dtype=dtype, name="classifier")
        self.split = split
        self.attributes = attributes
        self.depth = depth
        self.width = width
        self.hidden = hidden
        first = resnet.SPLITS.index(split) + 1
        stages = resnet.stages(depth, width, self.dtype_policy)
        self.stages = track(self, "stage", stages[first:])
        head = [
            keras.layers.Dense(hidden, activation="relu", dtype=self.dtype_policy),
            keras.layers.Dense(attributes, dtype="float32"),
        ]
        self.head = track(self, "head", head)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates all variables, for features [N, ...] of the encoder."""
        build_in_order([*self.stages, *self.head], input_shape)

    def call(self, features: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns logits, float32 [N, attributes].

        Args:
            features: float [N, ...], the encoder's at the split point.
            training: whether batch normalisation uses and updates the batch's statistics.
        """
        for layer in [*self.stages, *self.head]:
            features = layer(features, training=training)
        return features

    def hidden_and_logits(self, features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the last hidden layer, [N, hidden], and the logits, as they are after training.

        Args:
            features: float [N, ...], the encoder's at the split point.
        """
        *layers, last = [*self.stages, *self.head]
        for layer in layers:
            features = layer(features, training=False)
        return features, last(features)

    def get_config(self) -> dict:
        """Returns the arguments that rebuild this architecture, without the precision."""
        names = ("split", "attributes", "depth", "width", "hidden")
        return {name: getattr(self, name) for name in names}
