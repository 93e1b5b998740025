"""The bottleneck defences: softer input images; fewer values, noise or fewer bits in features."""

import math

import keras
import tensorflow as tf

from tfadv.config.schema import NOISES
from tfadv.models.batch_normalization import BatchNormalization
from tfadv.models.layers import build_in_order, track
from tfadv.training.distribution import uniform_by_row

_LARGEST_LEVEL = 2.0  # levels divide -2..2, which holds 95% of normal values of variance 1
_RESOLUTION = 2.0**-24  # of a float32 below 1
_COUNTER = {"dtype": "int32", "trainable": False, "autocast": False}


class Bottleneck(keras.Model):
    """Layers that a feature passes before it leaves the encoder; each is off by default.

    In order: a linear layer to `size` values (a bottleneck in Roy and Boddeti 2019); noise, fixed
    (`noise`) or learned (`variational`); quantisation to `bits` bits. Values are standardised to
    variance 1 before fixed noise or quantisation, so that the strength of both has a meaning.

    In a map [N, H, W, C], each place is a vector of C values.

    Args:
        size: values of the linear layer; 0: none.
        variational: weight of the variational bottleneck's loss term, which `penalized` returns; 0:
            none. Two linear layers give means and variances. The term is
            KL(N(mean, variance) || N(0, 1)) in nats per value (Alemi et al. 2017, Eq. 17, divided
            by the number of values).
        noise: standard deviation of noise on values of variance 1; 0: none.
        noise_kind: gaussian or laplace.
        bits: bits of each value, for 2**bits equally spaced levels in -2..2; 1 keeps the sign; 0
            keeps the value. Within that range, gradients pass straight through (Bengio et al.
            2013).
        dtype: Keras dtype policy of the linear layers; the rest is float32.

    Raises:
        ValueError: a number is out of range, or noise is asked for twice.
    """

    def __init__(
        self,
        size: int = 0,
        variational: float = 0.0,
        noise: float = 0.0,
        noise_kind: str = "gaussian",
        bits: int = 0,
        dtype: keras.DTypePolicy | str | None = None,
    ):
        if min(size, variational, noise, bits) < 0 or bits > 16:
            raise ValueError(f"size {size}, variational {variational}, noise {noise}, bits {bits}")
        if variational and (noise or noise_kind != "gaussian"):
            raise ValueError("a variational bottleneck has noise of its own, which is Gaussian")
        super().__init__(dtype=dtype, name="bottleneck", autocast=False)
        self._options = {
            "size": size,
            "variational": variational,
            "noise": noise,
            "noise_kind": noise_kind,
            "bits": bits,
        }
        self.size = size
        self.variational = variational
        self.bits = bits
        self.linear = keras.layers.Dense(size, dtype=self.dtype_policy) if size else None
        is_standardized = (noise or bits) and not variational
        self.standardize = Standardize(dtype="float32") if is_standardized else None
        self.noise = Noise(noise or 1.0, noise_kind) if noise or variational else None

    @property
    def is_identity(self) -> bool:
        """Whether features pass unchanged."""
        return not (self.size or self.variational or self.noise or self.bits)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates all variables, for features [N, ..., C]."""
        shape = build_in_order(filter(None, [self.linear]), input_shape)
        if self.variational:
            moments = [keras.layers.Dense(shape[-1], dtype=self.dtype_policy) for _ in range(2)]
            self.moments = track(self, "moment", moments)
            for layer in moments:
                layer.build(shape)
        for layer in filter(None, [self.standardize, self.noise]):
            layer.build(shape)

    def output_shape_of(self, feature_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns one image's output shape from its feature's shape at the split point."""
        return (*feature_shape[:-1], self.size or feature_shape[-1])

    def call(self, features: tf.Tensor, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the features as they leave, float32 [N, ..., size or C].

        Args:
            features: float [N, ..., C].
            images: the features' images, float [N, S, S, 3] in [-1, 1], which the noise depends on.
            training: whether to standardise by the batch's statistics and to draw new noise.
        """
        return self.penalized(features, images, training)[0]

    def penalized(
        self, features: tf.Tensor, images: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the result of `call`, and the weighted variational term (0 if there is none)."""
        values, penalty = self._project(features), tf.zeros(())
        if self.variational:
            mean, log_variance = (tf.cast(layer(values), tf.float32) for layer in self.moments)
            penalty = self.variational * normal_divergence(mean, log_variance)
            noise = self.noise(values, images, training=training)
            values = mean + tf.exp(0.5 * log_variance) * noise
        if self.standardize is not None:
            values = self.standardize(values, training=training)
        if self.noise is not None and not self.variational:
            values += self.noise(values, images, training=training)
        return quantize(values, self.bits, training) if self.bits else values, penalty

    def without_noise(self, features: tf.Tensor) -> tf.Tensor:
        """Returns the values before fixed noise and quantisation: float32 [N, ..., size or C]."""
        values = self._project(features)
        return values if self.standardize is None else self.standardize(values)

    def _project(self, features: tf.Tensor) -> tf.Tensor:
        values = features if self.linear is None else self.linear(features)
        return tf.cast(values, tf.float32)

    def get_config(self) -> dict:
        """Returns the arguments that rebuild these layers, without the precision."""
        return dict(self._options)


class Standardize(BatchNormalization):
    """Batch normalisation without learned scale and offset, of [N, C] or [N, H, W, C] float32.

    With a scale, the network could make the noise small relative to the values.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the moving statistics, a constant scale of 1 and a constant offset of 0."""
        super().build(input_shape)
        self.gamma.trainable = self.beta.trainable = False

    def call(self, values: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns values standardised by the batch's statistics, or by the moving ones."""
        if values.shape.rank == 4:
            return super().call(values, training=training)
        maps = tf.reshape(values, (-1, 1, 1, values.shape[-1]))
        return tf.reshape(super().call(maps, training=training), tf.shape(values))


class Noise(keras.layers.Layer):
    """Noise of one standard deviation for all values.

    In training, each step draws new noise; a resumed training draws the same. In inference, an
    image always gets the same noise, so that repeated queries do not average it away. An attacker
    who holds the network can compute the noise of an image that they have.

    Args:
        deviation: the standard deviation.
        kind: gaussian or laplace.
    """

    def __init__(self, deviation: float, kind: str):
        if kind not in NOISES:
            raise ValueError(f"noise_kind must be one of {', '.join(NOISES)}, not {kind!r}")
        super().__init__(name="noise", dtype="float32")
        self.deviation = deviation
        self.kind = kind

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Creates the random key of the noise, and the count of calls in training."""
        self._shape = tuple(shape[1:])
        self.key = add_key(self)
        self.calls = self.add_weight(
            shape=(), initializer="zeros", aggregation="only_first_replica", **_COUNTER
        )

    def call(self, values: tf.Tensor, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns noise in the shape of the values, [N, ...], for images in [-1, 1]."""
        rows, columns = tf.shape(values)[0], math.prod(self._shape)
        if training:
            seed = self.key.value + tf.stack([self.calls.value, 0])
            self.calls.assign_add(1)
            uniform = uniform_by_row(rows, columns, seed)
        else:
            uniform = uniform_by_image(images, self.key.value, columns)
        uniform = tf.clip_by_value(uniform, _RESOLUTION, 1.0 - _RESOLUTION)
        return self.deviation * tf.reshape(_QUANTILES[self.kind](uniform), tf.shape(values))


def add_key(layer: keras.layers.Layer) -> keras.Variable:
    """Adds a random key for `uniform_by_image` to a layer, int32 [2]."""
    key = keras.random.randint((2,), 0, 2**31 - 1, dtype="int32")
    return layer.add_weight(shape=(2,), initializer=lambda *_, **__: key, **_COUNTER)


def uniform_by_image(images: tf.Tensor, key: tf.Tensor, columns: int) -> tf.Tensor:
    """Returns numbers in [0, 1) that depend only on image and key, float32 [N, columns].

    Args:
        images: float [N, S, S, 3] in [-1, 1]; the numbers depend on their 8-bit pixels.
        key: int32 [2].
        columns: how many numbers for each image.
    """
    pixels = tf.cast(tf.round((tf.cast(images, tf.float32) + 1.0) * 127.5), tf.int32)
    pixels = tf.reshape(pixels, (tf.shape(images)[0], -1, 1))
    factors = tf.random.stateless_uniform((tf.shape(pixels)[1], 2), key, None, None, tf.int32)
    fingerprints = tf.reduce_sum(pixels * factors, axis=1)  # modulo 2**32
    return tf.map_fn(
        lambda seed: tf.random.stateless_uniform((columns,), seed),
        fingerprints,
        fn_output_signature=tf.TensorSpec((columns,), tf.float32),
    )


def _laplace(uniform: tf.Tensor) -> tf.Tensor:
    centred = uniform - 0.5
    return -tf.sign(centred) * tf.math.log1p(-2.0 * tf.abs(centred)) / tf.sqrt(2.0)


# Quantile functions of distributions with variance 1.
_QUANTILES = {"gaussian": tf.math.ndtri, "laplace": _laplace}


def normal_divergence(mean: tf.Tensor, log_variance: tf.Tensor) -> tf.Tensor:
    """Returns KL(N(mean, variance) || N(0, 1)) in nats, averaged over batch and values.

    Args:
        mean: float32 [N, ...].
        log_variance: float32 of the same shape.
    """
    terms = tf.square(mean) + tf.exp(log_variance) - log_variance - 1.0
    return 0.5 * tf.reduce_mean(terms)


def quantize(values: tf.Tensor, bits: int, training: bool) -> tf.Tensor:
    """Returns the nearest of 2**bits equally spaced levels in -2..2; no level is 0.

    Args:
        values: float32.
        bits: 1 or more.
        training: whether gradients pass straight through where values are in that range.

    Returns:
        float32 of the same shape. In inference the levels are exact: the straight-through sum would
        add rounding errors, which tell an attacker the value's last bits.
    """
    step = 2.0 * _LARGEST_LEVEL / 2**bits
    highest = 2.0 ** (bits - 1) - 0.5
    levels = step * tf.clip_by_value(tf.floor(values / step) + 0.5, -highest, highest)
    if not training:
        return levels
    passing = tf.clip_by_value(values, -_LARGEST_LEVEL, _LARGEST_LEVEL)
    return passing + tf.stop_gradient(levels - passing)


def soften(images: tf.Tensor, blur: float = 0.0, downscale: int = 1) -> tf.Tensor:
    """Returns images after downscaling (and enlarging again), then Gaussian blur.

    Args:
        images: float [N, S, S, 3]; S a multiple of `downscale`.
        blur: standard deviation of the Gaussian in pixels, cut off at three of them; 0: none.
        downscale: whole factor of the downscaling; 1: none.

    Returns:
        float32 [N, S, S, 3], in the same range.
    """
    if downscale > 1:
        images = downscaled(images, downscale)
    if blur:
        reach = math.ceil(3 * blur)
        weights = tf.exp(-0.5 * tf.square(tf.range(-reach, reach + 1, dtype=tf.float32) / blur))
        weights = tf.tile((weights / tf.reduce_sum(weights))[:, None, None, None], (1, 1, 3, 1))
        images = tf.pad(images, [(0, 0), (reach, reach), (reach, reach), (0, 0)], "SYMMETRIC")
        for kernel in (weights, tf.transpose(weights, (1, 0, 2, 3))):
            images = tf.nn.depthwise_conv2d(images, kernel, (1, 1, 1, 1), "VALID")
    return images


def downscaled(images: tf.Tensor, factor: int) -> tf.Tensor:
    """Returns images shrunk by a whole factor and enlarged again, float [N, S, S, 3]."""
    small = tf.nn.avg_pool2d(images, factor, factor, "VALID")
    return tf.image.resize(small, images.shape[1:3])
