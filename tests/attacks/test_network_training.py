import keras
import numpy as np
import pytest
import tensorflow as tf

from tfadv.attacks.network_training import Plateau, Schedule, Standardisation, train_network
from tfadv.config.schema import Train
from tfadv.training.trainer import TrainingError, adam

# Standardisation

FEATURES = {
    "vectors": np.random.default_rng(2).normal(3.0, 2.0, (37, 5)),
    "maps": np.random.default_rng(3).gamma(1.0, size=(21, 4, 4, 6)),
    "large offsets": np.random.default_rng(4).normal(1e4, 1e-2, (50, 3)),
    "tiny": np.random.default_rng(5).normal(1e-12, 1e-9, (50, 3)),
}


def standardisation_of(features, ends=(3, 4, 19)):
    layer = Standardisation(dtype="float32")
    layer.build(features.shape)
    layer.adapt(lambda: np.split(features, ends))
    return layer


@pytest.mark.parametrize("name", FEATURES)
def test_statistics_of_uneven_batches_are_those_of_all_features_at_once(name):
    features = FEATURES[name]
    layer = standardisation_of(features)
    flat = features.reshape(-1, features.shape[-1])
    np.testing.assert_allclose(layer.mean, flat.mean(0), rtol=1e-6)
    np.testing.assert_allclose(1 / layer.scale, flat.std(0), rtol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 1.0, 1e4])
def test_statistics_see_a_deviation_at_the_resolution_of_float32(offset):
    step = np.spacing(np.float32(offset)) * 4 if offset else np.float32(1e-20)
    features = (offset + step * (np.arange(50) % 2)[:, None]).astype(np.float32)
    np.testing.assert_allclose(1 / standardisation_of(features).scale, [step / 2], rtol=1e-5)


@pytest.mark.parametrize("name", FEATURES)
def test_standardised_features_have_mean_0_and_variance_1(name):
    features = FEATURES[name].astype(np.float32)
    outputs = standardisation_of(features)(features).numpy()
    axes = tuple(range(features.ndim - 1))
    # The mean itself is rounded to float32: at 1e4 that is 5e-4, a twentieth of 1e-2.
    offset = 0.05 if name == "large offsets" else 1e-5
    np.testing.assert_allclose(outputs.mean(axes), 0.0, atol=offset)
    np.testing.assert_allclose(outputs.std(axes), 1.0, rtol=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.1, -3e5])
def test_a_constant_dimension_becomes_0(value):
    features = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    features[:, 1] = value
    outputs = standardisation_of(features)(features).numpy()
    assert not outputs[:, 1].any()
    assert outputs[:, 0].all()


def test_the_last_bit_of_a_float32_is_seen():
    neighbours = np.float32([0.1, np.nextafter(np.float32(0.1), np.float32(1))])
    bits = np.arange(40) % 2
    features = neighbours[bits][:, None]
    outputs = standardisation_of(features)(features).numpy()[:, 0]
    assert np.ptp(outputs) == pytest.approx(2.0, rel=1e-3)
    assert np.corrcoef(outputs, bits)[0, 1] == pytest.approx(1.0)


def test_a_few_huge_values_do_not_hide_the_others():
    random = np.random.default_rng(0)
    features = random.normal(size=(500, 3)).astype(np.float32)
    huge = features.copy()
    huge[::100] = 1e9 * random.normal(size=(5, 3))
    outputs = standardisation_of(huge)(huge).numpy()
    assert np.abs(outputs).max() < 25
    kept = np.arange(500) % 100 > 0
    for one, other in zip(outputs[kept].T, features[kept].T, strict=True):
        assert np.corrcoef(one, other)[0, 1] == pytest.approx(1.0)
        assert one.std() > 0.3


def test_before_adapt_features_stay_as_they_are():
    layer = Standardisation(dtype="float32")
    features = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    np.testing.assert_array_equal(layer(features), features)


# Plateau


class Mean(keras.Model):
    """Learns the mean of the features, [N, 1], by gradient descent."""

    measurements = ("squares",)

    def __init__(self, learning_rate=0.1, start=0.0):
        super().__init__()
        self.mean = self.add_weight(shape=(1,), initializer="zeros", name="mean")
        self.mean.assign([start])
        self.compile(adam(learning_rate, 0.0), jit_compile=False)
        self.optimizer.build(self.trainable_variables)

    @property
    def learned(self):
        return self.variables

    @property
    def value(self):
        return float(self.mean.numpy()[0])

    def fill(self, value):
        self.mean.assign([value])

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(data["features"] - self.mean.value))
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"squares": loss}

    def test_step(self, data):
        squares = tf.square(data["features"] - self.mean.value)
        return {"held_out_loss": tf.reduce_mean(squares)}


@pytest.fixture
def network():
    return Mean()


def rate_of(network):
    return float(network.optimizer.learning_rate)


def test_the_rate_falls_after_patience_and_training_ends_after_the_drops(network):
    plateau = Plateau(network, patience=2, rate_drops=1)
    states = []
    for loss in (1.0, 0.9, 0.95, 0.8, 0.85, 0.81, 0.79, 0.79, 0.9):
        plateau.update(loss)
        states.append((plateau.lowest, round(rate_of(network), 6), plateau.ended))
    assert states == [
        (1.0, 0.1, False),
        (0.9, 0.1, False),
        (0.9, 0.1, False),  # waited once
        (0.8, 0.1, False),  # better: waits anew
        (0.8, 0.1, False),
        (0.8, 0.03, False),  # waited twice: the only drop
        (0.79, 0.03, False),
        (0.79, 0.03, False),  # equal is no improvement
        (0.79, 0.009, True),  # waited twice after the last drop
    ]


@pytest.mark.parametrize(("patience", "rate_drops"), [(1, 0), (3, 0), (1, 3), (2, 2)])
def test_without_improvement_it_ends_after_patience_times_drops_plus_one(
    network, patience, rate_drops
):
    plateau = Plateau(network, patience, rate_drops)
    plateau.update(1.0)
    evaluations = 0
    while not plateau.ended:
        plateau.update(1.0)
        evaluations += 1
    assert evaluations == patience * (rate_drops + 1)


def test_less_than_a_ten_thousandth_is_no_improvement(network):
    plateau = Plateau(network, patience=1, rate_drops=0)
    plateau.update(1.0)
    plateau.update(1.0 - 0.5e-4)
    assert plateau.ended


def test_restore_best_gives_back_the_weights_of_the_lowest_loss(network):
    plateau = Plateau(network, patience=9, rate_drops=0)
    for value, loss in [(1.0, 0.5), (2.0, 0.2), (3.0, 0.3)]:
        network.fill(value)
        plateau.update(loss)
    plateau.restore_best()
    assert network.value == 2.0


def test_restore_best_before_any_evaluation_leaves_the_first_weights():
    network = Mean(start=5.0)
    plateau = Plateau(network, patience=1, rate_drops=0)
    network.fill(1.0)
    plateau.restore_best()
    assert network.value == 5.0


def test_training_goes_on_from_the_best_weights_when_the_rate_falls(network):
    plateau = Plateau(network, patience=2, rate_drops=1)
    values = []
    for value, loss in [(1.0, 0.5), (2.0, 0.6), (3.0, 0.7)]:
        network.fill(value)
        plateau.update(loss)
        values.append(network.value)
    assert values == [1.0, 2.0, 1.0]


def test_a_restored_plateau_goes_on_where_it_was(network, tmp_path):
    plateau = Plateau(network, patience=2, rate_drops=1)
    # One drop of the rate; one evaluation without improvement after it.
    for value, loss in [(1.0, 0.5), (2.0, 0.6), (3.0, 0.7), (4.0, 0.6)]:
        network.fill(value)
        plateau.update(loss)
    path = tf.train.Checkpoint(model=network, plateau=plateau).save(tmp_path / "checkpoint")
    other = Mean(start=9.0)
    plateau = Plateau(other, patience=2, rate_drops=1)
    tf.train.Checkpoint(model=other, plateau=plateau).restore(path).assert_consumed()
    assert (plateau.lowest, plateau.ended, other.value) == (0.5, False, 4.0)
    assert rate_of(other) == pytest.approx(0.03)
    plateau.update(0.6)  # the second evaluation without improvement, after the only drop
    assert plateau.ended
    assert other.value == 1.0


# train_network

STEPS = 40


def schedule(steps=STEPS, **options):
    train = Train(steps=steps, log_every=5, evaluate_every=5, checkpoint_every=10)
    return Schedule(train, **options)


def train(network, folder, how=None, held_out=(3.0, 3.0, 3.0), **options):
    """Trains on features that are all 3; held-out features come in batches of two."""
    features = np.float32(held_out)[:, None]

    def held_out_batches():
        for start in range(0, len(features), 2):
            yield {"features": features[start : start + 2]}

    def batches(step):
        return tf.data.Dataset.from_tensors({"features": np.full((4, 1), 3, np.float32)}).repeat()

    how = how or schedule()
    return train_network(network, how, batches, held_out_batches, folder, "mean", **options)


def test_a_network_that_still_improves_uses_all_its_steps(tmp_path, capsys):
    network = Mean(learning_rate=0.01)
    found = train(network, tmp_path)
    assert (found.steps, found.converged) == (STEPS, False)
    assert found.held_out_loss == pytest.approx((3 - network.value) ** 2, rel=1e-5)
    assert found.images_per_s > 0
    steps, losses = found.curve
    assert list(steps) == list(range(5, STEPS + 1, 5))
    assert losses[-1] == pytest.approx(found.held_out_loss)
    assert "mean: ended at step 40, because it has used all its steps" in capsys.readouterr().out


def test_a_network_ends_at_its_best_point_once_held_out_images_no_longer_improve(tmp_path, capsys):
    # The held-out mean is 1: the network passes it on its way to 3.
    network = Mean(learning_rate=0.1)
    found = train(
        network, tmp_path, schedule(1000, patience=2, rate_drops=0), held_out=(1.0, 1.0, 1.0)
    )
    assert found.converged
    assert found.steps < 100
    assert found.held_out_loss == pytest.approx((1 - network.value) ** 2, abs=1e-6)
    assert found.held_out_loss == pytest.approx(min(found.curve[1]))
    assert found.curve[1][-1] > 2 * found.held_out_loss
    assert "because held-out images no longer improve" in capsys.readouterr().out


def test_the_held_out_loss_is_the_mean_over_images(tmp_path):
    network = Mean(learning_rate=0.0)
    found = train(network, tmp_path, held_out=(1.0, 1.0, 4.0))
    assert found.held_out_loss == pytest.approx((1 + 1 + 16) / 3)


def test_with_a_decaying_rate_it_never_ends_early(tmp_path):
    how = schedule(patience=1, rate_drops=0, decays=True)
    network = Mean(learning_rate=0.0)
    found = train(network, tmp_path, how)
    assert (found.steps, found.converged) == (STEPS, False)
    assert (how.decay_steps, schedule().decay_steps) == (STEPS, 0)


def test_a_finished_training_is_read_and_not_made_again(tmp_path):
    begun = []
    how = schedule(1000, patience=2, rate_drops=0)
    options = {"held_out": (1.0,), "before_first_step": lambda: begun.append(1)}
    first = train(Mean(), tmp_path, how, **options)
    network = Mean(start=7.0)
    assert train(network, tmp_path, how, **options) == first
    assert first.held_out_loss == pytest.approx((1 - network.value) ** 2, abs=1e-6)
    assert begun == [1]


def test_each_evaluation_is_shown(tmp_path):
    shown = []
    train(Mean(), tmp_path, show=lambda trainer, step: shown.append((trainer.step, step)))
    assert shown == [(step, step) for step in range(5, STEPS + 1, 5)]


def test_a_training_that_diverges_is_an_error(tmp_path):
    with pytest.raises(TrainingError, match="mean: the squares loss is nan"):
        train(Mean(start=np.nan), tmp_path)
