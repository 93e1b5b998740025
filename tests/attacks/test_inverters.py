import numpy as np
import pytest
import tensorflow as tf

from tests.public_pictures import SIZE, BlackBox, PublicPictures
from tfadv.attacks.inverters import FeatureInverter, ImageInverter, Plateau, Standardisation
from tfadv.attacks.pairs import Pairs
from tfadv.data.dataset import PUBLIC, TRAIN
from tfadv.models.adversary import Adversary
from tfadv.models.decoder import Decoder
from tfadv.models.feature_map import FeatureMap

BATCH = 16


def one_colour_pictures(count, seed=0):
    colours = np.random.default_rng(seed).integers(0, 256, (count, 1, 1, 3), np.uint8)
    return np.tile(colours, (1, SIZE, SIZE, 1))


def make_inverter(feature_shape=(3,), learning_rate=1e-3, seed=0):
    tf.keras.utils.set_random_seed(seed)
    decoder = Decoder(feature_shape, SIZE, width=0.125, dtype="float32")
    decoder.build((None, *feature_shape))
    inverter = ImageInverter(Adversary(decoder), feature_shape)
    inverter.compile(tf.keras.optimizers.Adam(learning_rate))
    return inverter


def make_batch(count=BATCH, feature_shape=(3,), seed=0):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
    features = random.normal(size=(count, *feature_shape)).astype(np.float32)
    return {"images": images, "features": features}


def learn(black_box, images, steps, feature_shape=(3,)):
    """Runs the attack; returns its inverter and the loss on the pictures it learned from."""
    pairs = Pairs(black_box, PublicPictures(images), PUBLIC, TRAIN, feature_shape, budget_mb=100)
    inverter = make_inverter(feature_shape, learning_rate=3e-3)
    inverter.standardisation.adapt(batch["features"] for batch in pairs.batches())
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
    """What the mean face costs: the least loss of any guess that needs no feature."""
    return np.var(images / 127.5 - 1.0, axis=0).mean()


@pytest.fixture(scope="module")
def learned():
    """The feature says all there is in these pictures."""
    return learn(BlackBox(), one_colour_pictures(256), steps=300)


def test_learns_from_nothing_but_public_pictures_and_calls(learned):
    _, loss = learned
    assert loss < 0.05 / 3  # the variance of a colour that is uniform in [-1, 1] is 1/3


def test_inverts_pictures_it_has_not_seen(learned):
    inverter, _ = learned
    unseen = PublicPictures(one_colour_pictures(64, seed=1))
    assert loss_on(inverter, Pairs(BlackBox(), unseen, PUBLIC, TRAIN, (3,), 100)) < 0.06 / 3


def test_features_that_say_nothing_give_the_mean_face_and_no_better():
    images = one_colour_pictures(64)
    _, loss = learn(lambda images: np.full((len(images), 3), 0.7), images, steps=200)
    least = variance_of(images)
    assert least * (1 - 1e-5) <= loss < 1.05 * least


def loss_of_a_hidden_picture(share, dimensions=8):
    """The share of the brightness that is not recovered, from pictures that were not learned from.

    A feature is standard normal noise, new for each picture, in all dimensions but one, and there
    the brightness, with a `share` of the feature's variance.
    """
    random = np.random.default_rng(1)
    others = dimensions - 1

    def hide(images):
        brightness = images[:, 0, 0, :1] / 127.5 - 1.0  # of variance 1/3
        noise = random.normal(size=(len(images), others))
        return np.concatenate([noise, np.sqrt(3 * others * share) * brightness], 1)

    def grey_pictures(count, seed):
        return one_colour_pictures(count, seed)[..., :1].repeat(3, -1)

    inverter, _ = learn(hide, grey_pictures(2048, 0), steps=300, feature_shape=(dimensions,))
    unseen = PublicPictures(grey_pictures(256, 1))
    return 3 * loss_on(inverter, Pairs(hide, unseen, PUBLIC, TRAIN, (dimensions,), 100))


@pytest.mark.parametrize("share", [1e-3, 1e-6])
def test_a_picture_hidden_in_one_dimension_of_little_variance_is_recovered(share):
    assert loss_of_a_hidden_picture(share) < 0.2  # 0.01 to 0.13 over seeds


FEATURES = {
    "vectors": np.random.default_rng(2).normal(3.0, 2.0, (37, 5)),
    "maps": np.random.default_rng(3).gamma(1.0, size=(21, 4, 4, 6)),
    "large offsets": np.random.default_rng(4).normal(1e4, 1e-2, (50, 3)),
    "tiny": np.random.default_rng(5).normal(1e-12, 1e-9, (50, 3)),
}


def standardisation_of(features, ends=(3, 4, 19)):
    layer = Standardisation(dtype="float32")
    layer.build(features.shape)
    layer.adapt(np.split(features, ends))
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
def test_a_dimension_that_never_moves_becomes_0(value):
    features = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    features[:, 1] = value
    outputs = standardisation_of(features)(features).numpy()
    assert not outputs[:, 1].any()
    assert outputs[:, 0].all()


def test_rounding_noise_around_a_constant_becomes_0():
    neighbours = np.float32([0.1, np.nextafter(np.float32(0.1), np.float32(1))])
    features = neighbours[np.arange(40) % 2][:, None]
    assert not standardisation_of(features)(features).numpy().any()


def test_before_adapt_features_stay_as_they_are():
    layer = Standardisation(dtype="float32")
    features = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    np.testing.assert_array_equal(layer(features), features)


# ImageInverter


def test_reconstructions_are_pictures_between_black_and_white():
    outputs = make_inverter()(1e3 * make_batch()["features"])
    assert (outputs.shape, outputs.dtype) == ((BATCH, SIZE, SIZE, 3), tf.float32)
    assert np.abs(outputs).max() <= 1.0


def test_loss_is_the_mean_squared_difference_of_the_pictures():
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


def test_a_training_step_leaves_the_statistics_of_the_features():
    inverter = make_inverter()
    inverter.standardisation.adapt([make_batch()["features"]])
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
    inverter.standardisation.adapt([3.0 + 2.0 * make_batch()["features"]])
    for seed in range(3):
        inverter.train_step(make_batch(seed=seed))
    return inverter


def test_a_checkpoint_restores_the_whole_inverter(tmp_path):
    inverter, restored = trained_inverter(), make_inverter(seed=1)
    path = tf.train.Checkpoint(model=inverter).save(tmp_path / "checkpoint")
    tf.train.Checkpoint(model=restored).restore(path).assert_consumed()
    features = make_batch(seed=9)["features"]
    np.testing.assert_array_equal(restored(features), inverter(features))
    for name in ("adversary", "standardisation", "optimizer"):
        variables = getattr(restored, name).variables
        assert not any(changed(values_of(getattr(inverter, name).variables), variables)), name


def test_a_checkpoint_holds_every_variable_of_the_inverter(tmp_path):
    inverter = trained_inverter()
    path = tf.train.Checkpoint(model=inverter).save(tmp_path / "checkpoint")
    stored = sorted(tuple(shape) for _, shape in tf.train.list_variables(path))
    held = [tuple(v.shape) for v in [*inverter.variables, *inverter.optimizer.variables]]
    # Beside them, the object graph and the count of saves, both scalars.
    assert stored == sorted([*held, (), ()])


def test_a_restored_inverter_goes_on_as_the_first_would_have(tmp_path):
    inverter, restored = trained_inverter(), make_inverter(seed=1)
    path = tf.train.Checkpoint(model=inverter).save(tmp_path / "checkpoint")
    tf.train.Checkpoint(model=restored).restore(path)
    for model in (inverter, restored):
        model.train_step(make_batch(seed=5))
    for one, other in zip(
        inverter.adversary.decoder.variables, restored.adversary.decoder.variables, strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_keras_fit_trains_it():
    images = one_colour_pictures(64)
    arrays = {"images": images, "features": BlackBox()(images).astype(np.float32)}
    inverter = make_inverter(learning_rate=3e-3)
    inverter.standardisation.adapt([arrays["features"]])
    batches = tf.data.Dataset.from_tensor_slices(arrays).batch(BATCH)
    history = inverter.fit(
        batches, validation_data=batches, epochs=12, shuffle=False, verbose=0
    ).history
    assert set(history) == {"reconstruction", "val_reconstruction", "val_held_out_loss"}
    assert history["reconstruction"][-1] < 0.5 * history["reconstruction"][0]


# Plateau


@pytest.fixture
def inverter():
    return make_inverter(learning_rate=0.1)


def rate_of(inverter):
    return float(inverter.optimizer.learning_rate)


def test_the_rate_falls_after_patience_looks_and_the_attack_ends_after_the_drops(inverter):
    plateau = Plateau(inverter, patience=2, rate_drops=1)
    seen = []
    for loss in (1.0, 0.9, 0.95, 0.8, 0.85, 0.81, 0.79, 0.79, 0.9):
        plateau.update(loss)
        seen.append((plateau.lowest, round(rate_of(inverter), 6), plateau.ended))
    assert seen == [
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
    inverter, patience, rate_drops
):
    plateau = Plateau(inverter, patience, rate_drops)
    plateau.update(1.0)
    looks = 0
    while not plateau.ended:
        plateau.update(1.0)
        looks += 1
    assert looks == patience * (rate_drops + 1)


def test_less_than_a_ten_thousandth_is_no_improvement(inverter):
    plateau = Plateau(inverter, patience=1, rate_drops=0)
    plateau.update(1.0)
    plateau.update(1.0 - 0.5e-4)
    assert plateau.ended


def fill(inverter, value):
    for variable in inverter.adversary.decoder.variables:
        variable.assign(np.full(variable.shape, value))


def filled_with(inverter):
    values = np.concatenate(
        [np.ravel(variable) for variable in inverter.adversary.decoder.variables]
    )
    assert values.min() == values.max()
    return values.max()


def test_restore_best_gives_back_the_weights_of_the_lowest_loss(inverter):
    plateau = Plateau(inverter, patience=9, rate_drops=0)
    for value, loss in [(1.0, 0.5), (2.0, 0.2), (3.0, 0.3)]:
        fill(inverter, value)
        plateau.update(loss)
    plateau.restore_best()
    assert filled_with(inverter) == 2.0


def test_restore_best_before_any_look_leaves_the_first_weights(inverter):
    before = values_of(inverter.adversary.decoder.variables)
    plateau = Plateau(inverter, patience=1, rate_drops=0)
    fill(inverter, 1.0)
    plateau.restore_best()
    assert not any(changed(before, inverter.adversary.decoder.variables))


def test_training_goes_on_from_the_best_weights_when_the_rate_falls(inverter):
    plateau = Plateau(inverter, patience=2, rate_drops=1)
    found = []
    for value, loss in [(1.0, 0.5), (2.0, 0.6), (3.0, 0.7)]:
        fill(inverter, value)
        plateau.update(loss)
        found.append(filled_with(inverter))
    assert found == [1.0, 2.0, 1.0]


def halfway(inverter):
    """A plateau that has dropped the rate once and waited once since."""
    plateau = Plateau(inverter, patience=2, rate_drops=1)
    for value, loss in [(1.0, 0.5), (2.0, 0.6), (3.0, 0.7), (4.0, 0.6)]:
        fill(inverter, value)
        plateau.update(loss)
    return plateau


def test_a_checkpoint_holds_the_best_weights_and_the_counters(inverter, tmp_path):
    path = tf.train.Checkpoint(plateau=halfway(inverter)).save(tmp_path / "checkpoint")
    names = [name for name, _ in tf.train.list_variables(path)]
    for i, weight in enumerate(inverter.adversary.decoder.variables):
        stored = tf.train.load_variable(path, f"plateau/_best/{i}/.ATTRIBUTES/VARIABLE_VALUE")
        np.testing.assert_array_equal(stored, np.ones(weight.shape))
    counters = {
        name: tf.train.load_variable(path, f"plateau/{name}/.ATTRIBUTES/VARIABLE_VALUE")
        for name in ("_lowest", "_waited", "_drops")
    }
    assert counters == {"_lowest": 0.5, "_waited": 1, "_drops": 1}
    assert len([name for name in names if "/_best/" in name]) == len(
        inverter.adversary.decoder.variables
    )


def test_a_restored_plateau_goes_on_where_it_was(inverter, tmp_path):
    first = tf.train.Checkpoint(model=inverter, plateau=halfway(inverter))
    path = first.save(tmp_path / "checkpoint")
    other = make_inverter(learning_rate=0.1, seed=1)
    plateau = Plateau(other, patience=2, rate_drops=1)
    tf.train.Checkpoint(model=other, plateau=plateau).restore(path).assert_consumed()
    assert (plateau.lowest, plateau.ended, filled_with(other)) == (0.5, False, 4.0)
    assert rate_of(other) == pytest.approx(0.03)
    plateau.update(0.6)  # the second look without improvement, after the only drop
    assert plateau.ended
    assert filled_with(other) == 1.0


# FeatureInverter


def make_feature_inverter(feature_shape=(6,), embedding=4, learning_rate=1e-3):
    tf.keras.utils.set_random_seed(0)
    feature_map = FeatureMap(feature_shape, embedding, hidden=64, dtype="float32")
    feature_map.build((None, *feature_shape))
    inverter = FeatureInverter(feature_map, feature_shape)
    inverter.compile(tf.keras.optimizers.Adam(learning_rate))
    return inverter


def make_people(count, seed=0):
    """Features, and embeddings that they determine: a direction each."""
    features = np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)
    embeddings = features[:, :4] / np.linalg.norm(features[:, :4], axis=1, keepdims=True)
    return {"features": features, "embeddings": embeddings}


def test_feature_inverter_guesses_the_embeddings_of_features_it_has_not_seen():
    inverter = make_feature_inverter(learning_rate=3e-3)
    people = make_people(1024)
    inverter.standardisation.adapt([people["features"]])
    batches = tf.data.Dataset.from_tensor_slices(people).shuffle(1024, seed=0).repeat().batch(64)
    step = tf.function(inverter.train_step)
    for batch in batches.take(400):
        step(batch)
    unseen = make_people(256, seed=1)
    variance = unseen["embeddings"].var()
    assert float(inverter.test_step(unseen)["held_out_loss"]) < 0.2 * variance


def test_feature_inverter_descends_the_gradient_of_equation_10():
    ours, by_hand = make_feature_inverter(), make_feature_inverter()
    for inverter in (ours, by_hand):
        inverter.compile(tf.keras.optimizers.SGD(0.1))
        inverter.feature_map.mlp[2].rate = 0.0  # dropout draws other units at every call
    people = make_people(16)
    variables = by_hand.feature_map.trainable_variables
    with tf.GradientTape() as tape:
        guesses = by_hand(people["features"], training=True)
        loss = tf.reduce_mean(tf.square(guesses - people["embeddings"]))
    gradients = tape.gradient(loss, variables)
    expected = [v.numpy() - 0.1 * g.numpy() for v, g in zip(variables, gradients, strict=True)]
    assert float(ours.train_step(people)["embedding"]) == pytest.approx(float(loss), rel=1e-5)
    for one, other in zip(ours.feature_map.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_before_it_learns_a_feature_inverter_guesses_about_the_mean_embedding():
    inverter, people = make_feature_inverter(), make_people(200)
    mean = np.linspace(-5, 5, people["embeddings"].shape[1], dtype=np.float32)
    embeddings = mean + 0.01 * people["embeddings"]
    inverter.adapt_embeddings(embeddings)
    error = np.abs(inverter(people["features"]) - embeddings.mean(0))
    assert error.max() < 20 * embeddings.std(0).max()


def test_embeddings_that_are_all_alike_leave_a_finite_loss():
    inverter, people = make_feature_inverter(), make_people(16)
    people["embeddings"] = np.ones_like(people["embeddings"])
    inverter.adapt_embeddings(people["embeddings"])
    assert np.isfinite(inverter.train_step(people)["embedding"])


def test_a_checkpoint_restores_the_whole_feature_inverter(tmp_path):
    inverter, restored = make_feature_inverter(), make_feature_inverter()
    inverter.standardisation.adapt([3.0 + 2.0 * make_people(50)["features"]])
    inverter.adapt_embeddings(1.0 + make_people(50)["embeddings"])
    inverter.train_step(make_people(16))
    path = tf.train.Checkpoint(model=inverter).save(tmp_path / "checkpoint")
    tf.train.Checkpoint(model=restored).restore(path).assert_consumed()
    features = make_people(8, seed=3)["features"]
    np.testing.assert_array_equal(restored(features), inverter(features))


def test_plateau_gives_a_feature_inverter_back_its_best_weights():
    inverter = make_feature_inverter()
    plateau = Plateau(inverter, patience=9, rate_drops=0)
    before = values_of(inverter.learned)
    plateau.update(0.1)
    inverter.train_step(make_people(16))
    plateau.update(0.2)
    assert any(changed(before, inverter.learned))
    plateau.restore_best()
    assert not any(changed(before, inverter.learned))
