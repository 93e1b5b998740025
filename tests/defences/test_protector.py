import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.optimizers import Adam

from tfadv.config.schema import Config
from tfadv.data.images import normalize
from tfadv.defences.build import build_protector
from tfadv.defences.protector import Protector
from tfadv.defences.terms import Reconstruction
from tfadv.models import convolution
from tfadv.models.adversary import Adversary
from tfadv.models.classifier import Classifier
from tfadv.models.decoder import Decoder
from tfadv.models.discriminator import Discriminator
from tfadv.models.encoder import Encoder
from tfadv.models.losses import perceptual_loss, reconstruction_loss, utility_loss
from tfadv.training.optimizer import FusedAdam

SIZE, BATCH, ATTRIBUTES = 32, 4, 3


class Blurs:
    """Stands in for VGG19: the image at half of its size."""

    layers = ("half",)

    def __call__(self, images):
        return [tf.nn.avg_pool2d(images, 2, 2, "VALID")]


def make_protector(
    lambda1=1.0,
    seed=0,
    optimizer=keras.optimizers.SGD,
    lambda2=0.0,
    mu1=0.0,
    mu2=0.0,
    warm_up=0,
):
    keras.utils.set_random_seed(seed)
    encoder = Encoder(depth=18, width=0.125, split="avgpool")
    encoder.build((None, SIZE, SIZE, 3))
    shape = encoder.feature_shape(SIZE)
    classifier = Classifier("avgpool", ATTRIBUTES, depth=18, width=0.125, hidden=16)
    classifier.build((None, *shape))
    defences = []
    if lambda1 or lambda2:
        decoder = Decoder(shape, SIZE, "avgpool", width=0.125)
        decoder.build((None, *shape))
        discriminator = None
        if mu1:
            discriminator = Discriminator(SIZE, width=0.125)
            discriminator.build((None, SIZE, SIZE, 3))
        network = Blurs() if lambda2 or mu2 else None
        adversary = Adversary(decoder, discriminator, network, mu1=mu1, mu2=mu2)
        adversary.compile(optimizer(0.01), optimizer(0.01) if mu1 else None)
        defences = [Reconstruction(adversary, lambda1, lambda2)]
    protector = Protector(encoder, classifier, defences, warm_up=warm_up)
    protector.compile(optimizer(0.01))
    return protector


def make_batch(decoder_steps=1, seed=0):
    rng = np.random.default_rng(seed)

    def images(count):
        return tf.constant(rng.integers(0, 256, (count, SIZE, SIZE, 3)).astype(np.uint8))

    labels = tf.constant(rng.integers(0, 2, (BATCH, ATTRIBUTES)).astype(np.uint8))
    return {
        "private": {"images": images(BATCH), "labels": labels},
        "public": {"images": tf.stack([images(BATCH) for _ in range(decoder_steps)], axis=1)},
    }


def adversary_of(protector):
    return protector.defences[0].adversary


def update_adversary(protector, images):
    return protector._update_adversaries(protector.defences, images)


def update_encoder(protector, private):
    return protector._update_encoder(private | {"images": normalize(private["images"])})


def weights_of(network):
    return [weight.copy() for weight in network.get_weights()]


def assert_equal(before, after):
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)


def assert_close(ours, expected):
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def differs(before, after):
    return any((old != new).any() for old, new in zip(before, after, strict=True))


def test_update_of_the_decoder_leaves_encoder_and_classifier_with_their_statistics():
    protector = make_protector()
    encoder, classifier = weights_of(protector.encoder), weights_of(protector.classifier)
    decoder = weights_of(adversary_of(protector).decoder)
    update_adversary(protector, normalize(make_batch()["public"]["images"][:, 0]))
    assert_equal(encoder, protector.encoder.get_weights())
    assert_equal(classifier, protector.classifier.get_weights())
    assert differs(decoder, adversary_of(protector).decoder.get_weights())


def test_update_of_the_encoder_leaves_the_decoder_with_its_statistics():
    protector = make_protector()
    decoder, encoder = weights_of(adversary_of(protector).decoder), weights_of(protector.encoder)
    classifier = weights_of(protector.classifier)
    private = make_batch()["private"]
    update_encoder(protector, private)
    assert_equal(decoder, adversary_of(protector).decoder.get_weights())
    assert differs(encoder, protector.encoder.get_weights())
    assert differs(classifier, protector.classifier.get_weights())


@pytest.mark.parametrize(("step", "strength"), [(0, 0.0), (1, 0.25), (4, 1.0), (9, 1.0)])
def test_the_weight_of_the_defence_grows_from_0_over_the_warm_up(step, strength):
    protector = make_protector(lambda1=2.0, lambda2=3.0, warm_up=4)
    protector.optimizer.iterations.assign(step)
    losses = protector.train_step(make_batch())
    defence = 2.0 * losses["private_reconstruction"] + 3.0 * losses["private_perceptual"]
    expected = losses["utility"] - strength * defence
    np.testing.assert_allclose(losses["protector"], expected, rtol=1e-5)


@pytest.mark.parametrize(("lambda1", "lambda2"), [(2.0, 0.0), (0.0, 3.0), (2.0, 3.0)])
def test_update_of_the_encoder_descends_the_gradient_of_equation_9(lambda1, lambda2):
    protector = make_protector(lambda1=lambda1, lambda2=lambda2)
    private = make_batch()["private"]
    images = normalize(private["images"])
    with tf.GradientTape() as tape:
        features = protector.encoder(images, training=True)
        utility = utility_loss(private["labels"], protector.classifier(features, training=True))
        reconstructions = adversary_of(protector).decoder(features, training=False)
        pixels = reconstruction_loss(images, reconstructions)
        half = Blurs()(images), Blurs()(reconstructions)
        perceptual = perceptual_loss(*half, tf.ones(1))
        loss = utility - lambda1 * pixels - lambda2 * perceptual
    variables = protector.encoder.trainable_variables
    gradients = tape.gradient(loss, variables)
    expected = [v.numpy() - 0.01 * g.numpy() for v, g in zip(variables, gradients, strict=True)]

    losses = update_encoder(protector, private)

    assert_close([variable.numpy() for variable in variables], expected)
    assert losses["utility"].numpy() == pytest.approx(utility.numpy(), rel=1e-5)
    assert losses["private_reconstruction"].numpy() == pytest.approx(pixels.numpy(), rel=1e-5)
    assert losses["protector"].numpy() == pytest.approx(loss.numpy(), rel=1e-4)
    if lambda2:
        assert losses["private_perceptual"].numpy() == pytest.approx(perceptual.numpy(), rel=1e-5)


def test_update_of_the_adversary_trains_the_discriminator_and_that_of_the_encoder_does_not():
    protector = make_protector(lambda2=1.0, mu1=0.1, mu2=0.1)
    encoder, discriminator = protector.encoder, adversary_of(protector).discriminator
    encoder_before, before = weights_of(encoder), weights_of(discriminator)
    batch = make_batch()
    update_adversary(protector, normalize(batch["public"]["images"][:, 0]))
    assert_equal(encoder_before, encoder.get_weights())
    assert differs(before, discriminator.get_weights())
    before = weights_of(discriminator)
    update_encoder(protector, batch["private"])
    assert differs(encoder_before, encoder.get_weights())
    assert_equal(before, discriminator.get_weights())  # with its singular vectors


def test_step_updates_the_decoder_before_the_encoder():
    stepped, by_hand, batch = make_protector(), make_protector(), make_batch()
    stepped.train_step(batch)
    update_adversary(by_hand, normalize(batch["public"]["images"][:, 0]))
    private = batch["private"]
    update_encoder(by_hand, private)
    assert_close(by_hand.get_weights(), stepped.get_weights())


def test_decoder_steps_are_updates_on_different_images():
    stepped, by_hand = make_protector(), make_protector()
    batch = make_batch(decoder_steps=3)
    stepped.train_step(batch)
    for images in tf.unstack(batch["public"]["images"], axis=1):
        update_adversary(by_hand, normalize(images))
    decoders = [adversary_of(each).decoder.get_weights() for each in (by_hand, stepped)]
    assert_close(*decoders)


def test_baseline_needs_no_decoder_and_no_public_images():
    protector = make_protector(lambda1=0.0)
    losses = protector.train_step({"private": make_batch()["private"]})
    assert set(losses) == {"utility"}
    owned = {id(v) for v in protector.encoder.variables + protector.classifier.variables}
    assert {id(v) for v in protector.variables} - owned == {
        id(v) for v in protector.optimizer.variables
    } & {id(v) for v in protector.variables}


@pytest.mark.parametrize(
    "weights",
    [{"lambda1": 0.0}, {"lambda1": 1.0}, {"lambda2": 1.0, "mu1": 0.1, "mu2": 0.1}, {"mu1": 0.1}],
)
def test_measurements_are_the_names_of_a_steps_losses(weights):
    protector = make_protector(**weights)
    assert set(protector.measurements) == set(protector.train_step(make_batch()))


def test_fit_trains_the_protector():
    protector = make_protector(optimizer=keras.optimizers.Adam)
    batches = tf.data.Dataset.from_tensors(make_batch()).repeat(15)
    first = protector.fit(batches.take(1), verbose=0).history
    last = protector.fit(batches, epochs=2, verbose=0).history
    assert last["utility"][-1] < 0.7 * first["utility"][0]


def test_defence_hides_what_the_task_does_not_need():
    """Images of one random colour; the task is whether red is above half.

    A channel is uniform in [-1, 1], with variance 1/3. Given the task's label, the variance of red
    is 1/12: the best reconstruction from the label has a mean error of 0.25.
    """
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (256, 1, 1, 3)).astype(np.uint8)
    images = np.broadcast_to(colours, (256, SIZE, SIZE, 3))
    labels = np.repeat((colours[:, 0, 0, :1] > 127).astype(np.uint8), ATTRIBUTES, axis=1)
    dataset = tf.data.Dataset.from_tensor_slices({"images": images, "labels": labels})
    batches = dataset.shuffle(256, seed=1).repeat().batch(32).take(160)
    batches = batches.map(
        lambda batch: {"private": batch, "public": {"images": batch["images"][:, tf.newaxis]}}
    )
    whole = {"images": normalize(images), "labels": labels}

    errors = {}
    for lambda1 in (1e-6, 3.0):
        protector = make_protector(lambda1=lambda1, optimizer=adam)
        protector.fit(batches, verbose=0)
        features = protector.encoder(whole["images"])
        errors[lambda1] = reconstruction_loss(
            whole["images"], adversary_of(protector).decoder(features)
        ).numpy()
        assert utility_loss(labels, protector.classifier(features)).numpy() < 0.5  # 0.69 by chance
    # Over seeds: 0.15 to 0.24 without a defence, 0.26 to 0.42 with it, and at least 0.02 apart. The
    # bounds leave room for rounding on other machines.
    assert errors[3.0] > max(0.24, errors[1e-6] + 0.01)


def adam(_):
    return keras.optimizers.Adam(0.003)


def test_on_a_cpu_a_step_is_made_of_products_and_of_one_kernel_for_each_update(monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [])
    protector = make_protector(optimizer=FusedAdam)
    step = tf.function(protector.train_step).get_concrete_function(make_batch())
    operations = step.graph.get_operations()
    updates = [each for each in operations if each.type == "ResourceApplyAdam"]
    assert len(updates) == len(protector.trainable_variables)
    plain = [each for each in operations if each.type == "Conv2DBackpropFilter"]
    assert plain  # of the image, and of maps of 8 channels
    for each in plain:
        assert min(each.inputs[0].shape[-1], each.inputs[2].shape[-1]) < convolution.FEWEST_CHANNELS


def test_products_and_the_fused_adam_train_as_plain_convolutions_and_keras_adam_do(monkeypatch):
    """At a small rate: a large one amplifies rounding errors."""

    def train(adam):
        protector = make_protector(lambda1=0.5, optimizer=lambda rate: adam(1e-3 * rate))
        step = tf.function(protector.train_step)
        losses = [[float(loss) for loss in step(make_batch(seed=i)).values()] for i in range(20)]
        return losses, np.concatenate([v.numpy().ravel() for v in protector.trainable_variables])

    losses, weights = train(FusedAdam)
    monkeypatch.setattr(convolution, "_is_on_cpu", lambda: False)
    expected_losses, expected = train(Adam)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    # Adam changed each weight by 2e-4 in these steps.
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-5)
    assert np.abs(weights - expected).mean() < 1e-8


def test_the_warm_up_is_a_share_of_the_steps():
    config = Config()
    config.data.size, config.model.depth = SIZE, 18
    config.model.width = config.model.decoder_width = 0.05
    config.train.steps, config.loss.warm_up = 30, 0.5
    assert build_protector(config, ATTRIBUTES).warm_up == 15
