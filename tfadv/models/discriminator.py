"""The discriminator: images to the probability that they are real (Eq. 2 and 3)."""

import keras
import tensorflow as tf

from tfadv.models.layers import Convolution, build_in_order, scaled_channels, track

CHANNELS = 64  # of the first convolution; each further one has twice as many, up to MOST_CHANNELS
MOST_CHANNELS = 512
SMALLEST_MAP = 8  # the smallest side of a map that is halved: the last map has 4 to 7
SLOPE = 0.2  # of the leaky ReLUs for negative inputs, as in DCGAN (Radford et al. 2016)


class Discriminator(keras.Model):
    """Strided 3x3 convolutions with leaky ReLUs, then one logit.

    Each convolution halves the map, until its side is below 8. All kernels are spectrally
    normalised, which limits the logits and the decoder's gradients. Without batch normalisation, an
    image's logit does not depend on the rest of its batch.

    Args:
        size: side of the image in pixels, a multiple of 32.
        width: multiplier of the channel counts.
        dtype: Keras dtype policy; None is the global one. The last layer is always float32.

    Raises:
        ValueError: the size is no multiple of 32, or the width is not positive.
    """

    def __init__(
        self,
        size: int,
        width: float = 1.0,
        dtype: keras.DTypePolicy | str | None = None,
    ):
        if size < 32 or size % 32:
            raise ValueError(f"the discriminator's size must be a multiple of 32, not {size!r}")
        super().__init__(dtype=dtype, name="discriminator")
        self.size = size
        self.width = width
        self.convolutions = track(self, "convolution", self._convolutions())
        head = [
            keras.layers.Flatten(dtype="float32"),
            SpectralNormalization(keras.layers.Dense(1, dtype="float32"), dtype="float32"),
        ]
        self.head = track(self, "head", head)

    def _convolutions(self) -> list[keras.layers.Layer]:
        dtype, side, channels = self.dtype_policy, self.size, CHANNELS
        layers = []
        while side >= SMALLEST_MAP:
            filters = scaled_channels(channels, self.width)
            convolution = Convolution(filters, 3, 2, use_bias=True, dtype=dtype)
            layers += [
                SpectralNormalization(convolution, dtype=dtype),
                keras.layers.LeakyReLU(SLOPE, dtype=dtype),
            ]
            side, channels = (side + 1) // 2, min(2 * channels, MOST_CHANNELS)
        return layers

    def build(self, input_shape: tuple[int | None, ...] | None = None) -> None:
        """Creates all variables, for images [N, size, size, 3]."""
        build_in_order([*self.convolutions, *self.head], (None, self.size, self.size, 3))

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns logits, float32 [N]; their sigmoid is D(X), the probability that X is real.

        Args:
            images: float [N, size, size, 3] in [-1, 1].
            training: whether spectral normalisation updates its estimates by one step.
        """
        outputs = images
        for layer in [*self.convolutions, *self.head]:
            outputs = layer(outputs, training=training)
        return tf.squeeze(outputs, axis=-1)


class SpectralNormalization(keras.layers.Layer):
    """A linear layer with its kernel divided by its spectral norm (Miyato et al. 2018).

    The norm is the largest singular value of the kernel as a matrix [inputs, outputs]. A power
    iteration, one step per training call, estimates it from below. Gradients flow through the norm.

    `keras.layers.SpectralNormalization` overwrites the kernel with the quotient in every training
    call. No gradient flows through its norm, and in mixed_bfloat16 its kernel keeps 8 significant
    bits, fewer than an Adam step of 2e-4 needs.

    Args:
        layer: `Convolution` or `keras.layers.Dense`, linear.
        **kwargs: as for `keras.layers.Layer`.
    """

    def __init__(self, layer: keras.layers.Layer, **kwargs):
        super().__init__(**kwargs)
        self.layer = layer

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the layer's variables, and `singular_vector`, float32 [outputs]."""
        self.layer.build(input_shape)
        self.singular_vector = self.add_weight(
            name="singular_vector",
            shape=self.layer.kernel.shape[-1:],
            initializer=keras.initializers.RandomNormal(),
            dtype="float32",
            trainable=False,
            autocast=False,
            aggregation="mean",  # it depends on the kernel alone: all replicas have the same
        )

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the layer's output shape."""
        return self.layer.compute_output_shape(input_shape)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the layer's outputs with the kernel divided by its norm; not the bias."""
        norm, right = self._power_iteration()
        if training:
            self.singular_vector.assign(right)
        return self.layer(inputs / tf.cast(norm, inputs.dtype))

    def _power_iteration(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the norm, float32, and the singular vector after one step."""
        kernel = tf.cast(self.layer.kernel, tf.float32)
        matrix = tf.reshape(kernel, (-1, kernel.shape[-1]))
        constant = tf.stop_gradient(matrix)
        left = tf.math.l2_normalize(tf.linalg.matvec(constant, self.singular_vector.value))
        right = tf.math.l2_normalize(tf.linalg.matvec(constant, left, transpose_a=True))
        return tf.tensordot(left, tf.linalg.matvec(matrix, right), 1), right
