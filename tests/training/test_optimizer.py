import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv.training.optimizer import FusedAdam

STEPS = 20
SETTINGS = {
    "plain": {},
    "other betas": {"beta_1": 0.5, "beta_2": 0.99, "epsilon": 1e-5},
    "clipped": {"global_clipnorm": 0.1},
    "decayed weights": {"weight_decay": 0.01},
    "accumulated": {"gradient_accumulation_steps": 3},
    "averaged": {"use_ema": True, "ema_momentum": 0.9},
    "amsgrad": {"amsgrad": True},
}


def fit(optimizer, steps=STEPS):
    """The variables after each step of a problem whose gradients change sign and size."""
    random = np.random.default_rng(0)
    variables = [keras.Variable(random.normal(size=s).astype("float32")) for s in ((5, 7), (3,))]
    optimizer.build(variables)

    @tf.function
    def step(targets):
        with tf.GradientTape() as tape:
            total = sum(
                tf.reduce_sum(tf.square(variable.value - target))
                for variable, target in zip(variables, targets, strict=True)
            )
        optimizer.apply(tape.gradient(total, [each.value for each in variables]), variables)

    path = []
    for _ in range(steps):
        step([tf.constant(random.normal(size=v.shape), tf.float32) for v in variables])
        path.append(np.concatenate([variable.numpy().ravel() for variable in variables]))
    return np.array(path)


@pytest.mark.parametrize("name", SETTINGS)
def test_equals_adam_of_keras_at_every_step(name):
    ours = fit(FusedAdam(0.01, **SETTINGS[name]))
    np.testing.assert_allclose(
        ours, fit(keras.optimizers.Adam(0.01, **SETTINGS[name])), rtol=1e-5, atol=1e-6
    )


def test_is_the_adam_of_the_paper():
    gradients = np.random.default_rng(0).normal(size=(STEPS, 5))
    variable, optimizer = keras.Variable(np.ones(5, np.float32)), FusedAdam(0.1, epsilon=1e-8)
    expected, first, second = np.ones(5), 0.0, 0.0
    for step, gradient in enumerate(gradients, start=1):
        optimizer.apply([tf.constant(gradient, tf.float32)], [variable])
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * np.square(gradient)
        unbiased = first / (1 - 0.9**step), second / (1 - 0.999**step)
        expected = expected - 0.1 * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
    np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_follows_a_schedule():
    schedules = [keras.optimizers.schedules.CosineDecay(0.01, STEPS) for _ in range(2)]
    ours, reference = fit(FusedAdam(schedules[0])), fit(keras.optimizers.Adam(schedules[1]))
    np.testing.assert_allclose(ours, reference, rtol=1e-5, atol=1e-6)
    assert np.abs(np.diff(ours, axis=0)[-1]).max() < 1e-3


def test_takes_a_checkpoint_of_keras_adam(tmp_path):
    variable = keras.Variable([1.0, -2.0])
    reference, ours = keras.optimizers.Adam(0.1), FusedAdam(0.1)
    for optimizer in (reference, ours):
        optimizer.build([variable])
    reference.apply([tf.constant([0.5, 3.0])])
    path = tf.train.Checkpoint(optimizer=reference).save(tmp_path / "checkpoint")
    tf.train.Checkpoint(optimizer=ours).restore(path).assert_consumed()
    for value, expected in zip(ours.variables, reference.variables, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_is_adam_in_what_it_says_of_itself():
    assert isinstance(FusedAdam(0.1), keras.optimizers.Adam)
    assert FusedAdam.from_config(FusedAdam(0.1, beta_1=0.5).get_config()).beta_1 == 0.5


# In a process of its own, as devices are set up before TensorFlow starts.
TWO_REPLICAS = """
import keras, tensorflow as tf
from tfadv.training.optimizer import FusedAdam

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

def fit(adam):
    with strategy.scope():
        variable = keras.Variable([1.0, -2.0, 3.0])
        optimizer = adam(0.1)
        optimizer.build([variable])

    def replica_step():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        gradient = variable.value - 4.0 * tf.cast(replica, tf.float32)  # to 2 in all
        optimizer.apply([gradient], [variable])

    step = tf.function(lambda: strategy.run(replica_step))
    for _ in range(20):
        step()
    return [each.numpy() for each in variable.value.values]

for ours, other, expected in zip(*fit(FusedAdam), fit(keras.optimizers.Adam)[0], strict=True):
    assert abs(ours - expected) < 1e-4 and ours == other, (ours, other, expected)
print("equal")
"""


def test_on_two_replicas_it_is_keras_adam_and_both_have_the_same_weights():
    command = [sys.executable, "-c", TWO_REPLICAS]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.strip() == "equal", done.stderr[-2000:]
