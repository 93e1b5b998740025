"""What becomes of Enc's feature before it leaves: fewer values, noise, fewer bits."""

import math

import keras
import tensorflow as tf

from tfadv.config.schema import NOISES
from tfadv.models.layers import build_in_order, track
from tfadv.models.normalisation import BatchNormalization
from tfadv.training.distribution import uniform_by_row

_RANGE = 2.0  # levels divide -2..2: of values of variance 1, some 95%
_RESOLUTION = 2.0**-24  # of a float32 below 1
_COUNTER = {"dtype": "int32", "trainable": False, "autocast": False}


class Bottleneck(keras.Model):
    """Layers between the split point and whoever sees the feature; each does nothing by default.

    In order: a linear layer to `size` values (Roy and Boddeti call it a bottleneck); values brought
    to variance 1, if noise or bits follow, so that their strength means something; noise, fixed by
    the network (`noise`) or learned (`variational`); quantisation.

    On maps [N, H, W, C] each place is a vector of C values.

    Args:
        size: values of a linear layer; 0: none.
        variational: weight of the variational bottleneck's term in the loss, which `penalised`
            returns; 0: none. Means and variances are two linear layers, and the term is
            KL(N(mean, variance) || N(0, 1)) per value (Alemi et al. 2017, Eq. 17, divided by the
            values). In nats.
        noise: standard deviation of what is added to values of variance 1; 0: none.
        noise_kind: gaussian or laplace.
        bits: of each value: 2**bits levels at even distances in -2..2; 0: as it is. 1 gives its
            sign. Gradients go straight through within that range (Bengio et al. 2013).
        dtype: Keras dtype policy, which only its linear layers follow.

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
        name: str = "bottleneck",
    ):
        if min(size, variational, noise, bits) < 0 or bits > 16:
            raise ValueError(f"size {size}, variational {variational}, noise {noise}, bits {bits}")
        if variational and (noise or noise_kind != "gaussian"):
            raise ValueError("a variational bottleneck has noise of its own, which is Gaussian")
        super().__init__(dtype=dtype, name=name, autocast=False)
        self.size = size
        self.variational = variational
        self.bits = bits
        self.linear = keras.layers.Dense(size, dtype=self.dtype_policy) if size else None
        self.standardise = Standardise() if (noise or bits) and not variational else None
        self.noise = Noise(noise or 1.0, noise_kind) if noise or variational else None
        self._options = {
            "size": size,
            "variational": variational,
            "noise": noise,
            "noise_kind": noise_kind,
            "bits": bits,
        }

    @property
    def is_identity(self) -> bool:
        """Whether it leaves the feature as it is."""
        return not (self.size or self.variational or self.noise or self.bits)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates all variables, for features [N, ..., C]."""
        layers = [] if self.linear is None else [self.linear]
        shape = build_in_order(layers, input_shape)
        if self.variational:
            moments = [keras.layers.Dense(shape[-1], dtype=self.dtype_policy) for _ in range(2)]
            self.moments = track(self, "moment", moments)
            for each in moments:
                each.build(shape)
        if self.standardise is not None:
            self.standardise.build(shape)
        if self.noise is not None:
            self.noise.build(shape)

    def output_shape_of(self, feature_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one picture's code, from that of its feature."""
        return (*feature_shape[:-1], self.size or feature_shape[-1])

    def call(self, features: tf.Tensor, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Codes features.

        Args:
            features: float [N, ..., C].
            images: the pictures that they are of, float [N, S, S, 3] in [-1, 1]: the noise
                is theirs.
            training: whether statistics are the batch's, and noise is drawn anew.

        Returns:
            float32 [N, ..., size or C].
        """
        return self.penalised(features, images, training)[0]

    def penalised(
        self, features: tf.Tensor, images: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns what `call` does, and the variational bottleneck's weighted term, or 0."""
        values, penalty = self._narrowed(features), tf.zeros(())
        if self.variational:
            mean, log_variance = (tf.cast(layer(values), tf.float32) for layer in self.moments)
            penalty = self.variational * normal_divergence(mean, log_variance)
            values = mean + tf.exp(0.5 * log_variance) * self.noise(
                values, images, training=training
            )
        if self.standardise is not None:
            values = self.standardise(values, training=training)
        if self.noise is not None and not self.variational:
            values += self.noise(values, images, training=training)
        return quantise(values, self.bits, training) if self.bits else values, penalty

    def without_noise(self, features: tf.Tensor) -> tf.Tensor:
        """What fixed noise is added to, in inference: float32 [N, ..., size or C]."""
        values = self._narrowed(features)
        return values if self.standardise is None else self.standardise(values)

    def _narrowed(self, features: tf.Tensor) -> tf.Tensor:
        values = features if self.linear is None else self.linear(features)
        return tf.cast(values, tf.float32)

    def get_config(self) -> dict:
        """The arguments that give these layers again; precision is not one of them."""
        return dict(self._options)


class Standardise(BatchNormalization):
    """Brings each value to mean 0 and variance 1, and learns neither scale nor offset.

    With those the network could turn noise down by speaking up. Values are float32 [N, C] or
    [N, H, W, C].
    """

    def __init__(self, name: str = "standardise"):
        super().__init__(name=name, dtype="float32")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the moving statistics, and a scale of 1 and an offset of 0 that stay."""
        super().build(input_shape)
        self.gamma.trainable = self.beta.trainable = False

    def call(self, values: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Standardises by the batch's statistics, or by the moving ones."""
        if values.shape.rank == 4:
            return super().call(values, training=training)
        maps = tf.reshape(values, (-1, 1, 1, values.shape[-1]))
        return tf.reshape(super().call(maps, training=training), tf.shape(values))


class Noise(keras.layers.Layer):
    """Noise of one standard deviation for all values.

    In training it is drawn anew at each step, and the same again where training resumes. Once
    trained, the same picture gets the same noise: asking again doesn't average it away. Whoever
    has the network can find out which noise that is for a picture they have.

    Args:
        deviation: the standard deviation.
        kind: gaussian or laplace.
    """

    def __init__(self, deviation: float, kind: str, name: str = "noise"):
        if kind not in NOISES:
            raise ValueError(f"noise_kind must be one of {', '.join(NOISES)}, not {kind!r}")
        super().__init__(name=name, dtype="float32")
        self.deviation = deviation
        self.kind = kind

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Creates the key that noise depends on, and the count of calls in training."""
        self._shape = tuple(shape[1:])
        self.key = add_key(self)
        self.calls = self.add_weight(
            shape=(), initializer="zeros", aggregation="only_first_replica", **_COUNTER
        )

    def call(self, values: tf.Tensor, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns noise in the shape of the values, [N, ...], for pictures in [-1, 1]."""
        rows, columns = tf.shape(values)[0], math.prod(self._shape)
        if training:
            seed = self.key.value + tf.stack([self.calls.value, 0])
            self.calls.assign_add(1)
            uniform = uniform_by_row(rows, columns, seed)
        else:
            uniform = uniform_by_picture(images, self.key.value, columns)
        uniform = tf.clip_by_value(uniform, _RESOLUTION, 1.0 - _RESOLUTION)
        return self.deviation * tf.reshape(_QUANTILES[self.kind](uniform), tf.shape(values))


def add_key(layer: keras.layers.Layer) -> keras.Variable:
    """Adds a key, int32 [2], drawn with the weights, for `uniform_by_picture`."""
    key = keras.random.randint((2,), 0, 2**31 - 1, dtype="int32")
    return layer.add_weight(shape=(2,), initializer=lambda *_, **__: key, **_COUNTER)


def uniform_by_picture(images: tf.Tensor, key: tf.Tensor, columns: int) -> tf.Tensor:
    """Numbers in [0, 1) that depend on a picture and a key alone, float32 [N, columns].

    Args:
        images: float [N, S, S, 3] in [-1, 1]; it is their 8-bit pixels that count.
        key: int32 [2].
        columns: numbers for a picture.
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


# From numbers uniform in (0, 1) to such of variance 1.
_QUANTILES = {"gaussian": tf.math.ndtri, "laplace": _laplace}


def normal_divergence(mean: tf.Tensor, log_variance: tf.Tensor) -> tf.Tensor:
    """KL(N(mean, variance) || N(0, 1)) in nats, the mean over batch and values.

    Args:
        mean: float32 [N, ...].
        log_variance: of the same shape.
    """
    terms = tf.square(mean) + tf.exp(log_variance) - log_variance - 1.0
    return 0.5 * tf.reduce_mean(terms)


def quantise(values: tf.Tensor, bits: int, training: bool) -> tf.Tensor:
    """The nearest of 2**bits levels at even distances in -2..2, none of them 0.

    Args:
        values: float32.
        bits: 1 or more.
        training: whether gradients go through, as if it weren't there, where values lie within.

    Returns:
        float32 of the same shape. Outside training it is exact: adding a rounded difference to a
        value would give away the value's last bits.
    """
    step = 2.0 * _RANGE / 2**bits
    highest = 2.0 ** (bits - 1) - 0.5
    levels = step * tf.clip_by_value(tf.floor(values / step) + 0.5, -highest, highest)
    if not training:
        return levels
    passing = tf.clip_by_value(values, -_RANGE, _RANGE)
    return passing + tf.stop_gradient(levels - passing)
