"""Decoders: features back to images, for the protector's adversary and for attackers."""

import math

import keras
import tensorflow as tf

from tfadv.models.batch_normalization import BatchNormalization
from tfadv.models.layers import (
    Convolution,
    Linear,
    TransposedConvolution,
    build_in_order,
    scaled_channels,
    track,
)
from tfadv.models.resnet import SPLITS, ResidualBlock

HIDDEN = 2048
# Figure 6: output channels of layer5, layer4, layer3 and layer2; layer1 gives the image.
CHANNELS = (1024, 512, 256, 64)
# Of the residual decoder's maps of side size / 16, size / 8, ..., size.
RESIDUAL_CHANNELS = (1024, 512, 256, 128, 64)
RESIDUAL_BLOCKS = 2


class Decoder(keras.Model):
    """The decoder of Figure 6, which starts at the layer that fits the feature's shape.

    - A square map of side `size / 2**k`, k from 1 to 5, with any number of channels, enters at
      transposed convolution `layer k`.
    - A vector passes linear -> 2048, ReLU, linear -> 2048 x s x s, ReLU, with s = size / 32, then
      layer5 to layer1. The feature of split point avgpool skips the first linear layer.
    - Any other feature is flattened to a vector.

    Only the shape counts, so that the decoder also fits the features of foreign encoders.

    Args:
        feature_shape: shape of one image's feature, without the batch.
        size: side of the image in pixels, a multiple of 32.
        split: split point of an encoder of ours; only "avgpool" makes a difference.
        width: multiplier of the channel counts; the paper's is 1.
        dtype: Keras dtype policy; None is the global one.

    Raises:
        ValueError: the size is no multiple of 32, the width is not positive, a dimension of the
            feature is unknown, or there is no such split point.
    """

    def __init__(
        self,
        feature_shape: tuple[int, ...],
        size: int,
        split: str | None = None,
        width: float = 1.0,
        dtype: keras.DTypePolicy | str | None = None,
    ):
        if size < 32 or size % 32:
            raise ValueError(f"the decoder's image size must be a multiple of 32, not {size!r}")
        if not feature_shape or not all(feature_shape):
            raise ValueError(f"the feature's shape must be known, not {feature_shape!r}")
        if split is not None and split not in SPLITS:
            raise ValueError(f"split must be None or one of {', '.join(SPLITS)}, not {split!r}")
        super().__init__(dtype=dtype, name="decoder")
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
        """Returns layers `first` down to 1."""
        layers = []
        for channels in CHANNELS[len(CHANNELS) + 1 - first :]:
            layers += self._double(scaled_channels(channels, self.width))
        return [*layers, TransposedConvolution(3, use_bias=True, dtype=self.dtype_policy)]

    def _double(self, channels: int) -> list[keras.layers.Layer]:
        dtype = self.dtype_policy
        return [
            TransposedConvolution(channels, dtype=dtype),
            BatchNormalization(dtype=dtype),
            keras.layers.ReLU(dtype=dtype),
        ]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates all variables, for features [N, *feature_shape]."""
        build_in_order([*self.linear, *self.deconvolutions], (None, *self.feature_shape))

    def call(self, features: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns reconstructed images, float32 [N, size, size, 3] in [-1, 1].

        Args:
            features: float [N, *feature_shape].
            training: whether batch normalisation uses and updates the batch's statistics.
        """
        for layer in [*self.linear, *self.deconvolutions]:
            features = layer(features, training=training)
        return tf.tanh(tf.cast(features, tf.float32))


class ResidualDecoder(Decoder):
    """A larger decoder: Figure 6 with two residual blocks (He et al. 2016) after each doubling.

    It is there because leakage should be measured with a strong attacker, and the paper's decoder
    has one convolution per resolution.

    A feature enters as in `Decoder`. Each transposed convolution, with batch normalisation and
    ReLU, is followed by blocks of two 3x3 convolutions. At full resolution, a last 3x3 convolution
    and tanh give the image. Blocks start as the identity (Goyal et al. 2017), so that training
    starts as fast as Figure 6's.

    Maps are doubled by transposed convolution because nearest-neighbour upsampling of a 1x1 map,
    which a vector starts from at 32 pixels, gives a constant map.

    Args and errors are those of `Decoder`; `width` multiplies these channel counts.
    """

    def _deconvolutions(self, first: int) -> list[keras.layers.Layer]:
        """Returns the layers in the place of layers `first` down to 1."""
        dtype = self.dtype_policy
        layers = []
        for count in RESIDUAL_CHANNELS[len(RESIDUAL_CHANNELS) - first :]:
            channels = scaled_channels(count, self.width)
            layers += self._double(channels)
            layers += [
                ResidualBlock((channels, channels), (3, 3), 1, project=False, dtype=dtype)
                for _ in range(RESIDUAL_BLOCKS)
            ]
        # He's fan-out for 3 channels would saturate tanh from the start.
        image = Convolution(3, 3, use_bias=True, kernel_initializer="glorot_uniform", dtype=dtype)
        return [*layers, image]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates all variables, for features [N, *feature_shape]."""
        super().build(input_shape)
        for layer in self.deconvolutions:
            if isinstance(layer, ResidualBlock):
                gamma = layer.normalizations[-1].gamma
                gamma.assign(0.0 * gamma)


def first_layer(feature_shape: tuple[int, ...], size: int) -> int:
    """Returns the transposed convolution (5 to 1) that a map enters at; 0 for other features."""
    if len(feature_shape) != 3 or feature_shape[0] != feature_shape[1]:
        return 0
    layer = math.log2(size / feature_shape[0])
    return int(layer) if layer in range(1, 6) else 0
