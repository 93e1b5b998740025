"""ResNet (He et al. 2016) as in torchvision, in stages between the paper's six split points.

The encoder has the stages up to the split, the classifier those after it. Bottleneck blocks have
their stride on the 3x3 convolution ("ResNet v1.5").
"""

import keras
import tensorflow as tf

from tfadv.config.schema import SPLITS
from tfadv.models.batch_normalization import BatchNormalization
from tfadv.models.layers import (
    Convolution,
    MaxPooling,
    Stage,
    build_in_order,
    scaled_channels,
    track,
)

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
CHANNELS = (64, 128, 256, 512)
CLASSES = 1000


class ResidualBlock(keras.layers.Layer):
    """Convolutions with batch normalisation, added to their own input.

    [N, H, W, C] -> [N, ceil(H / strides), ceil(W / strides), filters[-1]].

    Args:
        filters: output channels of each convolution.
        kernel_sizes: kernel side of each convolution.
        strides: step of the first 3x3 convolution and of the shortcut.
        project: whether the shortcut is a 1x1 convolution, needed when the shape changes.
        **kwargs: as for `keras.layers.Layer`.
    """

    def __init__(
        self,
        filters: tuple[int, ...],
        kernel_sizes: tuple[int, ...],
        strides: int,
        project: bool,
        **kwargs,
    ):
        super().__init__(**kwargs)
        dtype = self.dtype_policy
        strided = kernel_sizes.index(3)
        convolutions = [
            Convolution(count, size, strides if i == strided else 1, dtype=dtype)
            for i, (count, size) in enumerate(zip(filters, kernel_sizes, strict=True))
        ]
        normalizations = [BatchNormalization(dtype=dtype) for _ in filters]
        shortcut = [
            Convolution(filters[-1], 1, strides, dtype=dtype),
            BatchNormalization(dtype=dtype),
        ]
        self.convolutions = track(self, "convolution", convolutions)
        self.normalizations = track(self, "normalization", normalizations)
        self.shortcut = track(self, "shortcut", shortcut if project else [])

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the variables of both paths."""
        build_in_order(self._residual(), input_shape)
        build_in_order(self.shortcut, input_shape)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape after the last convolution."""
        for convolution in self.convolutions:
            input_shape = convolution.compute_output_shape(input_shape)
        return input_shape

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the block's output; Keras passes `training` to the layers that take it."""
        outputs = inputs
        for i, layer in enumerate(self._residual()):
            outputs = layer(tf.nn.relu(outputs) if i and i % 2 == 0 else outputs)
        for layer in self.shortcut:
            inputs = layer(inputs)
        return tf.nn.relu(outputs + inputs)

    def _residual(self) -> list[keras.layers.Layer]:
        pairs = zip(self.convolutions, self.normalizations, strict=True)
        return [layer for pair in pairs for layer in pair]


def stages(
    depth: int, width: float = 1.0, dtype: keras.DTypePolicy | str | None = None
) -> list[Stage]:
    """Returns the whole network, as one stage per split point, in the order of `SPLITS`.

    Args:
        depth: 18, 34 or 50.
        width: multiplier of all channel counts except the 1000 classes; torchvision's is 1.
        dtype: Keras dtype policy; None is the global one.

    Returns:
        Stages with the names of their split points. The first one takes ImageNet-normalised images
        [N, H, W, 3]; each returns the features of its split point.
    """
    stem = [
        Convolution(scaled_channels(64, width), 7, 2, dtype=dtype),
        BatchNormalization(dtype=dtype),
        keras.layers.ReLU(dtype=dtype),
    ]
    groups = [_blocks(depth, width, group, dtype) for group in range(4)]
    groups[0].insert(0, MaxPooling(dtype=dtype))
    groups[3].append(keras.layers.GlobalAveragePooling2D(dtype=dtype))
    head = [keras.layers.Dense(CLASSES, dtype=dtype)]
    return [
        Stage(layers, dtype=dtype, name=split)
        for split, layers in zip(SPLITS, [stem, *groups, head], strict=True)
    ]


def _blocks(
    depth: int, width: float, group: int, dtype: keras.DTypePolicy | str | None
) -> list[keras.layers.Layer]:
    """Returns the residual blocks of torchvision's `layer1` (group 0) to `layer4` (group 3)."""
    channels = scaled_channels(CHANNELS[group], width)
    filters, kernel_sizes = (channels, channels), (3, 3)
    if depth == 50:
        filters, kernel_sizes = (channels, channels, 4 * channels), (1, 3, 1)
    return [
        ResidualBlock(
            filters,
            kernel_sizes,
            strides=2 if group > 0 and i == 0 else 1,
            project=i == 0 and (group > 0 or depth == 50),
            dtype=dtype,
        )
        for i in range(BLOCKS[depth][group])
    ]


def check(depth: int, split: str) -> None:
    """Raises a ValueError if there is no such depth or split point."""
    if depth not in BLOCKS:
        raise ValueError(f"depth must be one of {', '.join(map(str, BLOCKS))}, not {depth!r}")
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
