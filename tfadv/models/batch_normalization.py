"""Batch normalisation with TensorFlow's fused kernel, which Keras 3 does not use."""

import keras
import tensorflow as tf

from tfadv.training.distribution import all_reduce_mean, replicas

MOMENTUM = 0.9
EPSILON = 1e-5


class BatchNormalization(keras.layers.Layer):
    """Batch normalisation (Ioffe and Szegedy 2015) over N, H and W of [N, H, W, C].

    As in PyTorch and unlike in Keras, momentum is 0.9, epsilon 1e-5, and the moving variance
    follows the unbiased batch variance (divided by n - 1). Inputs and outputs have the compute
    dtype; all variables and statistics are float32.

    With `training=False`, the moving statistics are used and not updated. Each of several replicas
    normalises by its own share of the batch, or by the whole batch after `synchronize`. The moving
    statistics follow the mean over the replicas.
    """

    is_synchronized = False

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates gamma, beta, moving_mean and moving_variance, each float32 [C]."""
        self.gamma = self._add_vector("gamma", "ones", input_shape[-1], trainable=True)
        self.beta = self._add_vector("beta", "zeros", input_shape[-1], trainable=True)
        self.moving_mean = self._add_vector("moving_mean", "zeros", input_shape[-1])
        self.moving_variance = self._add_vector("moving_variance", "ones", input_shape[-1])

    def _add_vector(
        self, name: str, initializer: str, channels: int, trainable: bool = False
    ) -> keras.Variable:
        return self.add_weight(
            name=name,
            shape=(channels,),
            initializer=initializer,
            dtype="float32",
            trainable=trainable,
            autocast=False,
            aggregation="none" if trainable else "mean",
        )

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the input's shape."""
        return input_shape

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns [N, H, W, C] normalised by the batch's statistics, or by the moving ones."""
        if not training:
            return self._normalize(inputs, self.moving_mean.value, self.moving_variance.value)[0]
        normalize = self._normalize_together if self.is_synchronized else self._normalize
        outputs, mean, variance = normalize(inputs)
        _move(self.moving_mean, mean)
        _move(self.moving_variance, variance)
        return outputs

    def _normalize(
        self,
        inputs: tf.Tensor,
        mean: tf.Tensor | None = None,
        variance: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return tf.compat.v1.nn.fused_batch_norm(
            inputs,
            scale=self.gamma.value,
            offset=self.beta.value,
            mean=mean,
            variance=variance,
            epsilon=EPSILON,
            is_training=mean is None,
        )

    def _normalize_together(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Normalises by the statistics of all replicas' shares, with gradients through them."""
        values = tf.cast(inputs, tf.float32)
        own_mean, own_variance = tf.nn.moments(values, axes=[0, 1, 2])
        mean = all_reduce_mean(own_mean)
        # Not E[x^2] - E[x]^2, whose rounding errors exceed a small variance at a large mean.
        variance = all_reduce_mean(own_variance + tf.square(own_mean - mean))
        scale = tf.math.rsqrt(variance + EPSILON) * self.gamma.value
        outputs = values * scale + (self.beta.value - mean * scale)
        count = tf.cast(replicas() * tf.size(inputs) // tf.shape(inputs)[-1], tf.float32)
        return tf.cast(outputs, inputs.dtype), mean, variance * count / (count - 1.0)


def synchronize(network: keras.Model) -> None:
    """Makes a network's batch normalisation use the whole batch of all replicas in training."""
    for layer in network._flatten_layers():
        if isinstance(layer, BatchNormalization):
            layer.is_synchronized = replicas() > 1


def _move(statistic: keras.Variable, batch_value: tf.Tensor) -> None:
    statistic.assign(MOMENTUM * statistic.value + (1.0 - MOMENTUM) * batch_value)
