import numpy as np
import pytest
import tensorflow as tf

from tfadv.models.decoder import Decoder
from tfadv.models.layers import TransposedConvolution
from tfadv.models.resnet import SPLITS, feature_shape

LAST = [3]


def channels(decoder):
    """Output channels of the transposed convolutions, in order."""
    return [
        layer.filters
        for layer in decoder.deconvolutions
        if isinstance(layer, TransposedConvolution)
    ]


def units(decoder):
    """Units of the linear layers, in order."""
    return [layer.units for layer in decoder.linear if hasattr(layer, "units")]


@pytest.mark.parametrize("size", [64, 96, 128, 224])
@pytest.mark.parametrize("split", SPLITS)
def test_every_split_point_gives_pictures_in_range(split, size):
    shape = feature_shape(split, size, depth=18, width=0.125)
    decoder = Decoder(shape, size, split, width=0.05)
    features = 3 * tf.random.stateless_normal((2, *shape), (0, 0))
    images = decoder(features)
    assert images.shape == (2, size, size, 3)
    assert images.dtype == tf.float32
    assert np.abs(images).max() <= 1


# Figure 6 and the design's table.
@pytest.mark.parametrize(
    ("split", "linear", "expected"),
    [
        ("conv1", [], []),
        ("conv2", [], [64]),
        ("conv3", [], [256, 64]),
        ("conv4", [], [512, 256, 64]),
        ("avgpool", [2048 * 49], [1024, 512, 256, 64]),
        ("fc", [2048, 2048 * 49], [1024, 512, 256, 64]),
    ],
)
def test_decoder_starts_where_the_paper_says(split, linear, expected):
    decoder = Decoder(feature_shape(split, 224), 224, split)
    assert units(decoder) == linear
    assert channels(decoder) == expected + LAST


def test_kernels_are_those_of_figure_6():
    decoder = Decoder((14, 14, 1024), 224)
    decoder.build((None, 14, 14, 1024))
    kernels = [variable.shape for variable in decoder.variables if "kernel" in variable.path]
    assert kernels == [(3, 3, 512, 1024), (3, 3, 256, 512), (3, 3, 64, 256), (3, 3, 3, 64)]


def test_width_scales_all_but_the_picture():
    decoder = Decoder((1000,), 64, width=0.5)
    assert units(decoder) == [1024, 1024 * 4]
    assert channels(decoder) == [512, 256, 128, 32, 3]


# Features of encoders that aren't ours.
@pytest.mark.parametrize(
    ("shape", "linear", "deconvolutions"),
    [
        ((2, 2, 1280), 0, 5),
        ((32, 32, 7), 0, 1),
        ((128,), 2, 5),
        ((2048,), 2, 5),
        ((7, 7, 16), 2, 5),
        ((64, 64, 4), 2, 5),
        ((8, 4, 16), 2, 5),
        ((49, 32), 2, 5),
    ],
)
def test_shape_alone_decides_for_foreign_features(shape, linear, deconvolutions):
    decoder = Decoder(shape, 64, width=0.05)
    assert len(units(decoder)) == linear
    assert len(channels(decoder)) == deconvolutions
    assert decoder(tf.zeros((1, *shape))).shape == (1, 64, 64, 3)


def test_build_creates_all_variables():
    decoder = Decoder((100,), 64, width=0.05)
    decoder.build((None, 100))
    count = len(decoder.variables)
    decoder(tf.zeros((2, 100)), training=True)
    assert count == len(decoder.variables) == 4 + 4 * 5 + 2  # linear, deconvolutions, the last


def test_inference_leaves_the_moving_statistics():
    decoder = Decoder((100,), 64, width=0.05)
    decoder.build((None, 100))
    before = decoder.get_weights()
    tf.function(decoder)(tf.ones((2, 100)), training=False)
    np.testing.assert_equal(decoder.get_weights(), before)
    tf.function(decoder)(tf.ones((2, 100)), training=True)
    moved = [v for v in decoder.non_trainable_variables if "moving_variance" in v.path]
    assert all(np.any(variable.numpy() != 1) for variable in moved)


def test_mixed_precision_keeps_variables_and_pictures_float32():
    decoder = Decoder((100,), 64, width=0.05, dtype="mixed_bfloat16")
    assert decoder(tf.zeros((2, 100))).dtype == tf.float32
    assert decoder.deconvolutions[0].compute_dtype == "bfloat16"
    assert {variable.dtype for variable in decoder.variables} == {"float32"}


def test_config_rebuilds_the_architecture():
    decoder = Decoder((2048,), 96, "avgpool", width=0.25)
    rebuilt = Decoder(**decoder.get_config())
    assert units(rebuilt) == units(decoder)
    assert channels(rebuilt) == channels(decoder)


@pytest.mark.parametrize("size", [0, 50, 100])
def test_error_names_a_size_that_is_no_multiple_of_32(size):
    with pytest.raises(ValueError, match=f"multiple of 32, not {size}"):
        Decoder((1000,), size)


@pytest.mark.parametrize("shape", [(), (None, 3), (0,)])
def test_error_names_a_shape_that_is_unknown(shape):
    with pytest.raises(ValueError, match="the feature's shape must be known"):
        Decoder(shape, 64)


def test_error_names_an_unknown_split():
    with pytest.raises(ValueError, match=r"split must be .*, not 'avg_pool'"):
        Decoder((2048,), 64, split="avg_pool")
