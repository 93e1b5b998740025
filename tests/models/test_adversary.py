import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv.models import adversary as adversary_module
from tfadv.models.adversary import Adversary
from tfadv.models.decoder import Decoder
from tfadv.models.discriminator import Discriminator
from tfadv.models.losses import adversarial_loss, perceptual_loss, reconstruction_loss
from tfadv.models.vgg import VGGFeatures

SIZE, BATCH, FEATURES = 32, 6, 5


class Blurs:
    """Stands in for VGG19: the image at half and at a quarter of its size."""

    layers = ("half", "quarter")

    def __call__(self, images):
        return [tf.nn.avg_pool2d(images, k, k, "VALID") for k in (2, 4)]


def make_adversary(mu1=0.0, mu2=0.0, network=None, optimizer=keras.optimizers.SGD, **options):
    keras.utils.set_random_seed(0)
    decoder = Decoder((FEATURES,), SIZE, width=0.125, dtype="float32")
    decoder.build((None, FEATURES))
    discriminator = None
    if mu1:
        discriminator = Discriminator(SIZE, width=0.125, dtype="float32")
        discriminator.build((None, SIZE, SIZE, 3))
    adversary = Adversary(
        decoder, discriminator, network or (Blurs() if mu2 else None), mu1=mu1, mu2=mu2, **options
    )
    adversary.compile(optimizer(0.01), optimizer(0.01) if mu1 else None)
    return adversary


def make_batch(seed=0):
    rng = np.random.default_rng(seed)
    images = tf.constant(rng.uniform(-1, 1, (BATCH, SIZE, SIZE, 3)).astype(np.float32))
    return images, tf.constant(rng.normal(size=(BATCH, FEATURES)).astype(np.float32))


def copies(variables):
    return [variable.numpy().copy() for variable in variables]


@pytest.mark.parametrize("saturating", [False, True])
def test_decoder_descends_the_gradient_of_equation_5_through_the_updated_discriminator(saturating):
    options = {"mu1": 0.3, "mu2": 0.7, "saturating": saturating}
    ours, by_hand = make_adversary(**options), make_adversary(**options)
    images, features = make_batch()
    reconstructions = by_hand.decoder(features, training=True)
    by_hand._update_discriminator(images, reconstructions)
    by_hand.decoder.set_weights(ours.decoder.get_weights())
    with tf.GradientTape() as tape:
        reconstructions = by_hand.decoder(features, training=True)
        g = by_hand.perceptual_network
        logits = by_hand.discriminator(reconstructions, training=False)
        total = (
            reconstruction_loss(images, reconstructions)
            + 0.3 * adversarial_loss(logits, saturating)
            + 0.7 * perceptual_loss(g(images), g(reconstructions), tf.ones(2))
        )
    variables = by_hand.decoder.trainable_variables
    gradients = tape.gradient(total, variables)
    expected = [v.numpy() - 0.01 * d.numpy() for v, d in zip(variables, gradients, strict=True)]

    ours.update(images, features)

    for one, other in zip(ours.decoder.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_discriminator_learns_from_the_reconstructions_without_moving_the_decoder():
    adversary = make_adversary(mu1=1.0)
    images, features = make_batch()
    decoder = copies(adversary.decoder.trainable_variables)
    discriminator = copies(adversary.discriminator.trainable_variables)
    adversary._update_discriminator(images, adversary.decoder(features, training=True))
    assert all(
        np.array_equal(a, b)
        for a, b in zip(decoder, copies(adversary.decoder.trainable_variables), strict=True)
    )
    assert any(
        not np.array_equal(a, b)
        for a, b in zip(
            discriminator, copies(adversary.discriminator.trainable_variables), strict=True
        )
    )


def test_discriminator_learns_to_tell_images_from_reconstructions():
    adversary = make_adversary(mu1=1e-3, optimizer=lambda _: keras.optimizers.Adam(1e-3, 0.5))
    update = tf.function(adversary.update)
    losses = [float(update(*make_batch(seed))["discriminator"]) for seed in range(40)]
    assert np.mean(losses[-5:]) < 0.7 * losses[0]
    images, features = make_batch(40)
    real, fake = map(adversary.discriminator, (images, adversary(features)))
    assert np.min(real) > 0 > np.max(fake)  # logits of being real


def test_no_gradient_goes_to_the_features():
    adversary = make_adversary(mu1=0.1, mu2=0.1)
    images, features = make_batch()
    with tf.GradientTape() as tape:
        tape.watch(features)
        losses = adversary.update(images, features)
        total = sum(losses.values())
    assert tape.gradient(total, features) is None


@pytest.mark.parametrize(("mu1", "mu2"), [(0, 0), (0.1, 0), (0, 0.1), (0.1, 0.1)])
def test_measurements_name_what_an_update_returns(mu1, mu2):
    adversary = make_adversary(mu1=mu1, mu2=mu2)
    assert set(adversary.measurements) == set(adversary.update(*make_batch()))


def test_a_weight_of_zero_builds_and_computes_nothing_of_its_part(monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("computed for a weight of 0")

    for name in ("adversarial_loss", "discriminator_loss", "perceptual_loss"):
        monkeypatch.setattr(adversary_module, name, forbidden)
    adversary = make_adversary()
    assert set(adversary.update(*make_batch())) == {"reconstruction"}
    decoder = {id(variable) for variable in adversary.decoder.variables}
    optimizer = {id(variable) for variable in adversary.optimizer.variables}
    assert {id(variable) for variable in adversary.variables} <= decoder | optimizer


def test_weights_and_networks_that_do_not_go_together_are_refused():
    adversary = make_adversary(mu1=1.0)
    with pytest.raises(ValueError, match="needs a discriminator"):
        Adversary(adversary.decoder, mu1=1.0)
    with pytest.raises(ValueError, match="needs no discriminator"):
        Adversary(adversary.decoder, adversary.discriminator)
    with pytest.raises(ValueError, match="needs a perceptual network"):
        Adversary(adversary.decoder, mu2=1.0)


def test_adapt_measures_the_mean_square_of_each_layer():
    adversary = make_adversary(mu2=1.0)
    batches = [make_batch(seed)[0] for seed in range(3)]
    adversary.adapt(batches)
    images = np.concatenate(batches)
    expected = [np.square(layer).mean() for layer in adversary.perceptual_network(images)]
    np.testing.assert_allclose(adversary.mean_squares, expected, rtol=1e-5)


def test_a_checkpoint_holds_decoder_discriminator_optimisers_and_scale(tmp_path):
    first, second = make_adversary(mu1=0.1, mu2=0.1), make_adversary(mu1=0.1, mu2=0.1)
    first.adapt([make_batch()[0]])
    first.update(*make_batch())
    path = tf.train.Checkpoint(model=first).save(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(model=second).restore(path).assert_consumed()
    one, other = (adversary.update(*make_batch(1)) for adversary in (first, second))
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5)
    for a, b in zip(first.variables, second.variables, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_checkpoint_holds_no_weight_of_vgg19(tmp_path):
    keras.utils.set_random_seed(0)
    network = keras.applications.VGG19(include_top=False, weights=None)
    cut = keras.Model(network.input, network.get_layer("block1_conv1").output)
    cut.save_weights(tmp_path / "vgg.weights.h5")
    g = VGGFeatures(str(tmp_path / "vgg.weights.h5"), ("block1_conv1",), SIZE)
    adversary = make_adversary(mu2=1.0, network=g)
    adversary.update(*make_batch())
    path = tf.train.Checkpoint(model=adversary).save(str(tmp_path / "checkpoint"))
    shapes = [tuple(shape) for _, shape in tf.train.list_variables(path)]
    assert (3, 3, 3, 64) not in shapes
    assert (1,) in shapes  # the scale of its one layer
