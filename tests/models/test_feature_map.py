import numpy as np
import pytest
import tensorflow as tf

from tfadv.models.feature_map import Dropout, FeatureMap


def make_map(feature_shape, **options):
    network = FeatureMap(feature_shape, **{"embedding": 7, "hidden": 16, **options})
    network.build((None, *feature_shape))
    return network


@pytest.mark.parametrize("pooling", ["flatten", "average"])
@pytest.mark.parametrize("shape", [(10,), (4, 4, 6)])
def test_embeddings_of_the_asked_size_come_from_features_of_any_split_point(shape, pooling):
    outputs = make_map(shape, pooling=pooling)(np.ones((3, *shape), np.float32))
    assert (outputs.shape, outputs.dtype) == ((3, 7), tf.float32)


def test_embeddings_are_float32_under_mixed_precision():
    network = make_map((10,), dtype="mixed_bfloat16")
    assert network(np.ones((3, 10), np.float32)).dtype == tf.float32
    assert {variable.dtype for variable in network.trainable_variables} == {"float32"}


def test_average_pooling_sees_only_the_mean_over_height_and_width():
    network = make_map((4, 4, 6), pooling="average")
    features = np.random.default_rng(0).normal(size=(2, 4, 4, 6)).astype(np.float32)
    flat = np.broadcast_to(features.mean((1, 2), keepdims=True), features.shape)
    np.testing.assert_allclose(network(features), network(flat), rtol=1e-4, atol=1e-5)


def test_flattening_sees_where_a_value_lies():
    network = make_map((4, 4, 6), pooling="flatten")
    features = np.random.default_rng(0).normal(size=(2, 4, 4, 6)).astype(np.float32)
    assert not np.allclose(network(features), network(features[:, ::-1]), atol=1e-3)


def test_it_is_the_perceptron_that_its_weights_say():
    network = make_map((5,))
    features = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    weights = [variable.numpy() for variable in network.trainable_variables]
    outputs = features
    for kernel, bias in zip(weights[0::2], weights[1::2], strict=True):
        outputs = np.maximum(outputs, 0) if kernel is not weights[0] else outputs
        outputs = outputs @ kernel + bias
    np.testing.assert_allclose(network(features), outputs, rtol=1e-5, atol=1e-6)


def test_dropout_drops_half_and_makes_up_for_it_in_training_alone():
    layer = Dropout(0.5)
    layer.build((None, 50))
    ones = np.ones((40, 50), np.float32)
    np.testing.assert_array_equal(layer(ones), ones)
    first, second = layer(ones, training=True).numpy(), layer(ones, training=True).numpy()
    for dropped in (first, second):
        assert {*dropped.ravel().tolist()} == {0.0, 2.0}
        assert abs(dropped.mean() - 1.0) < 0.1  # over 2,000 values: 4.5 standard deviations
    assert (first != second).any()


def test_dropout_goes_on_as_before_from_a_checkpoint(tmp_path):
    ones, layers = np.ones((4, 50), np.float32), [Dropout(0.5), Dropout(0.5)]
    for layer in layers:
        layer.build((None, 50))
    layers[0](ones, training=True)
    path = tf.train.Checkpoint(layer=layers[0]).write(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(layer=layers[1]).read(path).assert_consumed()
    for _ in range(2):
        one, other = (layer(ones, training=True) for layer in layers)
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["embedding", "hidden"])
def test_a_number_that_is_not_positive_is_refused(name):
    with pytest.raises(ValueError, match=r"units.*: units=0"):
        make_map((10,), **{name: 0})
