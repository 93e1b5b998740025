import numpy as np
import pytest
import tensorflow as tf

from tfadv.models.bottleneck import Bottleneck, Noise, normal_divergence, quantise
from tfadv.models.encoder import Encoder

SIZE = 32


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def make(shape=(8,), **options):
    tf.keras.utils.set_random_seed(0)
    code = Bottleneck(**options)
    code.build((None, *shape))
    return code


def pictures(count=4, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3))
    return tf.constant((pixels / 127.5 - 1).astype(np.float32))


def features(count=4, shape=(8,), seed=1, scale=3.0, offset=5.0):
    values = np.random.default_rng(seed).normal(offset, scale, (count, *shape))
    return tf.constant(values.astype(np.float32))


def test_does_nothing_by_default():
    assert make().is_identity
    np.testing.assert_array_equal(make()(features(), pictures()), features())
    assert Encoder(18, 0.125).bottleneck is None


@pytest.mark.parametrize("shape", [(8,), (4, 4, 8)])
@pytest.mark.parametrize("training", [False, True])
def test_a_linear_layer_makes_so_many_values_of_each_place(shape, training):
    code = make(shape, size=3)
    coded = code(features(4, shape), pictures(), training=training)
    kernel, bias = (each.numpy() for each in code.linear.variables)
    np.testing.assert_allclose(coded, features(4, shape).numpy() @ kernel + bias, rtol=1e-4)
    assert coded.shape[1:] == code.output_shape_of(shape) == (*shape[:-1], 3)


@pytest.mark.parametrize("shape", [(8,), (4, 4, 8)])
@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_noise_is_added_to_values_of_variance_1(shape, kind):
    code = make(shape, noise=0.5, noise_kind=kind)
    given = features(2000, shape)
    pictured = pictures(8)
    coded = code(given, tf.repeat(pictured, 250, axis=0), training=True).numpy()
    axes = tuple(range(len(shape)))
    white = (given - given.numpy().mean(axes)) / given.numpy().std(axes)
    noise = (coded - white).numpy()
    assert noise.std() == pytest.approx(0.5, rel=0.03)
    assert abs(noise.mean()) < 0.02
    kurtosis = np.mean(noise**4) / np.mean(noise**2) ** 2
    assert kurtosis == pytest.approx({"gaussian": 3.0, "laplace": 6.0}[kind], rel=0.15)
    flat = noise.reshape(len(noise), -1)
    assert np.abs(np.corrcoef(flat[:, :8].T) - np.eye(8)).max() < 0.1


def test_nothing_that_is_learned_can_turn_noise_down():
    assert not make(noise=0.5).trainable_variables
    code = make(size=3, noise=0.5)
    assert {id(each) for each in code.trainable_variables} == {
        id(each) for each in code.linear.trainable_variables
    }


def test_training_moves_the_statistics_that_are_used_afterwards():
    code = make(noise=1e-6)
    given = features(512)
    for _ in range(100):
        code(given, pictures(1), training=True)
    coded = code(given[:4], pictures())
    white = (given - given.numpy().mean(0)) / given.numpy().std(0)
    np.testing.assert_allclose(coded, white[:4], atol=1e-2)


def test_a_picture_gets_the_same_noise_however_it_comes():
    code = make(noise=1.0)
    together = code(features(), pictures()).numpy()
    alone = np.concatenate([code(features()[i : i + 1], pictures()[i : i + 1]) for i in range(4)])
    np.testing.assert_array_equal(together, alone)
    # Pictures that are off by less than 8 bits tell are the same.
    close = pictures() + 1e-4
    np.testing.assert_array_equal(together, code(features(), close))


def test_another_picture_gets_other_noise():
    code, given = make((400,), noise=1.0), features(1, (400,))
    changed = pictures(1).numpy()
    changed[0, 3, 4, 1] += 2 / 255
    one, other = (code(given, tf.constant(each)).numpy() for each in (pictures(1).numpy(), changed))
    assert abs(np.corrcoef(one - given, other - given)[0, 1]) < 0.2


def test_another_network_gives_other_noise():
    code = make((400,), noise=1.0)
    tf.keras.utils.set_random_seed(1)
    other = Bottleneck(noise=1.0)
    other.build((None, 400))
    noises = [each.noise(features(1, (400,)), pictures(1)).numpy()[0] for each in (code, other)]
    assert abs(np.corrcoef(*noises)[0, 1]) < 0.2


def test_in_training_noise_is_drawn_anew_and_the_same_again_from_the_same_state():
    noise = Noise(1.0, "gaussian")
    noise.build((None, 8))
    state = noise.get_weights()
    first, second = (noise(features(), pictures(), training=True).numpy() for _ in range(2))
    assert (first != second).all()
    noise.set_weights(state)
    np.testing.assert_array_equal(first, noise(features(), pictures(), training=True))


def test_1_bit_is_the_sign():
    values = tf.constant([-5.0, -0.1, 0.1, 1.0, 9.0])
    np.testing.assert_array_equal(quantise(values, 1, False), [-1, -1, 1, 1, 1])


@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_quantises_to_the_nearest_of_so_many_levels(rng, bits):
    values = rng.normal(size=1000).astype(np.float32)
    levels = np.linspace(-2, 2, 2 * 2**bits + 1)[1::2]
    expected = levels[np.abs(values[:, None] - levels).argmin(1)]
    quantised = quantise(tf.constant(values), bits, False).numpy()
    np.testing.assert_allclose(quantised, expected, atol=1e-6)
    assert len(np.unique(quantised)) <= 2**bits


def test_outside_training_a_code_has_exactly_so_many_values():
    code = make((64,), bits=2, noise=0.1)
    assert len(np.unique(code(features(64, (64,)), pictures(64)))) == 4


@pytest.mark.parametrize("training", [True, False])
def test_gradients_go_straight_through_in_training(training):
    values = tf.constant([-3.0, -0.4, 0.3, 2.5])
    with tf.GradientTape() as tape:
        tape.watch(values)
        quantised = quantise(values, 1, training)
    gradient = tape.gradient(quantised, values)
    if training:
        np.testing.assert_array_equal(gradient, [0.0, 1.0, 1.0, 0.0])
        np.testing.assert_allclose(quantised, [-1, -1, 1, 1], atol=1e-6)
    else:
        assert gradient is None or not np.any(gradient)


def test_divergence_is_the_closed_forms(rng):
    """Against 200,000 draws of log N(mean, variance) - log N(0, 1)."""
    mean, log_variance = np.float32(0.7), np.float32(-0.9)
    deviation = np.exp(log_variance / 2)
    drawn = rng.normal(mean, deviation, 200_000)
    logs = -0.5 * ((drawn - mean) / deviation) ** 2 - np.log(deviation) + 0.5 * drawn**2
    value = normal_divergence(tf.constant([[mean]]), tf.constant([[log_variance]]))
    assert float(value) == pytest.approx(logs.mean(), rel=0.02)
    assert float(normal_divergence(tf.zeros((3, 2)), tf.zeros((3, 2)))) == 0.0


def test_a_variational_bottleneck_adds_its_weighted_divergence():
    code = make(size=3, variational=0.25)
    coded, penalty = code.penalised(features(), pictures(), training=True)
    values = code.linear(features())
    mean, log_variance = (layer(values) for layer in code.moments)
    expected = 0.25 * normal_divergence(mean, log_variance)
    assert float(penalty) == pytest.approx(float(expected), rel=1e-5)
    assert coded.shape == (4, 3)
    deviations = (coded - mean) / tf.exp(0.5 * log_variance)
    again = code(features(), pictures(), training=True)
    assert np.abs(deviations).max() < 6
    assert (coded.numpy() != again.numpy()).all()


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
def test_mistakes_are_refused(options):
    with pytest.raises(ValueError, match=r"-1|17|noise of its own|gaussian, laplace"):
        Bottleneck(**options)


def test_an_encoder_with_a_code_says_what_shape_comes_out():
    encoder = Encoder(18, 0.125, "conv4", {"size": 5, "bits": 1}, blur=1.0, downscale=2)
    encoder.build((None, SIZE, SIZE, 3))
    coded = encoder(pictures())
    assert coded.shape[1:] == encoder.feature_shape(SIZE) == (2, 2, 5)
    assert set(np.unique(coded)) == {-1.0, 1.0}
    copy = Encoder(**encoder.get_config())
    copy.build((None, SIZE, SIZE, 3))
    copy.set_weights(encoder.get_weights())
    np.testing.assert_array_equal(copy(pictures()), coded)


def test_repeatable_noise_is_that_of_the_picture_before_it_is_softened():
    encoder = Encoder(18, 0.125, "avgpool", {"noise": 1.0}, blur=2.0)
    encoder.build((None, SIZE, SIZE, 3))
    together = encoder(pictures()).numpy()
    alone = np.concatenate([encoder(pictures()[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(together, alone, atol=1e-3)
