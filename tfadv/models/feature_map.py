"""The feature map, M: features to face embeddings (Eq. 10)."""

import math

import keras
import tensorflow as tf

from tfadv.models.layers import build_in_order, track
from tfadv.training.distribution import uniform_by_row

# On 3,600 public CelebA images, one hidden layer with this dropout had the lowest held-out error.
# Two layers, no dropout, and batch normalisation were worse.
DROPOUT = 0.5


class FeatureMap(keras.Model):
    """A perceptron with one hidden layer from a feature, of any split point, to an embedding.

    Args:
        feature_shape: shape of one image's feature, without the batch.
        embedding: E, the size of the embedding.
        hidden: units of the hidden layer.
        pooling: of maps [H, W, C]: "flatten", or "average" over height and width.
        dtype: Keras dtype policy; None is the global one.

    Raises:
        ValueError: a number is not positive.
    """

    def __init__(
        self,
        feature_shape: tuple[int, ...],
        embedding: int,
        hidden: int = 1024,
        pooling: str = "flatten",
        dtype: keras.DTypePolicy | str | None = None,
    ):
        super().__init__(dtype=dtype, name="feature_map")
        self.feature_shape = tuple(feature_shape)
        self.embedding = embedding
        self.pooling = pooling
        dtype = self.dtype_policy
        layers = [
            keras.layers.Flatten(dtype=dtype),
            keras.layers.Dense(hidden, activation="relu", dtype=dtype),
            Dropout(DROPOUT, dtype=dtype),
            keras.layers.Dense(embedding, dtype="float32"),
        ]
        self.mlp = track(self, "mlp", layers)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates all variables, for features [N, *feature_shape]."""
        shape = self.feature_shape
        if self.pooling == "average":
            shape = shape[-1:]
        build_in_order(self.mlp, (None, math.prod(shape)))

    def call(self, features: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns embeddings, float32 [N, embedding], of features [N, *feature_shape]."""
        if self.pooling == "average":
            features = tf.reduce_mean(features, axis=range(1, len(self.feature_shape)))
        for layer in self.mlp:
            features = layer(features, training=training)
        return features


class Dropout(keras.layers.Layer):
    """Dropout (Srivastava et al. 2014) that a resumed training continues exactly.

    The dropped values depend on a seed, the number of calls in training, and the row's place in the
    whole batch, not on the number of replicas.

    Args:
        rate: share of values set to 0; the others are multiplied by 1 / (1 - rate).
        **kwargs: as for `keras.layers.Layer`.
    """

    def __init__(self, rate: float, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the random seed, and the count of calls."""
        seed = keras.random.randint((), 0, 2**31 - 1, dtype="int32")
        options = {"dtype": "int32", "trainable": False, "autocast": False}
        self.seed = self.add_weight(shape=(), initializer=lambda *_, **__: seed, **options)
        self.calls = self.add_weight(
            shape=(), initializer="zeros", aggregation="only_first_replica", **options
        )

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the input's shape."""
        return input_shape

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns [N, C] with dropped values in training, else unchanged."""
        if not training:
            return inputs
        seed = tf.stack([self.seed.value, self.calls.value])
        self.calls.assign_add(1)
        uniform = uniform_by_row(tf.shape(inputs)[0], inputs.shape[-1], seed)
        kept = tf.cast(uniform >= self.rate, inputs.dtype)
        return inputs * kept / tf.cast(1.0 - self.rate, inputs.dtype)
