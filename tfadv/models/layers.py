"""The layers of all networks; every convolution of the project is one of them."""

from collections.abc import Iterable, Sequence

import keras
import tensorflow as tf

from tfadv.models.convolution import convolve, convolve_transposed, multiply


def scaled_channels(channels: int, width: float) -> int:
    """Returns `channels * width`, rounded to a multiple of 8, at least 8.

    Raises:
        ValueError: the width is not positive.
    """
    if not width > 0:
        raise ValueError(f"width must be above 0, not {width!r}")
    return max(8, 8 * round(channels * width / 8))


def he_fan_out() -> keras.initializers.Initializer:
    """Returns He normal initialisation by fan-out (He et al. 2015), as in torchvision's ResNet.

    Each layer needs its own, because a Keras initialiser draws the same values at every call.
    """
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")


class Convolution(keras.layers.Conv2D):
    """2-D convolution with PyTorch's symmetric padding, `kernel_size // 2` on each side.

    With stride 2, Keras' "same" pads an even map on the right and bottom only, which shifts the
    features of weights trained in PyTorch.

    [N, H, W, C] -> [N, ceil(H / strides), ceil(W / strides), filters]; the kernel is HWIO.

    Args:
        filters: output channels.
        kernel_size: odd side of the square kernel.
        strides: step in both directions.
        use_bias: whether to add a bias; useless before batch normalisation.
        **kwargs: as for `keras.layers.Conv2D`, but for `dilation_rate` and `data_format`.
    """

    def __init__(
        self, filters: int, kernel_size: int, strides: int = 1, use_bias: bool = False, **kwargs
    ):
        kwargs.setdefault("kernel_initializer", he_fan_out())
        # "same" gives the right output shape at every stride, and the right values at stride 1.
        super().__init__(filters, kernel_size, strides, "same", use_bias=use_bias, **kwargs)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the convolution of [N, H, W, C]; `training`: the kernel's gradient is needed."""
        outputs = convolve(
            inputs, tf.convert_to_tensor(self.kernel.value), self.strides[0], training
        )
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, self.bias.value)
        return self.activation(outputs)


class TransposedConvolution(keras.layers.Conv2DTranspose):
    """3x3 transposed convolution with stride 2, which doubles a map: the decoder's (Figure 6).

    [N, H, W, C] -> [N, 2H, 2W, filters].

    Args:
        filters: output channels.
        use_bias: whether to add a bias; useless before batch normalisation.
        **kwargs: as for `keras.layers.Conv2DTranspose`, but for `dilation_rate` and `data_format`.
    """

    def __init__(self, filters: int, use_bias: bool = False, **kwargs):
        kwargs.setdefault("kernel_initializer", he_fan_out())
        super().__init__(filters, 3, 2, "same", use_bias=use_bias, **kwargs)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the convolution of [N, H, W, C]; `training`: the kernel's gradient is needed."""
        outputs = convolve_transposed(inputs, tf.convert_to_tensor(self.kernel.value), training)
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, self.bias.value)
        return self.activation(outputs)


class Linear(keras.layers.Dense):
    """`keras.layers.Dense` for vectors, [N, C] -> [N, units]."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns [N, units] from [N, C]."""
        outputs = multiply(inputs, tf.convert_to_tensor(self.kernel.value))
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, self.bias.value)
        return self.activation(outputs)


class MaxPooling(keras.layers.MaxPooling2D):
    """3x3 max pooling with stride 2 and PyTorch's padding of 1 on each side.

    [N, H, W, C] -> [N, ceil(H / 2), ceil(W / 2), C]. Inputs must not be negative, as after a ReLU,
    because the padding is zeros.
    """

    def __init__(self, **kwargs):
        super().__init__(3, 2, "same", **kwargs)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the pooled [N, H, W, C]."""
        padded = tf.pad(inputs, [(0, 0), (1, 1), (1, 1), (0, 0)])
        return tf.nn.max_pool2d(padded, 3, 2, "VALID")


class Stage(keras.layers.Layer):
    """Layers run one after another, like `keras.Sequential`, but for maps of any size."""

    def __init__(self, layers: Sequence[keras.layers.Layer], **kwargs):
        super().__init__(**kwargs)
        self.layers = track(self, "layer", layers)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the variables of all layers."""
        build_in_order(self.layers, input_shape)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape after the last layer."""
        for layer in self.layers:
            input_shape = layer.compute_output_shape(input_shape)
        return input_shape

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the last layer's output; Keras passes `training` to the layers that take it."""
        for layer in self.layers:
            inputs = layer(inputs)
        return inputs


def track(
    owner: keras.layers.Layer, name: str, layers: Iterable[keras.layers.Layer]
) -> list[keras.layers.Layer]:
    """Sets layers as attributes `name_0`, `name_1`, ... of their owner, and returns their list.

    `tf.train.Checkpoint` silently skips layers that are only in a Keras list.
    """
    layers = list(layers)
    for i, layer in enumerate(layers):
        setattr(owner, f"{name}_{i}", layer)
    return layers


def build_in_order(
    layers: Iterable[keras.layers.Layer], shape: tuple[int | None, ...]
) -> tuple[int | None, ...]:
    """Builds each layer for the output shape of the one before; returns the last output shape."""
    for layer in layers:
        layer.build(shape)
        shape = layer.compute_output_shape(shape)
    return shape
