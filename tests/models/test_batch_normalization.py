import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv.models.batch_normalization import BatchNormalization

SHAPE = (4, 5, 3, 6)


@pytest.fixture
def inputs():
    return np.random.default_rng(0).normal(2, 3, SHAPE).astype(np.float32)


@pytest.fixture
def pair():
    """Our layer and Keras' own, with the same random variables."""
    generator = np.random.default_rng(1)
    values = [generator.uniform(0.5, 2, SHAPE[-1]).astype(np.float32) for _ in range(4)]
    layers = (BatchNormalization(), keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5))
    for layer in layers:
        layer.build(SHAPE)
        for name, value in zip(
            ("gamma", "beta", "moving_mean", "moving_variance"), values, strict=True
        ):
            getattr(layer, name).assign(value)
    return layers


@pytest.mark.parametrize("training", [True, False])
def test_outputs_equal_keras(pair, inputs, training):
    ours, reference = (layer(inputs, training=training) for layer in pair)
    np.testing.assert_allclose(ours, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_gradients_equal_keras(pair, inputs, training):
    weights = tf.random.stateless_normal(SHAPE, (0, 0))

    @tf.function
    def gradients(layer, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(weights * layer(x, training=training))
        return tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])

    ours, reference = (gradients(layer, tf.constant(inputs)) for layer in pair)
    for gradient, expected in zip(ours, reference, strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-4)


def test_moving_statistics_follow_the_batch_with_the_unbiased_variance(inputs):
    layer = BatchNormalization()
    layer(inputs, training=True)
    values = inputs.reshape(-1, SHAPE[-1])
    np.testing.assert_allclose(layer.moving_mean, 0.1 * values.mean(0), rtol=1e-4)
    expected = 0.9 + 0.1 * values.var(0, ddof=1)
    np.testing.assert_allclose(layer.moving_variance, expected, rtol=1e-4)


def test_inference_leaves_the_moving_statistics(pair, inputs):
    layer = pair[0]
    before = layer.get_weights()
    layer(inputs, training=False)
    np.testing.assert_equal(layer.get_weights(), before)


def test_bfloat16_keeps_float32_variables_and_statistics(inputs):
    layer = BatchNormalization(dtype="mixed_bfloat16")
    outputs = layer(tf.cast(1000 + inputs, tf.bfloat16), training=True)
    assert outputs.dtype == tf.bfloat16
    assert {variable.dtype for variable in layer.variables} == {"float32"}
    rounded = tf.cast(tf.cast(1000 + inputs, tf.bfloat16), tf.float32).numpy()
    expected = 0.1 * rounded.reshape(-1, SHAPE[-1]).mean(0)
    np.testing.assert_allclose(layer.moving_mean, expected, rtol=1e-5)


REPLICAS = """
import numpy as np, tensorflow as tf
from tfadv.models.batch_normalization import BatchNormalization

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    layer = BatchNormalization()
    layer.build((None, 2, 2, 1))

def batch(context):
    values = tf.reshape(tf.range(4.0), (1, 2, 2, 1))
    return values + 10.0 * tf.cast(context.replica_id_in_sync_group, tf.float32)

@tf.function
def step():
    return strategy.run(lambda: layer(batch(tf.distribute.get_replica_context()), training=True))

outputs = strategy.experimental_local_results(step())
np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-4)  # each by its own batch
for mean in strategy.experimental_local_results(layer.moving_mean.value):
    np.testing.assert_allclose(mean, [0.1 * (1.5 + 11.5) / 2], rtol=1e-5)
"""


def test_replicas_share_the_mean_of_their_statistics():
    run = subprocess.run([sys.executable, "-c", REPLICAS], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
