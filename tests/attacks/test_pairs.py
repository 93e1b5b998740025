import numpy as np
import pytest
import tensorflow as tf

from tests.public_pictures import SIZE, BlackBox, PublicPictures
from tfadv.attacks import pairs as pairs_module
from tfadv.attacks.pairs import Pairs
from tfadv.data.dataset import PUBLIC, TRAIN


def numbered_pictures(count):
    """Picture i is of colour i alone."""
    return np.tile(np.arange(count, dtype=np.uint8)[:, None, None, None], (1, SIZE, SIZE, 3))


def make_pairs(black_box, count=24, budget_mb=100.0):
    return Pairs(
        black_box, PublicPictures(numbered_pictures(count)), PUBLIC, TRAIN, (3,), budget_mb
    )


def numbers(batch):
    """Which pictures a batch is of; checks that each row's feature is its own picture's."""
    images = np.asarray(batch["images"])
    features = np.asarray(batch["features"])
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, images.mean((1, 2)).astype(np.float32))
    np.testing.assert_array_equal(batch["index"], images[:, 0, 0, 0])
    return images[:, 0, 0, 0].tolist()


KEPT = pytest.mark.parametrize("budget_mb", [100, 0], ids=["kept", "on_the_fly"])


@KEPT
def test_every_pair_comes_once_in_order(budget_mb):
    batches = [numbers(batch) for batch in make_pairs(BlackBox(), 24, budget_mb).batches()]
    assert batches == [list(range(10)), list(range(10, 20)), list(range(20, 24))]


@KEPT
def test_an_epoch_of_training_batches_has_every_pair_once(budget_mb):
    batches = make_pairs(BlackBox(), 24, budget_mb).training_batches(8, seed=0).take(6)
    seen = [number for batch in batches for number in numbers(batch)]
    assert sorted(seen[:24]) == sorted(seen[24:]) == list(range(24))
    assert seen[:24] != list(range(24))
    assert seen[:24] != seen[24:]


@KEPT
def test_training_batches_hold_pictures_features_and_places_of_known_shape_alone(budget_mb):
    batches = make_pairs(BlackBox(), 24, budget_mb).training_batches(8, seed=0)
    assert batches.element_spec == {
        "images": tf.TensorSpec((8, SIZE, SIZE, 3), tf.uint8),
        "features": tf.TensorSpec((8, 3), tf.float32),
        "index": tf.TensorSpec((8,), tf.int64),
    }


def order(budget_mb, *, seed, start=0, count=10, global_seed=0):
    tf.keras.utils.set_random_seed(global_seed)
    batches = make_pairs(BlackBox(), 24, budget_mb).training_batches(7, seed=seed, start=start)
    return [numbers(batch) for batch in batches.take(count)]


@KEPT
def test_the_order_of_training_batches_depends_on_their_seed_alone(budget_mb):
    first = order(budget_mb, seed=3)
    assert order(budget_mb, seed=3, global_seed=1) == first
    assert order(budget_mb, seed=4) != first


@KEPT
@pytest.mark.parametrize("start", [1, 3, 4, 9])
def test_training_batches_from_a_later_start_are_those_of_an_uninterrupted_run(budget_mb, start):
    assert (
        order(budget_mb, seed=0, start=start, count=10 - start) == order(budget_mb, seed=0)[start:]
    )


def test_kept_pictures_are_sent_to_the_black_box_once():
    black_box = BlackBox()
    pairs = make_pairs(black_box)
    list(pairs.batches())
    list(pairs.training_batches(8, seed=0).take(9))
    np.testing.assert_array_equal(np.concatenate(black_box.calls), numbered_pictures(24))


def test_pictures_are_kept_up_to_the_budget_and_not_beyond():
    # 3 features of 4 bytes and 3 bytes for each pixel.
    needed = 24 * (3 * 4 + 3 * SIZE**2) / 2**20
    sent = {}
    for budget_mb in (needed, needed * 0.999):
        black_box = BlackBox()
        pairs = make_pairs(black_box, 24, budget_mb)
        for _ in range(2):
            list(pairs.batches())
        sent[budget_mb] = black_box.pictures
    assert sent == {needed: 24, needed * 0.999: 2 * 24}


@KEPT
def test_pictures_come_by_their_places_in_any_order_and_more_than_once(budget_mb):
    pairs = make_pairs(BlackBox(), 24, budget_mb)
    places = np.array([17, 3, 3, 23, 0])
    np.testing.assert_array_equal(pairs.pictures(places)[:, 0, 0, 0], places)


@pytest.mark.parametrize("budget_mb", [100, 0.03, 0], ids=["kept", "in_passes", "no_budget"])
def test_features_come_in_any_order(budget_mb, monkeypatch):
    monkeypatch.setattr(pairs_module, "_FEWEST", 4)
    black_box = BlackBox()
    pairs = make_pairs(black_box, 24, budget_mb)
    places = np.array([17, 3, 23, 0, 9, 8, 7, 6, 5, 4, 22, 21, 20, 19])
    batches = list(pairs.features(places))
    assert max(map(len, batches)) <= 10
    features = np.concatenate(batches)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, np.repeat(places[:, None], 3, axis=1))
    assert black_box.pictures == (24 if budget_mb == 100 else 14)  # no picture more than once
    assert list(pairs.features(places[:0])) == []


def test_pictures_are_put_in_order_in_as_few_passes_as_the_budget_allows(monkeypatch):
    monkeypatch.setattr(pairs_module, "_FEWEST", 1)
    passes = []
    pictures = Pairs.pictures
    monkeypatch.setattr(
        Pairs, "pictures", lambda self, index: passes.append(len(index)) or pictures(self, index)
    )
    budget_mb = 5 * (3 * 3 * SIZE**2) / 2**20  # five pictures, three times
    list(make_pairs(BlackBox(), 24, budget_mb).features(np.arange(24)[::-1]))
    assert passes == [5, 5, 5, 5, 4]
