import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv.models.layers import (
    Convolution,
    Linear,
    MaxPooling,
    Stage,
    TransposedConvolution,
    scaled_channels,
)


def convolve_by_hand(images, kernel, strides):
    """Cross-correlation with zero margins of k // 2 on every side, pixel by pixel."""
    size, margin = kernel.shape[0], kernel.shape[0] // 2
    padded = np.pad(images, [(0, 0), (margin, margin), (margin, margin), (0, 0)])
    rows = range(0, images.shape[1], strides)
    columns = range(0, images.shape[2], strides)
    patches = [[padded[:, i : i + size, j : j + size] for j in columns] for i in rows]
    return np.einsum("hwnabc,abcf->nhwf", np.array(patches), kernel)


@pytest.mark.parametrize("side", [8, 7])
@pytest.mark.parametrize("kernel_size", [1, 3, 7])
@pytest.mark.parametrize("strides", [1, 2])
def test_convolution_pads_both_sides_alike(side, kernel_size, strides):
    images = np.random.default_rng(0).normal(size=(2, side, side, 3)).astype(np.float32)
    layer = Convolution(4, kernel_size, strides)
    outputs = layer(images)
    expected = convolve_by_hand(images, layer.kernel.numpy(), strides)
    assert outputs.shape == layer.compute_output_shape(images.shape)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)


def test_convolution_starts_with_he_fan_out_scale():
    layer = Convolution(256, 3)
    layer.build((None, 8, 8, 64))
    assert layer.kernel.numpy().std() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.02)


def test_two_convolutions_start_with_different_kernels():
    layers = [Convolution(8, 3), Convolution(8, 3)]
    for layer in layers:
        layer.build((None, 8, 8, 8))
    assert not np.allclose(*(layer.kernel.numpy() for layer in layers))


def test_transposed_convolution_doubles_the_map_as_keras_same_does():
    inputs = np.random.default_rng(0).normal(size=(2, 4, 4, 8)).astype(np.float32)
    layer = TransposedConvolution(5)
    reference = keras.layers.Conv2DTranspose(5, 3, 2, "same", use_bias=False)
    reference.build(inputs.shape)
    outputs = layer(inputs)
    reference.set_weights(layer.get_weights())
    assert outputs.shape == (2, 8, 8, 5)
    np.testing.assert_allclose(outputs, reference(inputs), rtol=1e-5, atol=1e-5)


def test_max_pooling_looks_one_pixel_beyond_each_side():
    rising = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(MaxPooling()(rising)[0, ..., 0], [[5, 7], [13, 15]])


def test_stage_takes_maps_of_any_size_once_built():
    stage = Stage([Convolution(4, 3, 2), Convolution(8, 3)])
    stage.build((None, 8, 8, 3))
    assert stage(tf.zeros((1, 16, 16, 3))).shape == (1, 8, 8, 8)
    assert stage.compute_output_shape((None, 16, 16, 3)) == (None, 8, 8, 8)


def test_checkpoint_saves_every_variable_of_a_stage(tmp_path):
    stage = Stage([Convolution(4, 3, 2), Convolution(8, 3)])
    stage.build((None, 8, 8, 3))
    path = tf.train.Checkpoint(stage=stage).save(tmp_path / "checkpoint")
    shapes = [shape for name, shape in tf.train.list_variables(path) if "kernel" in name]
    assert sorted(shapes) == [[3, 3, 3, 4], [3, 3, 4, 8]]


@pytest.mark.parametrize(
    ("channels", "width", "expected"),
    [(64, 1.0, 64), (64, 0.5, 32), (64, 0.1, 8), (64, 0.01, 8), (256, 0.3, 80)],
)
def test_scaled_channels_are_multiples_of_eight(channels, width, expected):
    assert scaled_channels(channels, width) == expected


@pytest.mark.parametrize("layer", [Convolution, TransposedConvolution])
def test_bias_and_activation_are_keras_layers_own(layer):
    inputs = np.random.default_rng(0).normal(size=(2, 4, 4, 16)).astype(np.float32)
    arguments = (5, 3) if layer is Convolution else (5,)
    built = layer(*arguments, use_bias=True, activation="relu", bias_initializer="ones")
    bare = layer(*arguments)
    outputs = built(inputs, training=True)
    bare.build(inputs.shape)
    bare.set_weights(built.get_weights()[:1])
    np.testing.assert_allclose(outputs, np.maximum(bare(inputs) + 1.0, 0.0), rtol=1e-4, atol=1e-4)


def test_linear_is_keras_dense_with_or_without_bias():
    inputs = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    for use_bias in (True, False):
        layer, dense = (kind(5, "relu", use_bias) for kind in (Linear, keras.layers.Dense))
        expected = dense(inputs)
        layer.build(inputs.shape)
        layer.set_weights(dense.get_weights())
        np.testing.assert_allclose(layer(inputs), expected, rtol=1e-5, atol=1e-6)
