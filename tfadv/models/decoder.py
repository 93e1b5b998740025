"""Dec: features back to pictures; the protector's adversary and the attacker's Dec^a."""

import math

import keras
import tensorflow as tf

from tfadv.models.layers import (
    Linear,
    TransposedConvolution,
    build_in_order,
    scaled_channels,
    track,
)
from tfadv.models.normalisation import BatchNormalization
from tfadv.models.resnet import SPLITS

# Figure 6: output channels of layer5, layer4, layer3 and layer2; layer1 gives the picture.
CHANNELS = (1024, 512, 256, 64)
HIDDEN = 2048


class Decoder(keras.Model):
    """The decoder of Figure 6, from the layer that fits the feature.

    - A square map of side `size / 2**k`, k from 1 to 5, enters at transposed convolution `layer k`,
      of any channel count.
    - A vector goes through linear -> 2048, ReLU, linear -> 2048 x s x s, ReLU, with s = size / 32,
      and then layer5 to layer1. The feature of split point avgpool skips the first linear layer.
    - Any other feature is flattened and then taken as a vector.

    Only the shape counts, so it serves encoders that aren't ours just as well.

    Args:
        feature_shape: shape of one picture's feature, without the batch.
        size: side of the picture in pixels, a multiple of 32.
        split: the encoder's split point if it has one of ours; only "avgpool" makes a difference.
        width: multiplier of the decoder's channel counts; the paper's is 1.
        dtype: Keras dtype policy; None is the global one.
        name: name of the model.

    Raises:
        ValueError: if the size isn't a multiple of 32, the width isn't positive, a dimension of the
            feature isn't known, or there is no such split point.
    """

    def __init__(
        self,
        feature_shape: tuple[int, ...],
        size: int,
        split: str | None = None,
        width: float = 1.0,
        dtype: keras.DTypePolicy | str | None = None,
        name: str = "decoder",
    ):
        if size < 32 or size % 32:
            raise ValueError(f"the decoder's picture size must be a multiple of 32, not {size!r}")
        if not width > 0:
            raise ValueError(f"width must be above 0, not {width!r}")
        if not feature_shape or not all(feature_shape):
            raise ValueError(f"the feature's shape must be known, not {feature_shape!r}")
        if split is not None and split not in SPLITS:
            raise ValueError(f"split must be None or one of {', '.join(SPLITS)}, not {split!r}")
        super().__init__(dtype=dtype, name=name)
        self.feature_shape = tuple(feature_shape)
        self.size = size
        self.split = split
        self.width = width
        first = first_layer(self.feature_shape, size)
        self.linear = track(self, "linear", [] if first else self._linear_layers())
        self.deconvolutions = track(self, "deconvolution", self._deconvolutions(first or 5))

    def _linear_layers(self) -> list[keras.layers.Layer]:
        dtype, side = self.dtype_policy, self.size // 32
        hidden = scaled_channels(HIDDEN, self.width)
        layers = [
            keras.layers.Flatten(dtype=dtype),
            Linear(hidden, activation="relu", dtype=dtype),
            Linear(hidden * side**2, activation="relu", dtype=dtype),
            keras.layers.Reshape((side, side, hidden), dtype=dtype),
        ]
        if self.split == "avgpool":
            del layers[1]
        return layers

    def _deconvolutions(self, first: int) -> list[keras.layers.Layer]:
        """Layers `first` down to 1: all but the last with batch normalisation and ReLU."""
        dtype = self.dtype_policy
        layers = []
        for channels in CHANNELS[len(CHANNELS) + 1 - first :]:
            layers += [
                TransposedConvolution(scaled_channels(channels, self.width), dtype=dtype),
                BatchNormalization(dtype=dtype),
                keras.layers.ReLU(dtype=dtype),
            ]
        return [*layers, TransposedConvolution(3, use_bias=True, dtype=dtype)]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates all variables, for features [N, *feature_shape]."""
        build_in_order([*self.linear, *self.deconvolutions], (None, *self.feature_shape))

    def call(self, features: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Reconstructs pictures.

        Args:
            features: float [N, *feature_shape].
            training: whether batch normalisation uses and updates the batch's statistics.

        Returns:
            Pictures, float32 [N, size, size, 3] in [-1, 1].
        """
        for layer in [*self.linear, *self.deconvolutions]:
            features = layer(features, training=training)
        return tf.tanh(tf.cast(features, tf.float32))

    def get_config(self) -> dict:
        """The arguments that give this architecture again; precision is not one of them."""
        names = ("feature_shape", "size", "split", "width")
        return {name: getattr(self, name) for name in names}


def first_layer(feature_shape: tuple[int, ...], size: int) -> int:
    """The transposed convolution (5 to 1) that a feature enters at; 0 if it isn't such a map."""
    if len(feature_shape) != 3 or feature_shape[0] != feature_shape[1]:
        return 0
    layer = math.log2(size / feature_shape[0])
    return int(layer) if layer in range(1, 6) else 0
