import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.public_images import SIZE, BlackBox, FixedPairs, PublicImages, make_knowledge
from tfadv.attacks import decoder as decoder_module
from tfadv.attacks.attack import NotApplicableError
from tfadv.attacks.decoder import BudgetedDecoder, DecoderTraining, ImageInverter
from tfadv.attacks.decoder import Decoder as DecoderAttack
from tfadv.attacks.knowledge import Pairs
from tfadv.attacks.network_training import Schedule
from tfadv.config.schema import Train
from tfadv.data.dataset import PUBLIC, TRAIN
from tfadv.models.adversary import Adversary
from tfadv.models.decoder import Decoder
from tfadv.models.discriminator import Discriminator
from tfadv.training.trainer import TrainingError

BATCH = 16


def one_colour_images(count, seed=0):
    colours = np.random.default_rng(seed).integers(0, 256, (count, 1, 1, 3), np.uint8)
    return np.tile(colours, (1, SIZE, SIZE, 1))


def make_inverter(feature_shape=(3,), learning_rate=1e-3, seed=0):
    tf.keras.utils.set_random_seed(seed)
    decoder = Decoder(feature_shape, SIZE, width=0.125, dtype="float32")
    decoder.build((None, *feature_shape))
    inverter = ImageInverter(Adversary(decoder), feature_shape)
    inverter.compile(tf.keras.optimizers.Adam(learning_rate))
    return inverter


def make_batch(seed=0):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8)
    features = random.normal(size=(BATCH, 3)).astype(np.float32)
    return {"images": images, "features": features}


def make_pairs(black_box, images):
    return Pairs(black_box, PublicImages(images), PUBLIC, TRAIN, memory_mb=100)


def learn(black_box, images, steps):
    """Trains an inverter; returns it and its loss on the images that it learned from."""
    pairs = make_pairs(black_box, images)
    inverter = make_inverter(black_box.feature_shape, learning_rate=3e-3)
    inverter.standardisation.adapt(pairs.feature_batches)
    step = tf.function(inverter.train_step)
    for number, batch in enumerate(pairs.training_batches(BATCH, seed=0).take(steps)):
        if number >= steps // 2:
            inverter.optimizer.learning_rate = 6e-3 * (1 - number / steps)
        step(batch)
    return inverter, loss_on(inverter, pairs)


def loss_on(inverter, pairs):
    losses = [
        float(inverter.test_step(batch)["reconstruction"]) * len(batch["images"])
        for batch in pairs.batches()
    ]
    return sum(losses) / pairs.count


def variance_of(images):
    """Returns the loss of the mean image: no guess without features has a smaller one."""
    return np.var(images / 127.5 - 1.0, axis=0).mean()


@pytest.fixture(scope="module")
def learned():
    """An inverter of features that say all of these images."""
    return learn(BlackBox(), one_colour_images(256), steps=300)


def test_a_decoder_learns_from_nothing_but_public_images_and_calls(learned):
    _, loss = learned
    assert loss < 0.05 / 3  # the variance of a colour that is uniform in [-1, 1] is 1/3


def test_a_decoder_inverts_features_of_images_that_it_has_not_seen(learned):
    inverter, _ = learned
    assert loss_on(inverter, make_pairs(BlackBox(), one_colour_images(64, seed=1))) < 0.06 / 3


class Constant(BlackBox):
    def __call__(self, images):
        return np.full((len(images), 3), 0.7)


def test_features_that_say_nothing_give_the_mean_image_and_no_better():
    images = one_colour_images(64)
    _, loss = learn(Constant(), images, steps=200)
    least = variance_of(images)
    assert least * (1 - 1e-5) <= loss < 1.05 * least


class Hidden(BlackBox):
    """Standard normal noise, new for each image, and the brightness in one more dimension.

    There the brightness has a `share` of the feature's variance.
    """

    feature_shape = (8,)

    def __init__(self, share):
        self._scale = np.sqrt(3 * 7 * share)
        self._random = np.random.default_rng(1)

    def __call__(self, images):
        brightness = images[:, 0, 0, :1] / 127.5 - 1.0  # of variance 1/3
        noise = self._random.normal(size=(len(images), 7))
        return np.concatenate([noise, self._scale * brightness], 1)


def test_an_image_that_is_hidden_in_one_dimension_of_small_variance_is_recovered():
    share = 1e-6

    def grey_images(count, seed):
        return one_colour_images(count, seed)[..., :1].repeat(3, -1)

    inverter, _ = learn(Hidden(share), grey_images(2048, 0), steps=300)
    loss = loss_on(inverter, make_pairs(Hidden(share), grey_images(256, 1)))
    assert 3 * loss < 0.2  # of the variance; 0.01 to 0.13 over seeds


# ImageInverter


def test_reconstructions_lie_between_black_and_white():
    outputs = make_inverter()(1e3 * make_batch()["features"])
    assert (outputs.shape, outputs.dtype) == ((BATCH, SIZE, SIZE, 3), tf.float32)
    assert np.abs(outputs).max() <= 1.0


def test_the_loss_is_the_mean_squared_difference_of_the_images():
    inverter, batch = make_inverter(), make_batch()
    outputs = inverter(batch["features"]).numpy()
    expected = np.mean((outputs - (batch["images"] / 127.5 - 1.0)) ** 2)
    assert float(inverter.test_step(batch)["reconstruction"]) == pytest.approx(expected, rel=1e-5)


def values_of(variables):
    return [np.array(variable) for variable in variables]


def changed(before, variables):
    pairs = zip(before, variables, strict=True)
    return [not np.array_equal(old, np.array(new)) for old, new in pairs]


def test_a_training_step_changes_every_variable_of_the_decoder():
    inverter = make_inverter()
    before = values_of(inverter.adversary.decoder.variables)
    inverter.train_step(make_batch())
    assert all(changed(before, inverter.adversary.decoder.variables))


def test_a_training_step_does_not_change_the_statistics_of_the_features():
    inverter = make_inverter()
    inverter.standardisation.adapt(lambda: [make_batch()["features"]])
    before = values_of(inverter.standardisation.variables)
    inverter.train_step(make_batch(seed=1))
    assert not any(changed(before, inverter.standardisation.variables))


def test_a_test_step_changes_nothing():
    inverter = make_inverter()
    state = [*inverter.variables, *inverter.optimizer.variables]
    before = values_of(state)
    inverter.test_step(make_batch())
    assert not any(changed(before, state))


def trained_inverter():
    inverter = make_inverter()
    inverter.standardisation.adapt(lambda: [3.0 + 2.0 * make_batch()["features"]])
    for seed in range(3):
        inverter.train_step(make_batch(seed=seed))
    return inverter


def test_a_checkpoint_restores_the_whole_inverter_which_goes_on_as_the_first_one(tmp_path):
    inverter, restored = trained_inverter(), make_inverter(seed=1)
    path = tf.train.Checkpoint(model=inverter).save(tmp_path / "checkpoint")
    tf.train.Checkpoint(model=restored).restore(path).assert_consumed()
    features = make_batch(seed=9)["features"]
    np.testing.assert_array_equal(restored(features), inverter(features))
    for name in ("adversary", "standardisation", "optimizer"):
        variables = getattr(restored, name).variables
        assert not any(changed(values_of(getattr(inverter, name).variables), variables)), name
    for model in (inverter, restored):
        model.train_step(make_batch(seed=5))
    decoders = (each.adversary.decoder.variables for each in (inverter, restored))
    for one, other in zip(*decoders, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_a_checkpoint_holds_every_variable_of_the_inverter(tmp_path):
    inverter = trained_inverter()
    path = tf.train.Checkpoint(model=inverter).save(tmp_path / "checkpoint")
    stored = sorted(tuple(shape) for _, shape in tf.train.list_variables(path))
    held = [tuple(v.shape) for v in [*inverter.variables, *inverter.optimizer.variables]]
    # And the object graph and the number of saves, both scalars.
    assert stored == sorted([*held, (), ()])


def test_keras_fit_trains_an_inverter():
    images = one_colour_images(64)
    arrays = {"images": images, "features": BlackBox()(images).astype(np.float32)}
    inverter = make_inverter(learning_rate=3e-3)
    inverter.standardisation.adapt(lambda: [arrays["features"]])
    batches = tf.data.Dataset.from_tensor_slices(arrays).batch(BATCH)
    history = inverter.fit(
        batches, validation_data=batches, epochs=12, shuffle=False, verbose=0
    ).history
    assert set(history) == {"reconstruction", "val_reconstruction", "val_held_out_loss"}
    assert history["reconstruction"][-1] < 0.5 * history["reconstruction"][0]


def test_what_is_learned_is_all_of_the_decoder_and_the_discriminator():
    decoder = make_inverter().adversary.decoder
    discriminator = Discriminator(SIZE, width=0.125)
    discriminator.build((None, SIZE, SIZE, 3))
    inverter = ImageInverter(Adversary(decoder, discriminator, mu1=0.1), (3,))
    # The moving statistics and the vectors of spectral normalisation belong to the best point.
    assert len(decoder.variables) > len(decoder.trainable_variables)
    learned = [variable.path for variable in inverter.learned]
    assert learned == [each.path for each in (*decoder.variables, *discriminator.variables)]


# The attacks


def make_training(**options):
    """A training of a small decoder of vectors, [N, 3]."""

    def build(feature_shape, split, g):
        assert (feature_shape, split) == ((3,), None)
        network = keras.Sequential(
            [keras.layers.Dense(8 * 8 * 3, activation="tanh"), keras.layers.Reshape((8, 8, 3))]
        )
        network.build((None, *feature_shape))
        return Adversary(network, None, g, mu2=0.0 if g is None else 1.0)

    train = Train(
        steps=20, batch=16, learning_rate=1e-2, log_every=10, evaluate_every=10, checkpoint_every=10
    )
    fields = {
        "build": build,
        "build_discriminator_optimizer": lambda: None,
        "measure_scale": lambda adversary: None,
        "schedule": Schedule(train),
    }
    return DecoderTraining(**fields | options)


def colour_pairs(count, seed):
    """Images of one colour, 8 pixels per side, with the colour as the feature."""
    images = one_colour_images(count, seed)[:, :8, :8]
    return FixedPairs(images, images[:, 0, 0] / 127.5 - 1.0)


@pytest.fixture
def known():
    return make_knowledge(colour_pairs(64, 0), colour_pairs(32, 1))


def reconstruction_loss(fitted, pairs):
    reconstructions = fitted.reconstruct(pairs.all_features)
    assert (reconstructions.shape, reconstructions.dtype) == ((pairs.count, 8, 8, 3), np.float32)
    return np.square(reconstructions - (pairs.images(slice(None)) / 127.5 - 1.0)).mean()


def test_a_decoder_attack_reconstructs_and_says_how_its_training_went(known, tmp_path):
    fitted = DecoderAttack(make_training()).fit(known, tmp_path / "decoder")
    assert fitted.training.steps == 20
    assert fitted.held_out_loss == fitted.training.held_out_loss
    held_out = known.held_out.pairs
    assert reconstruction_loss(fitted, held_out) == pytest.approx(fitted.held_out_loss, rel=1e-4)
    assert fitted.held_out_loss < variance_of(held_out.images(slice(None)))


def test_a_decoder_attack_measures_the_scale_of_g_once(known, tmp_path):
    measured = []
    attack = DecoderAttack(make_training(measure_scale=measured.append))
    for _ in range(2):  # the second time from the checkpoint
        attack.fit(known, tmp_path / "decoder")
    assert len(measured) == 1


def budgeted(budget, training=None, **options):
    return BudgetedDecoder(training or make_training(), "small", "A network.", budget, **options)


@pytest.mark.parametrize("rates", [(1e-4, 1e-2), (float("inf"), 1e-2)], ids=["slow", "diverging"])
def test_larger_budgets_use_the_rate_that_is_best_at_the_smallest(
    known, tmp_path, monkeypatch, rates
):
    monkeypatch.setattr(decoder_module, "RATES", rates)
    fitted = {budget: budgeted(budget).fit(known, tmp_path / f"x{budget}") for budget in (1, 2)}
    assert {budget: each.training.steps for budget, each in fitted.items()} == {1: 20, 2: 40}
    assert fitted[2].held_out_loss < fitted[1].held_out_loss
    losses = json.loads((tmp_path / "small-rates.json").read_text())
    assert losses["0.01"] == min(losses.values()) == fitted[1].held_out_loss
    folders = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert folders == {f"small-x1-{rates[0]}", "small-x1-0.01", "small-x2-0.01"}


def test_a_decoder_that_diverges_at_every_rate_is_an_error_that_names_each(
    known, tmp_path, monkeypatch
):
    monkeypatch.setattr(decoder_module, "RATES", (float("inf"), float("nan")))
    with pytest.raises(TrainingError, match=r"rate inf, on mine: .*; .*rate nan, on mine: "):
        budgeted(1).fit(known, tmp_path / "x1")


def test_a_budgeted_decoder_is_titled_by_its_family_and_steps():
    attack = budgeted(4)
    assert attack.title == "trained decoder (small), 80 steps"
    assert (attack.family, attack.budget) == ("small", 4)
    assert attack.meaning == "A network."


class Faces:
    """A recognizer that gradients pass: the mean colour."""

    layers = ("embedding",)

    def __call__(self, images):
        return [tf.reduce_mean(images, (1, 2), keepdims=True)]


def test_a_decoder_can_learn_from_a_recognizer_that_gradients_pass(known, tmp_path, monkeypatch):
    monkeypatch.setattr(decoder_module, "RATES", (1e-2,))
    known = dataclasses.replace(known, faces=Faces())
    budgeted(1, by_recognizer=True).fit(known, tmp_path / "x1")
    history = (tmp_path / "small-x1-0.01/history.jsonl").read_text().splitlines()
    assert json.loads(history[-1])["perceptual"] > 0


def test_a_decoder_cannot_learn_from_a_recognizer_without_gradients(known, tmp_path):
    with pytest.raises(NotApplicableError, match="only a recognizer of --mode=recognizer has grad"):
        budgeted(1, by_recognizer=True).fit(known, tmp_path / "x1")
