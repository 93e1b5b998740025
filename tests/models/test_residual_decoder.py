import numpy as np
import pytest
import tensorflow as tf

from tfadv.config.schema import Config
from tfadv.models.adversary import Adversary
from tfadv.models.build import build_adversary
from tfadv.models.decoder import Decoder
from tfadv.models.layers import Linear, TransposedConvolution
from tfadv.models.residual_decoder import ResidualDecoder
from tfadv.models.resnet import SPLITS, ResidualBlock, feature_shape


def channels(decoder):
    """Output channels of the residual blocks, in order."""
    blocks = [layer for layer in decoder.deconvolutions if isinstance(layer, ResidualBlock)]
    return [block.convolutions[-1].filters for block in blocks]


def linear_layers(decoder):
    return [layer for layer in decoder.linear if isinstance(layer, Linear)]


@pytest.mark.parametrize("size", [64, 224])
@pytest.mark.parametrize("split", SPLITS)
def test_every_split_point_gives_pictures_in_range(split, size):
    shape = feature_shape(split, size, depth=18, width=0.125)
    decoder = ResidualDecoder(shape, size, split, width=0.05)
    images = decoder(3 * tf.random.stateless_normal((2, *shape), (0, 0)))
    assert images.shape == (2, size, size, 3)
    assert images.dtype == tf.float32
    assert np.abs(images).max() <= 1


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
    decoder = ResidualDecoder(feature_shape(split, 224), 224, split)
    assert channels(decoder) == [count for count in expected for _ in range(2)]
    kinds = [type(layer) for layer in decoder.deconvolutions]
    after = [kinds[i + 3 : i + 5] for i, kind in enumerate(kinds) if kind is TransposedConvolution]
    assert after == [[ResidualBlock] * 2] * len(expected)


# Features of encoders that aren't ours, as the decoder of Figure 6 takes them.
@pytest.mark.parametrize(
    "shape", [(2, 2, 1280), (32, 32, 7), (128,), (7, 7, 16), (8, 4, 16), (49, 32)]
)
def test_a_foreign_feature_enters_where_it_does_in_figure_6(shape):
    decoder = ResidualDecoder(shape, 64, width=0.05)
    figure_6 = Decoder(shape, 64, width=0.05)
    assert len(linear_layers(decoder)) == len(linear_layers(figure_6))
    doublings = [
        each for each in figure_6.deconvolutions if isinstance(each, TransposedConvolution)
    ]
    assert len(channels(decoder)) == 2 * len(doublings)
    assert decoder(tf.zeros((1, *shape))).shape == (1, 64, 64, 3)


def test_build_creates_all_variables():
    decoder = ResidualDecoder((100,), 64, width=0.05)
    decoder.build((None, 100))
    count = len(decoder.variables)
    decoder(tf.zeros((2, 100)), training=True)
    # Two linear layers; five doublings, each with two blocks of two convolutions; the last.
    assert count == len(decoder.variables) == 4 + 5 * (1 + 2 * 2) * 5 + 2


def test_blocks_begin_as_the_identity():
    decoder = ResidualDecoder((4, 4, 6), 32, width=0.05)
    decoder.build((None, 4, 4, 6))
    blocks = [layer for layer in decoder.deconvolutions if isinstance(layer, ResidualBlock)]
    maps = tf.abs(tf.random.stateless_normal((2, 8, 8, blocks[0].convolutions[0].filters), (0, 0)))
    np.testing.assert_array_equal(blocks[0](maps), maps)


def test_every_trainable_variable_has_a_gradient_and_training_moves_the_statistics():
    decoder = ResidualDecoder((4, 4, 6), 32, width=0.05)
    decoder.build((None, 4, 4, 6))
    features = tf.random.stateless_normal((3, 4, 4, 6), (0, 0))

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(decoder(features, training=True)))
        return tape.gradient(loss, [v.value for v in decoder.trainable_variables])

    # While a block is the identity, its first convolution has none.
    for layer in decoder.deconvolutions:
        if isinstance(layer, ResidualBlock):
            layer.normalisations[-1].gamma.assign(np.ones(layer.normalisations[-1].gamma.shape))
    assert all(np.any(gradient) for gradient in gradients())
    moved = [v for v in decoder.non_trainable_variables if "moving_variance" in v.path]
    assert moved
    assert all(np.any(variable.numpy() != 1) for variable in moved)


def test_inference_leaves_the_moving_statistics():
    decoder = ResidualDecoder((100,), 32, width=0.05)
    decoder.build((None, 100))
    before = decoder.get_weights()
    tf.function(decoder)(tf.ones((2, 100)), training=False)
    np.testing.assert_equal(decoder.get_weights(), before)


def test_mixed_precision_keeps_variables_and_pictures_float32():
    decoder = ResidualDecoder((8, 8, 5), 32, width=0.05, dtype="mixed_bfloat16")
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


def test_config_rebuilds_the_architecture():
    decoder = ResidualDecoder((2048,), 96, "avgpool", width=0.25)
    rebuilt = ResidualDecoder(**decoder.get_config())
    assert channels(rebuilt) == channels(decoder)
    assert len(linear_layers(rebuilt)) == 1


def test_error_names_a_size_that_is_no_multiple_of_32():
    with pytest.raises(ValueError, match="multiple of 32, not 50"):
        ResidualDecoder((1000,), 50)


@pytest.mark.parametrize(("name", "kind"), [("figure6", Decoder), ("residual", ResidualDecoder)])
def test_the_config_chooses_the_decoder(name, kind):
    config = Config()
    config.model.decoder, config.model.decoder_width = name, 0.05
    adversary = build_adversary(config, (8, 8, 16), None, None)
    assert isinstance(adversary, Adversary)
    assert type(adversary.decoder) is kind
    assert adversary.decoder(tf.zeros((1, 8, 8, 16))).shape == (1, 64, 64, 3)
