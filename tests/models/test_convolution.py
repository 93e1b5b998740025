import numpy as np
import pytest
import tensorflow as tf

from tfadv.models import convolution
from tfadv.models.convolution import convolve, convolve_transposed, multiply

CHANNELS, FILTERS = 16, 24


def draw(*shape):
    return tf.constant(np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32))


def outputs_and_gradients(function, inputs, kernel):
    """Also the gradients of a sum that weighs every output differently."""
    with tf.GradientTape() as tape:
        tape.watch([inputs, kernel])
        outputs = function(inputs, kernel)
        weights = tf.reshape(tf.cos(tf.range(tf.size(outputs), dtype=tf.float32)), outputs.shape)
        total = tf.reduce_sum(outputs * weights)
    return outputs, *tape.gradient(total, [inputs, kernel])


def assert_equal(function, plain, inputs, kernel):
    ours = outputs_and_gradients(function, inputs, kernel)
    for value, expected in zip(ours, outputs_and_gradients(plain, inputs, kernel), strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("side", [1, 2, 4, 5, 9])
@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("strides", [1, 2])
def test_convolution_in_training_has_the_plain_gradients(side, size, strides):
    def plain(inputs, kernel):
        margins = [(size // 2, size // 2)] * 2
        return tf.nn.conv2d(tf.pad(inputs, [(0, 0), *margins, (0, 0)]), kernel, strides, "VALID")

    inputs, kernel = draw(3, side, side, CHANNELS), draw(size, size, CHANNELS, FILTERS)
    assert_equal(lambda x, w: convolve(x, w, strides, training=True), plain, inputs, kernel)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels", [8, CHANNELS])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (4, 4), (3, 4), (8, 8)])
def test_transposed_convolution_has_the_plain_gradients(shape, channels, training):
    def plain(inputs, kernel):
        doubled = (3, 2 * shape[0], 2 * shape[1], FILTERS)
        return tf.nn.conv2d_transpose(inputs, kernel, doubled, 2, "SAME")

    inputs, kernel = draw(3, *shape, channels), draw(3, 3, FILTERS, channels)
    assert_equal(lambda x, w: convolve_transposed(x, w, training), plain, inputs, kernel)


def test_transposed_convolution_to_an_image_has_the_plain_gradients():
    def plain(inputs, kernel):
        return tf.nn.conv2d_transpose(inputs, kernel, (2, 16, 16, 3), 2, "SAME")

    inputs, kernel = draw(2, 8, 8, CHANNELS), draw(3, 3, 3, CHANNELS)
    assert_equal(lambda x, w: convolve_transposed(x, w, True), plain, inputs, kernel)


def test_linear_product_has_the_plain_gradients():
    assert_equal(multiply, tf.matmul, draw(5, 32), draw(32, 40)[:, :])


@pytest.mark.parametrize(
    ("function", "side", "size"),
    [
        (lambda x, w: convolve(x, w, 2, training=True), 4, 3),
        (lambda x, w: convolve(x, w, 1, training=True), 4, 1),
        (lambda x, w: convolve_transposed(x, w, training=True), 4, 3),
        (lambda x, w: convolve_transposed(x, w, training=True), 8, 3),
    ],
    ids=["strided", "1x1", "transposed", "transposed, large"],
)
def test_products_take_maps_of_bfloat16(function, side, size):
    inputs, kernel = draw(2, side, side, CHANNELS), draw(size, size, CHANNELS, CHANNELS)
    exact = outputs_and_gradients(function, inputs, kernel)
    rounded = (tf.cast(inputs, tf.bfloat16), tf.cast(kernel, tf.bfloat16))
    with tf.GradientTape() as tape:
        tape.watch(rounded)
        outputs = tf.cast(function(*rounded), tf.float32)
        weights = tf.reshape(tf.cos(tf.range(tf.size(outputs), dtype=tf.float32)), outputs.shape)
        total = tf.reduce_sum(outputs * weights)
    gradients = tape.gradient(total, rounded)
    for value, expected in zip([outputs, *gradients], exact, strict=True):
        error = np.linalg.norm(tf.cast(value, tf.float32) - expected) / np.linalg.norm(expected)
        assert error < 0.01


def test_a_map_of_unknown_size_is_convolved_plainly():
    step = tf.function(lambda x, w: convolve(x, w, 1, training=True))
    inputs, kernel = draw(2, 6, 6, CHANNELS), draw(3, 3, CHANNELS, FILTERS)
    traced = step.get_concrete_function(
        tf.TensorSpec((None, None, None, CHANNELS)), tf.TensorSpec(kernel.shape)
    )
    expected = tf.nn.conv2d(inputs, kernel, 1, "SAME")
    np.testing.assert_allclose(traced(inputs, kernel), expected, rtol=1e-5, atol=1e-5)


def test_on_a_gpu_everything_is_the_plain_convolution(monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind])

    @tf.function
    def gradients(inputs, kernel, transposed):
        outputs = lambda x, w: convolve_transposed(convolve(x, w, 1, True), transposed, True)  # noqa: E731
        return outputs_and_gradients(outputs, inputs, kernel)

    shapes = [(2, 4, 4, CHANNELS), (3, 3, CHANNELS, FILTERS), (3, 3, CHANNELS, FILTERS)]
    graph = gradients.get_concrete_function(*map(tf.TensorSpec, shapes)).graph
    kinds = {operation.type for operation in graph.get_operations()}
    assert "Conv2DBackpropFilter" in kinds
    assert not kinds & {"MatMul", "GatherV2"}


def test_columns_of_a_window_by_hand():
    image = tf.reshape(tf.range(1.0, 5.0), (1, 2, 2, 1))
    columns = convolution._columns(image, 3, 1, "SAME")
    np.testing.assert_array_equal(columns[0], [0, 0, 0, 0, 1, 2, 0, 3, 4])
    np.testing.assert_array_equal(columns[3], [1, 2, 0, 3, 4, 0, 0, 0, 0])
