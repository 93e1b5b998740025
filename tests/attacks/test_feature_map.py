import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.public_images import embeddings_of, features_only, make_knowledge
from tfadv.attacks.feature_map import FeatureInverter, check_size
from tfadv.attacks.feature_map import FeatureMap as FeatureMapAttack
from tfadv.attacks.network_training import Plateau, Schedule
from tfadv.config.errors import UserError
from tfadv.config.schema import FeatureMap as Settings
from tfadv.config.schema import Train
from tfadv.models.feature_map import FeatureMap


def make_feature_inverter(feature_shape=(6,), embedding=4, learning_rate=1e-3):
    tf.keras.utils.set_random_seed(0)
    feature_map = FeatureMap(feature_shape, embedding, hidden=64, dtype="float32")
    feature_map.build((None, *feature_shape))
    inverter = FeatureInverter(feature_map, feature_shape)
    inverter.compile(tf.keras.optimizers.Adam(learning_rate))
    return inverter


def make_people(count, seed=0):
    """Features, and embeddings of length 1 that the features determine."""
    features = np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)
    embeddings = features[:, :4] / np.linalg.norm(features[:, :4], axis=1, keepdims=True)
    return {"features": features, "embeddings": embeddings}


def test_a_feature_inverter_guesses_the_embeddings_of_features_that_it_has_not_seen():
    inverter = make_feature_inverter(learning_rate=3e-3)
    people = make_people(1024)
    inverter.standardisation.adapt(lambda: [people["features"]])
    batches = tf.data.Dataset.from_tensor_slices(people).shuffle(1024, seed=0).repeat().batch(64)
    step = tf.function(inverter.train_step)
    for batch in batches.take(400):
        step(batch)
    unseen = make_people(256, seed=1)
    variance = unseen["embeddings"].var()
    assert float(inverter.test_step(unseen)["held_out_loss"]) < 0.2 * variance


def test_a_feature_inverter_descends_the_gradient_of_equation_10():
    ours, by_hand = make_feature_inverter(), make_feature_inverter()
    for inverter in (ours, by_hand):
        inverter.compile(tf.keras.optimizers.SGD(0.1))
        inverter.feature_map.mlp[2].rate = 0.0  # dropout leaves out other units at every call
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


def test_before_training_a_feature_inverter_guesses_about_the_mean_embedding():
    inverter, people = make_feature_inverter(), make_people(200)
    mean = np.linspace(-5, 5, people["embeddings"].shape[1], dtype=np.float32)
    embeddings = mean + 0.01 * people["embeddings"]
    inverter.adapt_embeddings(embeddings)
    error = np.abs(inverter(people["features"]) - embeddings.mean(0))
    assert error.max() < 20 * embeddings.std(0).max()


def test_embeddings_that_are_all_the_same_leave_a_finite_loss():
    inverter, people = make_feature_inverter(), make_people(16)
    people["embeddings"] = np.ones_like(people["embeddings"])
    inverter.adapt_embeddings(people["embeddings"])
    assert np.isfinite(inverter.train_step(people)["embedding"])


def test_a_checkpoint_restores_the_whole_feature_inverter(tmp_path):
    inverter, restored = make_feature_inverter(), make_feature_inverter()
    inverter.standardisation.adapt(lambda: [3.0 + 2.0 * make_people(50)["features"]])
    inverter.adapt_embeddings(1.0 + make_people(50)["embeddings"])
    inverter.train_step(make_people(16))
    path = tf.train.Checkpoint(model=inverter).save(tmp_path / "checkpoint")
    tf.train.Checkpoint(model=restored).restore(path).assert_consumed()
    features = make_people(8, seed=3)["features"]
    np.testing.assert_array_equal(restored(features), inverter(features))


def values_of(variables):
    return [np.array(variable) for variable in variables]


def test_a_plateau_gives_a_feature_inverter_back_its_best_weights():
    inverter = make_feature_inverter()
    plateau = Plateau(inverter, patience=9, rate_drops=0)
    before = values_of(inverter.learned)
    plateau.update(0.1)
    inverter.train_step(make_people(16))
    plateau.update(0.2)
    after = zip(before, values_of(inverter.learned), strict=True)
    assert any(not np.array_equal(old, new) for old, new in after)
    plateau.restore_best()
    for old, new in zip(before, values_of(inverter.learned), strict=True):
        np.testing.assert_array_equal(old, new)


# The attack


def test_the_attack_guesses_embeddings_and_says_how_its_training_went(tmp_path):
    train, held_out = make_people(512), make_people(128, seed=1)
    known = make_knowledge(
        *(features_only(each["features"]) for each in (train, held_out)),
        embeddings=[embeddings_of(each["embeddings"]) for each in (train, held_out)],
    )
    settings = Settings(hidden=64, steps=120, learning_rate=3e-3)
    fitted = FeatureMapAttack(settings, Schedule(Train(batch=64))).fit(known, tmp_path)
    guesses = fitted.embed(held_out["features"])
    loss = np.square(guesses - held_out["embeddings"]).mean()
    assert loss < 0.6 * held_out["embeddings"].var()
    assert loss == pytest.approx(fitted.held_out_loss, rel=1e-4)
    assert fitted.training.steps == 120
    assert fitted.training.curve[0][:2] == [8, 16]  # evaluated after each epoch
    np.testing.assert_allclose(fitted.mean_embedding, train["embeddings"].mean(0), atol=1e-6)


def test_a_network_that_would_be_too_large_is_refused_with_a_way_out():
    shape = (112, 112, 64)
    with pytest.raises(UserError) as caught:
        check_size(Settings(), "mine", shape)
    assert str(caught.value) == (
        "M would have 822,083,584 weights for the features [112, 112, 64] of mine: "
        "set --config.feature_map.pooling=average or a smaller feature_map.hidden"
    )
    check_size(Settings(pooling="average"), "mine", shape)
    check_size(dataclasses.replace(Settings(), hidden=256), "mine", shape)
