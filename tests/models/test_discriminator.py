import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv.models.discriminator import Discriminator, SpectralNormalization
from tfadv.models.layers import Convolution
from tfadv.models.losses import discriminator_loss


def built(size=32, width=0.125, **kwargs):
    keras.utils.set_random_seed(0)
    discriminator = Discriminator(size, width, **kwargs)
    discriminator.build()
    return discriminator


def make_images(count, size=32, seed=0):
    return tf.random.stateless_uniform((count, size, size, 3), (seed, 0), -1, 1)


def normalised_layers(discriminator):
    layers = [*discriminator.convolutions, *discriminator.head]
    return [layer for layer in layers if isinstance(layer, SpectralNormalization)]


def filters(discriminator):
    return [layer.layer.filters for layer in normalised_layers(discriminator)[:-1]]


def largest_singular_value(kernel):
    return np.linalg.svd(np.reshape(kernel, (-1, kernel.shape[-1])), compute_uv=False)[0]


@pytest.mark.parametrize("size", [32, 64, 96, 224])
def test_every_size_gives_one_logit_per_image(size):
    logits = built(size)(make_images(2, size))
    assert logits.shape == (2,)
    assert logits.dtype == tf.float32


# Halved until the side is below 8: 32 -> 4, 64 -> 4, 96 -> 6, 224 -> 7.
@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (32, [64, 128, 256]),
        (64, [64, 128, 256, 512]),
        (96, [64, 128, 256, 512]),
        (224, [64, 128, 256, 512, 512]),
    ],
)
def test_channels_double_up_to_512(size, expected):
    assert filters(Discriminator(size)) == expected


def test_width_scales_the_channels():
    assert filters(Discriminator(64, 0.25)) == [16, 32, 64, 128]


def test_build_creates_all_variables():
    discriminator = built()
    count = len(discriminator.variables)
    discriminator(make_images(2), training=True)
    # 3 convolutions and the last layer, each with kernel, bias and singular vector.
    assert count == len(discriminator.variables) == 4 * 3
    assert len(discriminator.trainable_variables) == 4 * 2


def test_mixed_precision_keeps_variables_and_logits_float32():
    discriminator = built(dtype="mixed_bfloat16")
    logits = discriminator(make_images(8), training=True)
    assert discriminator.convolutions[0].compute_dtype == "bfloat16"
    assert {variable.dtype for variable in discriminator.variables} == {"float32"}
    assert logits.dtype == tf.float32
    # Not rounded to the 8 significant bits of bfloat16 before.
    assert np.any(logits != tf.cast(tf.cast(logits, tf.bfloat16), tf.float32))


@pytest.mark.parametrize("training", [False, True])
def test_no_call_changes_a_trainable_variable(training):
    discriminator = built()
    before = [variable.numpy() for variable in discriminator.trainable_variables]
    tf.function(discriminator)(make_images(4), training=training)
    for variable, value in zip(discriminator.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_inference_leaves_all_variables_and_training_moves_the_estimates():
    discriminator = built()
    before = discriminator.get_weights()
    tf.function(discriminator)(make_images(4), training=False)
    np.testing.assert_equal(discriminator.get_weights(), before)
    vectors = [layer.singular_vector.numpy() for layer in normalised_layers(discriminator)]
    tf.function(discriminator)(make_images(4), training=True)
    for layer, vector in zip(normalised_layers(discriminator), vectors, strict=True):
        assert np.any(layer.singular_vector.numpy() != vector)


def test_logit_of_an_image_depends_on_no_other_image():
    discriminator = built()
    images = make_images(6)
    together = discriminator(images, training=True)
    discriminator = built()  # as it was before that call
    alone = discriminator(images[:1], training=True)
    np.testing.assert_allclose(together[:1], alone, rtol=1e-4, atol=1e-6)


def identity_of(layer, units):
    """What a layer without bias makes of the unit vectors: its kernel, [inputs, outputs]."""
    return layer(tf.eye(units), training=True).numpy()


def test_effective_kernel_has_spectral_norm_1_after_training_calls():
    # Singular values 7, 3 and 1, so that the power iteration converges by (3/7)^2 a call.
    left, right = (np.linalg.qr(np.random.default_rng(i).normal(size=(5, 3)))[0] for i in (0, 1))
    kernel = left @ np.diag([7.0, 3.0, 1.0]) @ right[:3].T[:, :3]
    dense = keras.layers.Dense(3, use_bias=False)
    layer = SpectralNormalization(dense)
    layer.build((None, 5))
    dense.kernel.assign(kernel)
    norms = [largest_singular_value(identity_of(layer, 5)) for _ in range(30)]
    assert all(norm >= 1 - 1e-5 for norm in norms)  # the estimate comes from below
    np.testing.assert_allclose(norms[-1], 1, rtol=1e-5)
    np.testing.assert_allclose(
        identity_of(layer, 5), kernel / largest_singular_value(kernel), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_every_kernel_of_the_model_is_divided_by_its_norm(dtype):
    discriminator = built(dtype=dtype)
    step = tf.function(discriminator)
    for _ in range(100):
        step(make_images(1), training=True)
    shapes = [(2, 32, 32, 3), (2, 16, 16, 8), (2, 8, 8, 16), (2, 4 * 4 * 32)]
    for layer, shape in zip(normalised_layers(discriminator), shapes, strict=True):
        inputs = tf.random.stateless_normal(shape, (1, 2))
        layer.layer.bias.assign(np.arange(layer.layer.bias.shape[0]))
        outputs = layer(inputs, training=False)
        norm = largest_singular_value(layer.layer.kernel.numpy())
        layer.layer.kernel.assign(layer.layer.kernel / norm)
        rtol = 0.02 if layer.compute_dtype == "bfloat16" else 0.005
        scale = np.abs(tf.cast(outputs, tf.float32)).max()
        expected = tf.cast(layer.layer(inputs), tf.float32)
        np.testing.assert_allclose(
            tf.cast(outputs, tf.float32), expected, rtol=0, atol=rtol * scale
        )


def test_no_gradient_is_left_along_the_kernel():
    # W / sigma(W) is the same for every multiple of W: its derivative along W is 0.
    dense = keras.layers.Dense(4, use_bias=False)
    layer = SpectralNormalization(dense)
    layer.build((None, 6))
    inputs = tf.random.stateless_normal((8, 6), (0, 0))
    for _ in range(30):
        layer(inputs, training=True)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(inputs) * tf.random.stateless_normal((8, 4), (0, 1)))
    gradient = tape.gradient(loss, dense.kernel.value)
    along = tf.reduce_sum(gradient * dense.kernel)
    assert abs(along) < 1e-4 * tf.norm(gradient) * tf.norm(dense.kernel)


def test_normalised_convolution_keeps_its_bias():
    convolution = Convolution(2, 3, 2, use_bias=True)
    layer = SpectralNormalization(convolution)
    layer.build((None, 4, 4, 1))
    convolution.bias.assign([3.0, -1.0])
    outputs = layer(tf.zeros((1, 4, 4, 1)))
    np.testing.assert_array_equal(outputs[0, 0, 0], [3.0, -1.0])


def test_gradient_passes_where_every_convolution_is_negative():
    discriminator = built()
    for layer in normalised_layers(discriminator)[:-1]:
        layer.layer.bias.assign(tf.fill(layer.layer.bias.shape, -100.0))
    images = make_images(1)
    with tf.GradientTape() as tape:
        tape.watch(images)
        logit = discriminator(images)
    assert np.any(tape.gradient(logit, images) != 0)


def test_checkpoint_restores_everything(tmp_path):
    saved = built()
    for seed in range(3):
        saved(make_images(2, seed=seed), training=True)
    path = tf.train.Checkpoint(model=saved).save(str(tmp_path / "checkpoint"))
    keras.utils.set_random_seed(1)
    restored = Discriminator(32, 0.125)
    restored.build()
    assert np.any(restored(make_images(4)) != saved(make_images(4)))
    tf.train.Checkpoint(model=restored).restore(path).assert_consumed()
    np.testing.assert_array_equal(restored(make_images(4)), saved(make_images(4)))
    np.testing.assert_equal(restored.get_weights(), saved.get_weights())


def test_the_estimate_is_the_same_under_a_strategy():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        discriminator = built()

    @tf.function
    def step():
        return strategy.run(lambda: discriminator(make_images(2), training=True))

    plain = built()
    np.testing.assert_allclose(step(), plain(make_images(2), training=True), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        discriminator.head[1].singular_vector, plain.head[1].singular_vector, rtol=1e-4
    )


def test_it_learns_to_tell_two_sets_of_images_apart():
    # Noise about a grey ramp from left to right, and from right to left.
    discriminator = built()
    ramp = tf.linspace(-0.5, 0.5, 32)[None, None, :, None]
    optimizer = keras.optimizers.Adam(2e-3, beta_1=0.5)
    optimizer.build(discriminator.trainable_variables)

    def draw(seed):
        noise = 0.5 * make_images(64, seed=seed)
        return noise[:32] + ramp, noise[32:] - ramp

    @tf.function
    def step(real, fake):
        with tf.GradientTape() as tape:
            logits = discriminator(tf.concat([real, fake], 0), training=True)
            loss = discriminator_loss(*tf.split(logits, 2))
        variables = discriminator.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)

    for seed in range(40):
        step(*draw(seed))
    real, fake = draw(1000)
    assert np.mean(tf.sigmoid(discriminator(real)) > 0.5) > 0.95
    assert np.mean(tf.sigmoid(discriminator(fake)) < 0.5) > 0.95


@pytest.mark.parametrize("size", [0, 50, 100])
def test_error_names_a_size_that_is_no_multiple_of_32(size):
    with pytest.raises(ValueError, match=f"multiple of 32, not {size}"):
        Discriminator(size)


def test_error_names_a_width_that_is_not_positive():
    with pytest.raises(ValueError, match="width must be above 0, not 0"):
        Discriminator(64, 0)
