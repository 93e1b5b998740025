import numpy as np
import pytest
import tensorflow as tf

from tfadv.models.encoder import Encoder
from tfadv.models.resnet import SPLITS

SMALL = {"depth": 18, "width": 0.125}


@pytest.fixture
def images():
    return tf.random.stateless_uniform((2, 64, 64, 3), (0, 0), -1, 1)


@pytest.mark.parametrize("split", SPLITS)
def test_features_have_the_promised_shape(images, split):
    encoder = Encoder(**SMALL, split=split)
    assert encoder(images).shape == (2, *encoder.feature_shape(64))


def test_one_encoder_takes_images_of_any_size():
    encoder = Encoder(**SMALL, split="conv3")
    encoder.build((None, 64, 64, 3))
    assert encoder(tf.zeros((1, 96, 96, 3))).shape == (1, *encoder.feature_shape(96))


def test_build_creates_all_variables(images):
    encoder = Encoder(**SMALL)
    encoder.build((None, 64, 64, 3))
    count = len(encoder.variables)
    encoder(images, training=True)
    assert count == len(encoder.variables) == 102  # 20 convolutions, 20 x 4 statistics, fc's 2


def test_images_are_normalised_as_imagenet(images):
    normalised = Encoder(**SMALL, split="conv1").normalize(images)
    expected = ((images + 1) / 2 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(normalised, expected, rtol=1e-5, atol=1e-5)


def test_mixed_precision_keeps_variables_and_features_float32(images):
    encoder = Encoder(**SMALL, dtype="mixed_bfloat16")
    features = encoder(images)
    assert encoder.compute_dtype == encoder.stages[0].layers[0].compute_dtype == "bfloat16"
    assert features.dtype == tf.float32
    assert {variable.dtype for variable in encoder.variables} == {"float32"}


def test_mixed_precision_gives_nearly_the_same_features(images):
    exact = Encoder(**SMALL, split="conv4")
    mixed = Encoder(**SMALL, split="conv4", dtype="mixed_bfloat16")
    features = exact(images)
    mixed.build(images.shape)
    mixed.set_weights(exact.get_weights())
    difference = np.linalg.norm(mixed(images) - features) / np.linalg.norm(features)
    assert difference < 0.05


@pytest.mark.parametrize("training", [True, False])
def test_moving_statistics_change_in_training_only(images, training):
    encoder = Encoder(**SMALL, split="conv2")
    encoder.build(images.shape)
    before = [value.numpy() for value in encoder.non_trainable_variables]
    tf.function(encoder)(images, training=training)
    changed = [
        not np.array_equal(value, old)
        for value, old in zip(encoder.non_trainable_variables, before, strict=True)
    ]
    assert all(changed) if training else not any(changed)


def test_gradients_reach_every_trainable_variable(images):
    encoder = Encoder(**SMALL)
    encoder.build(images.shape)

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(encoder(images, training=True) ** 2)
        return tape.gradient(loss, [variable.value for variable in encoder.trainable_variables])

    assert all(np.any(gradient != 0) for gradient in gradients())


def test_config_rebuilds_the_architecture_in_another_precision(images):
    encoder = Encoder(**SMALL, split="avgpool", dtype="mixed_bfloat16")
    encoder.build(images.shape)
    rebuilt = Encoder(**encoder.get_config(), dtype="float32")
    rebuilt.build(images.shape)
    rebuilt.set_weights(encoder.get_weights())
    assert rebuilt.compute_dtype == "float32"
    assert rebuilt(images).shape == (2, *encoder.feature_shape(64))


def test_checkpoint_restores_every_variable(images, tmp_path):
    saved, restored = Encoder(**SMALL), Encoder(**SMALL)
    saved(images, training=True)
    restored.build(images.shape)
    path = tf.train.Checkpoint(encoder=saved).save(tmp_path / "checkpoint")
    tf.train.Checkpoint(encoder=restored).restore(path).assert_existing_objects_matched()
    np.testing.assert_equal(restored.get_weights(), saved.get_weights())


def test_saved_model_gives_the_same_features(images, tmp_path):
    encoder = Encoder(**SMALL, split="conv4")
    features = encoder(images)
    encode = tf.function(lambda images: {"features": encoder(images, training=False)})
    signature = encode.get_concrete_function(tf.TensorSpec((None, None, None, 3)))
    tf.saved_model.save(encoder, tmp_path, signatures=signature)
    loaded = tf.saved_model.load(tmp_path).signatures["serving_default"]
    # A graph fuses what eager calls one by one: the sums differ by a few roundings of the largest.
    tolerance = 1e-5 * np.abs(features).max()
    np.testing.assert_allclose(loaded(images)["features"], features, rtol=1e-5, atol=tolerance)
