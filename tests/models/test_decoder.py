import numpy as np
import pytest
import tensorflow as tf

from tfadv.config.schema import Config
from tfadv.models.adversary import Adversary
from tfadv.models.build import build_adversary
from tfadv.models.decoder import Decoder, ResidualDecoder
from tfadv.models.encoder import Encoder
from tfadv.models.layers import TransposedConvolution
from tfadv.models.resnet import SPLITS, ResidualBlock

LAST = [3]
both_decoders = pytest.mark.parametrize("kind", [Decoder, ResidualDecoder])


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


def residual_blocks(decoder):
    return [layer for layer in decoder.deconvolutions if isinstance(layer, ResidualBlock)]


def block_channels(decoder):
    """Output channels of the residual blocks, in order."""
    return [block.convolutions[-1].filters for block in residual_blocks(decoder)]


@both_decoders
@pytest.mark.parametrize("size", [64, 224])
@pytest.mark.parametrize("split", SPLITS)
def test_every_split_point_gives_images_in_range(split, size, kind):
    shape = Encoder(18, 0.125, split).feature_shape(size)
    decoder = kind(shape, size, split, width=0.05)
    images = decoder(3 * tf.random.stateless_normal((2, *shape), (0, 0)))
    assert images.shape == (2, size, size, 3)
    assert images.dtype == tf.float32
    assert np.abs(images).max() <= 1


@pytest.mark.parametrize("size", [96, 128])
@pytest.mark.parametrize("split", ["conv1", "fc"])
def test_other_sizes_give_images_of_that_size(split, size):
    shape = Encoder(18, 0.125, split).feature_shape(size)
    assert Decoder(shape, size, split, width=0.05)(tf.zeros((1, *shape))).shape[1] == size


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
    decoder = Decoder(Encoder(50, split=split).feature_shape(224), 224, split)
    assert units(decoder) == linear
    assert channels(decoder) == expected + LAST


def test_kernels_are_those_of_figure_6():
    decoder = Decoder((14, 14, 1024), 224)
    decoder.build((None, 14, 14, 1024))
    kernels = [variable.shape for variable in decoder.variables if "kernel" in variable.path]
    assert kernels == [(3, 3, 512, 1024), (3, 3, 256, 512), (3, 3, 64, 256), (3, 3, 3, 64)]


def test_width_scales_all_but_the_image():
    decoder = Decoder((1000,), 64, width=0.5)
    assert units(decoder) == [1024, 1024 * 4]
    assert channels(decoder) == [512, 256, 128, 32, 3]


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("conv1", [64]),
        ("conv2", [128, 64]),
        ("conv3", [256, 128, 64]),
        ("conv4", [512, 256, 128, 64]),
        ("avgpool", [1024, 512, 256, 128, 64]),
        ("fc", [1024, 512, 256, 128, 64]),
    ],
)
def test_two_residual_blocks_follow_each_doubling_of_the_map(split, expected):
    decoder = ResidualDecoder(Encoder(50, split=split).feature_shape(224), 224, split)
    assert block_channels(decoder) == [count for count in expected for _ in range(2)]
    kinds = [type(layer) for layer in decoder.deconvolutions]
    after = [kinds[i + 3 : i + 5] for i, kind in enumerate(kinds) if kind is TransposedConvolution]
    assert after == [[ResidualBlock] * 2] * len(expected)


# Features of foreign encoders.
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
    figure_6, residual = (kind(shape, 64, width=0.05) for kind in (Decoder, ResidualDecoder))
    assert len(units(figure_6)) == len(units(residual)) == linear
    assert len(channels(figure_6)) == deconvolutions
    assert len(block_channels(residual)) == 2 * deconvolutions
    for decoder in (figure_6, residual):
        assert decoder(tf.zeros((1, *shape))).shape == (1, 64, 64, 3)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # Two linear layers; transposed convolutions with batch normalisation; the last.
        (Decoder, 4 + 4 * 5 + 2),
        # Two linear layers; five doublings, each with two blocks of two convolutions; the last.
        (ResidualDecoder, 4 + 5 * (1 + 2 * 2) * 5 + 2),
    ],
)
def test_build_creates_all_variables(kind, expected):
    decoder = kind((100,), 64, width=0.05)
    decoder.build((None, 100))
    count = len(decoder.variables)
    decoder(tf.zeros((2, 100)), training=True)
    assert count == len(decoder.variables) == expected


def test_residual_blocks_begin_as_the_identity():
    decoder = ResidualDecoder((4, 4, 6), 32, width=0.05)
    decoder.build((None, 4, 4, 6))
    block = residual_blocks(decoder)[0]
    maps = tf.abs(tf.random.stateless_normal((2, 8, 8, block.convolutions[0].filters), (0, 0)))
    np.testing.assert_array_equal(block(maps), maps)


def test_every_trainable_variable_of_the_residual_decoder_has_a_gradient():
    decoder = ResidualDecoder((4, 4, 6), 32, width=0.05)
    decoder.build((None, 4, 4, 6))
    features = tf.random.stateless_normal((3, 4, 4, 6), (0, 0))

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(decoder(features, training=True)))
        return tape.gradient(loss, [v.value for v in decoder.trainable_variables])

    # While a block is the identity, its first convolution has no gradient.
    for block in residual_blocks(decoder):
        gamma = block.normalizations[-1].gamma
        gamma.assign(np.ones(gamma.shape))
    assert all(np.any(gradient) for gradient in gradients())


@both_decoders
def test_training_moves_the_statistics_and_inference_leaves_them(kind):
    decoder = kind((100,), 32, width=0.05)
    decoder.build((None, 100))
    before = decoder.get_weights()
    tf.function(decoder)(tf.ones((2, 100)), training=False)
    np.testing.assert_equal(decoder.get_weights(), before)
    tf.function(decoder)(tf.random.stateless_normal((3, 100), (0, 0)), training=True)
    moved = [v for v in decoder.non_trainable_variables if "moving_variance" in v.path]
    assert moved
    assert all(np.any(variable.numpy() != 1) for variable in moved)


@both_decoders
def test_mixed_precision_keeps_variables_and_images_float32(kind):
    decoder = kind((8, 8, 5), 32, width=0.05, dtype="mixed_bfloat16")
    assert decoder(tf.zeros((2, 8, 8, 5)), training=True).dtype == tf.float32
    assert {layer.compute_dtype for layer in decoder.deconvolutions} == {"bfloat16"}
    assert {variable.dtype for variable in decoder.variables} == {"float32"}


def test_a_checkpoint_holds_every_variable(tmp_path):
    decoder, restored = (ResidualDecoder((100,), 32, width=0.05) for _ in range(2))
    for each in (decoder, restored):
        each.build((None, 100))
    path = tf.train.Checkpoint(model=decoder).save(tmp_path / "checkpoint")
    tf.train.Checkpoint(model=restored).restore(path).assert_consumed()
    np.testing.assert_equal(restored.get_weights(), decoder.get_weights())


@both_decoders
@pytest.mark.parametrize("size", [0, 50, 100])
def test_error_names_a_size_that_is_no_multiple_of_32(size, kind):
    with pytest.raises(ValueError, match=f"multiple of 32, not {size}"):
        kind((1000,), size)


@pytest.mark.parametrize("shape", [(), (None, 3), (0,)])
def test_error_names_a_shape_that_is_unknown(shape):
    with pytest.raises(ValueError, match="the feature's shape must be known"):
        Decoder(shape, 64)


def test_error_names_an_unknown_split():
    with pytest.raises(ValueError, match=r"split must be .*, not 'avg_pool'"):
        Decoder((2048,), 64, split="avg_pool")


@pytest.mark.parametrize(("name", "kind"), [("figure6", Decoder), ("residual", ResidualDecoder)])
def test_the_config_chooses_the_decoder(name, kind):
    config = Config()
    config.model.decoder, config.model.decoder_width = name, 0.05
    adversary = build_adversary(config.model, config.loss, config.data.size, (8, 8, 16), None, None)
    assert isinstance(adversary, Adversary)
    assert type(adversary.decoder) is kind
    assert adversary.decoder(tf.zeros((1, 8, 8, 16))).shape == (1, 64, 64, 3)
