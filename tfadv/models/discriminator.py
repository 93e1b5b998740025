"""D: pictures to the probability that they are real (Eq. 2 and 3)."""

import keras
import tensorflow as tf

from tfadv.models.layers import Convolution, build_in_order, scaled_channels, track

CHANNELS = 64  # of the first convolution; doubled by each one after it up to MOST_CHANNELS
MOST_CHANNELS = 512
SMALLEST_MAP = 8  # maps of this side and more are halved once more: 4 to 7 are left
SLOPE = 0.2  # of the leaky ReLUs below 0, as in DCGAN (Radford et al. 2016)


class Discriminator(keras.Model):
    """Strided 3x3 convolutions with leaky ReLUs, then one logit.

    Each halves the map, until its side is below 8. Spectral normalisation of all kernels in place
    of batch normalisation keeps D, and with it the gradient that Dec gets, from growing without
    limit, and makes a picture's logit independent of the rest of its batch.

    Args:
        size: side of the picture in pixels, a multiple of 32.
        width: multiplier of the channel counts.
        dtype: Keras dtype policy; None is the global one. The last layer is float32 in any case.
        name: name of the model.

    Raises:
        ValueError: if the size isn't a multiple of 32, or the width isn't positive.
    """

    def __init__(
        self,
        size: int,
        width: float = 1.0,
        dtype: keras.DTypePolicy | str | None = None,
        name: str = "discriminator",
    ):
        if size < 32 or size % 32:
            raise ValueError(f"the discriminator's size must be a multiple of 32, not {size!r}")
        if not width > 0:
            raise ValueError(f"width must be above 0, not {width!r}")
        super().__init__(dtype=dtype, name=name)
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
        """Creates all variables, for pictures [N, size, size, 3]."""
        build_in_order([*self.convolutions, *self.head], (None, self.size, self.size, 3))

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Judges pictures.

        Args:
            images: float [N, size, size, 3] in [-1, 1].
            training: whether spectral normalisation moves its estimates one step on.

        Returns:
            Logits, float32 [N]; their sigmoid is D(X), the probability that X is real.
        """
        outputs = images
        for layer in [*self.convolutions, *self.head]:
            outputs = layer(outputs, training=training)
        return tf.squeeze(outputs, axis=-1)

    def get_config(self) -> dict:
        """The arguments that give this architecture again; precision is not one of them."""
        return {"size": self.size, "width": self.width}


class SpectralNormalization(keras.layers.Layer):
    """Runs a linear layer as if its kernel were divided by its spectral norm (Miyato et al. 2018).

    The norm is the largest singular value of the kernel as a matrix [inputs, outputs], estimated
    from below by a power iteration that takes one step for each call in training; its gradient
    counts.

    Not `keras.layers.SpectralNormalization`, which overwrites the kernel with the quotient in every
    training call: no gradient goes through the norm, and in mixed_bfloat16 the kernel is left with
    8 significant bits, fewer than an Adam step of 2e-4 needs.

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
            aggregation="mean",  # equal on all replicas: it follows from the kernel alone
        )

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The layer's."""
        return self.layer.compute_output_shape(input_shape)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Applies the layer with its kernel divided by its norm; the bias stays as it is."""
        norm, right = self._power_iteration()
        if training:
            self.singular_vector.assign(right)
        return self.layer(inputs / tf.cast(norm, inputs.dtype))

    def _power_iteration(self) -> tuple[tf.Tensor, tf.Tensor]:
        """One step from `singular_vector`: the norm, float32, and the next singular vector."""
        kernel = tf.cast(self.layer.kernel, tf.float32)
        matrix = tf.reshape(kernel, (-1, kernel.shape[-1]))
        constant = tf.stop_gradient(matrix)
        left = tf.math.l2_normalize(tf.linalg.matvec(constant, self.singular_vector.value))
        right = tf.math.l2_normalize(tf.linalg.matvec(constant, left, transpose_a=True))
        return tf.tensordot(left, tf.linalg.matvec(matrix, right), 1), right
