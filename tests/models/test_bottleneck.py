import cv2
import numpy as np
import pytest
import tensorflow as tf

from tfadv.models.bottleneck import Bottleneck, Noise, normal_divergence, quantize, soften
from tfadv.models.encoder import Encoder

SIZE = 32


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def make(shape=(8,), **options):
    tf.keras.utils.set_random_seed(0)
    bottleneck = Bottleneck(**options)
    bottleneck.build((None, *shape))
    return bottleneck


def images(count=4, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3))
    return tf.constant((pixels / 127.5 - 1).astype(np.float32))


def features(count=4, shape=(8,), seed=1, scale=3.0, offset=5.0):
    values = np.random.default_rng(seed).normal(offset, scale, (count, *shape))
    return tf.constant(values.astype(np.float32))


def test_does_nothing_by_default():
    assert make().is_identity
    np.testing.assert_array_equal(make()(features(), images()), features())
    assert Encoder(18, 0.125).bottleneck is None


@pytest.mark.parametrize("shape", [(8,), (4, 4, 8)])
@pytest.mark.parametrize("training", [False, True])
def test_a_linear_layer_gives_size_values_at_each_place(shape, training):
    bottleneck = make(shape, size=3)
    output = bottleneck(features(4, shape), images(), training=training)
    kernel, bias = (each.numpy() for each in bottleneck.linear.variables)
    np.testing.assert_allclose(output, features(4, shape).numpy() @ kernel + bias, rtol=1e-4)
    assert output.shape[1:] == bottleneck.output_shape_of(shape) == (*shape[:-1], 3)


@pytest.mark.parametrize("shape", [(8,), (4, 4, 8)])
@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_noise_is_added_to_values_of_variance_1(shape, kind):
    bottleneck = make(shape, noise=0.5, noise_kind=kind)
    given = features(2000, shape)
    given_images = images(8)
    output = bottleneck(given, tf.repeat(given_images, 250, axis=0), training=True).numpy()
    axes = tuple(range(len(shape)))
    white = (given - given.numpy().mean(axes)) / given.numpy().std(axes)
    noise = (output - white).numpy()
    assert noise.std() == pytest.approx(0.5, rel=0.03)
    assert abs(noise.mean()) < 0.02
    kurtosis = np.mean(noise**4) / np.mean(noise**2) ** 2
    assert kurtosis == pytest.approx({"gaussian": 3.0, "laplace": 6.0}[kind], rel=0.15)
    flat = noise.reshape(len(noise), -1)
    assert np.abs(np.corrcoef(flat[:, :8].T) - np.eye(8)).max() < 0.1


def test_no_learned_variable_can_lower_the_noise():
    assert not make(noise=0.5).trainable_variables
    bottleneck = make(size=3, noise=0.5)
    assert {id(each) for each in bottleneck.trainable_variables} == {
        id(each) for each in bottleneck.linear.trainable_variables
    }


def test_training_moves_the_statistics_that_inference_uses():
    bottleneck = make(noise=1e-6)
    given = features(512)
    for _ in range(100):
        bottleneck(given, images(1), training=True)
    output = bottleneck(given[:4], images())
    white = (given - given.numpy().mean(0)) / given.numpy().std(0)
    np.testing.assert_allclose(output, white[:4], atol=1e-2)


def test_an_image_gets_the_same_noise_in_any_batch():
    bottleneck = make(noise=1.0)
    together = bottleneck(features(), images()).numpy()
    alone = np.concatenate(
        [bottleneck(features()[i : i + 1], images()[i : i + 1]) for i in range(4)]
    )
    np.testing.assert_array_equal(together, alone)
    # The same 8-bit pixels.
    close = images() + 1e-4
    np.testing.assert_array_equal(together, bottleneck(features(), close))


def test_another_image_gets_other_noise():
    bottleneck, given = make((400,), noise=1.0), features(1, (400,))
    changed = images(1).numpy()
    changed[0, 3, 4, 1] += 2 / 255
    one, other = (
        bottleneck(given, tf.constant(each)).numpy() for each in (images(1).numpy(), changed)
    )
    assert abs(np.corrcoef(one - given, other - given)[0, 1]) < 0.2


def test_another_network_gives_other_noise():
    bottleneck = make((400,), noise=1.0)
    tf.keras.utils.set_random_seed(1)
    other = Bottleneck(noise=1.0)
    other.build((None, 400))
    noises = [each.noise(features(1, (400,)), images(1)).numpy()[0] for each in (bottleneck, other)]
    assert abs(np.corrcoef(*noises)[0, 1]) < 0.2


def test_training_draws_new_noise_at_each_step_which_a_restored_state_repeats():
    noise = Noise(1.0, "gaussian")
    noise.build((None, 8))
    state = noise.get_weights()
    first, second = (noise(features(), images(), training=True).numpy() for _ in range(2))
    assert (first != second).all()
    noise.set_weights(state)
    np.testing.assert_array_equal(first, noise(features(), images(), training=True))


def test_1_bit_is_the_sign():
    values = tf.constant([-5.0, -0.1, 0.1, 1.0, 9.0])
    np.testing.assert_array_equal(quantize(values, 1, False), [-1, -1, 1, 1, 1])


@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_quantizes_to_the_nearest_of_2_to_the_bits_levels(rng, bits):
    values = rng.normal(size=1000).astype(np.float32)
    levels = np.linspace(-2, 2, 2 * 2**bits + 1)[1::2]
    expected = levels[np.abs(values[:, None] - levels).argmin(1)]
    quantized = quantize(tf.constant(values), bits, False).numpy()
    np.testing.assert_allclose(quantized, expected, atol=1e-6)
    assert len(np.unique(quantized)) <= 2**bits


def test_in_inference_there_are_2_to_the_bits_values():
    bottleneck = make((64,), bits=2, noise=0.1)
    assert len(np.unique(bottleneck(features(64, (64,)), images(64)))) == 4


@pytest.mark.parametrize("training", [True, False])
def test_gradients_go_straight_through_in_training(training):
    values = tf.constant([-3.0, -0.4, 0.3, 2.5])
    with tf.GradientTape() as tape:
        tape.watch(values)
        quantized = quantize(values, 1, training)
    gradient = tape.gradient(quantized, values)
    if training:
        np.testing.assert_array_equal(gradient, [0.0, 1.0, 1.0, 0.0])
        np.testing.assert_allclose(quantized, [-1, -1, 1, 1], atol=1e-6)
    else:
        assert gradient is None or not np.any(gradient)


def test_divergence_agrees_with_sampling(rng):
    """The mean of 200,000 draws of log N(mean, variance) - log N(0, 1)."""
    mean, log_variance = np.float32(0.7), np.float32(-0.9)
    deviation = np.exp(log_variance / 2)
    drawn = rng.normal(mean, deviation, 200_000)
    logs = -0.5 * ((drawn - mean) / deviation) ** 2 - np.log(deviation) + 0.5 * drawn**2
    value = normal_divergence(tf.constant([[mean]]), tf.constant([[log_variance]]))
    assert float(value) == pytest.approx(logs.mean(), rel=0.02)
    assert float(normal_divergence(tf.zeros((3, 2)), tf.zeros((3, 2)))) == 0.0


def test_a_variational_bottleneck_adds_its_weighted_divergence():
    bottleneck = make(size=3, variational=0.25)
    output, penalty = bottleneck.penalized(features(), images(), training=True)
    values = bottleneck.linear(features())
    mean, log_variance = (layer(values) for layer in bottleneck.moments)
    expected = 0.25 * normal_divergence(mean, log_variance)
    assert float(penalty) == pytest.approx(float(expected), rel=1e-5)
    assert output.shape == (4, 3)
    deviations = (output - mean) / tf.exp(0.5 * log_variance)
    again = bottleneck(features(), images(), training=True)
    assert np.abs(deviations).max() < 6
    assert (output.numpy() != again.numpy()).all()


@pytest.mark.parametrize(
    "options",
    [
        {"size": -1},
        {"bits": 17},
        {"noise": 1.0, "variational": 1.0},
        {"variational": 1.0, "noise_kind": "laplace"},
        {"noise": 1, "noise_kind": "x"},
    ],
)
def test_bad_arguments_are_refused(options):
    with pytest.raises(ValueError, match=r"-1|17|noise of its own|gaussian, laplace"):
        Bottleneck(**options)


def test_an_encoder_with_a_bottleneck_knows_its_output_shape():
    encoder = Encoder(18, 0.125, "conv4", {"size": 5, "bits": 1}, blur=1.0, downscale=2)
    encoder.build((None, SIZE, SIZE, 3))
    output = encoder(images())
    assert output.shape[1:] == encoder.feature_shape(SIZE) == (2, 2, 5)
    assert set(np.unique(output)) == {-1.0, 1.0}
    copy = Encoder(**encoder.get_config())
    copy.build((None, SIZE, SIZE, 3))
    copy.set_weights(encoder.get_weights())
    np.testing.assert_array_equal(copy(images()), output)


def test_noise_depends_on_the_image_before_it_is_softened():
    encoder = Encoder(18, 0.125, "avgpool", {"noise": 1.0}, blur=2.0)
    encoder.build((None, SIZE, SIZE, 3))
    together = encoder(images()).numpy()
    alone = np.concatenate([encoder(images()[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(together, alone, atol=1e-3)


@pytest.fixture
def inputs():
    return np.random.default_rng(0).uniform(-1, 1, size=(2, 32, 32, 3)).astype(np.float32)


def test_images_are_not_softened_by_default(inputs):
    np.testing.assert_array_equal(soften(tf.constant(inputs)), inputs)


@pytest.mark.parametrize("sigma", [0.7, 2.0])
def test_images_are_blurred_as_by_opencv(inputs, sigma):
    side = 2 * int(np.ceil(3 * sigma)) + 1
    expected = [
        cv2.GaussianBlur(image, (side, side), sigma, borderType=cv2.BORDER_REFLECT)
        for image in inputs
    ]
    np.testing.assert_allclose(soften(tf.constant(inputs), blur=sigma), expected, atol=1e-5)


@pytest.mark.parametrize("factor", [2, 4])
def test_images_are_shrunk_and_enlarged_as_by_opencv(inputs, factor):
    small = [
        cv2.resize(image, (32 // factor,) * 2, interpolation=cv2.INTER_AREA) for image in inputs
    ]
    expected = [cv2.resize(image, (32, 32), interpolation=cv2.INTER_LINEAR) for image in small]
    np.testing.assert_allclose(soften(tf.constant(inputs), downscale=factor), expected, atol=1e-5)


def test_images_are_shrunk_before_they_are_blurred(inputs):
    both = soften(tf.constant(inputs), blur=1.5, downscale=4)
    np.testing.assert_allclose(both, soften(soften(inputs, downscale=4), blur=1.5), atol=1e-6)
