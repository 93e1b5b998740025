import numpy as np
import pytest
import tensorflow as tf

from tests.public_images import (
    SIZE,
    BlackBox,
    FixedPairs,
    PublicImages,
    embeddings_of,
    make_knowledge,
)
from tfadv.attacks import knowledge
from tfadv.attacks.knowledge import Pairs
from tfadv.data.dataset import PUBLIC, TRAIN


def numbered_images(count):
    """Image i has the colour i everywhere."""
    return np.tile(np.arange(count, dtype=np.uint8)[:, None, None, None], (1, SIZE, SIZE, 3))


def make_pairs(black_box, count=24, memory_mb=100.0):
    return Pairs(black_box, PublicImages(numbered_images(count)), PUBLIC, TRAIN, memory_mb)


def numbers(batch):
    """Returns the numbers of a batch's images; checks that each feature belongs to its image."""
    images = np.asarray(batch["images"])
    features = np.asarray(batch["features"])
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, images.mean((1, 2)).astype(np.float32))
    np.testing.assert_array_equal(batch["index"], images[:, 0, 0, 0])
    return images[:, 0, 0, 0].tolist()


KEPT = pytest.mark.parametrize("memory_mb", [100, 0], ids=["kept", "on_the_fly"])


@KEPT
def test_every_pair_comes_once_in_order(memory_mb):
    batches = [numbers(batch) for batch in make_pairs(BlackBox(), 24, memory_mb).batches()]
    assert batches == [list(range(10)), list(range(10, 20)), list(range(20, 24))]


@KEPT
def test_an_epoch_of_training_batches_has_every_pair_once(memory_mb):
    batches = make_pairs(BlackBox(), 24, memory_mb).training_batches(8, seed=0).take(6)
    seen = [number for batch in batches for number in numbers(batch)]
    assert sorted(seen[:24]) == sorted(seen[24:]) == list(range(24))
    assert seen[:24] != list(range(24))
    assert seen[:24] != seen[24:]


@KEPT
def test_training_batches_have_images_features_and_positions_of_known_shape(
    memory_mb,
):
    batches = make_pairs(BlackBox(), 24, memory_mb).training_batches(8, seed=0)
    assert batches.element_spec == {
        "images": tf.TensorSpec((8, SIZE, SIZE, 3), tf.uint8),
        "features": tf.TensorSpec((8, 3), tf.float32),
        "index": tf.TensorSpec((8,), tf.int64),
    }


def order(memory_mb, *, seed, start=0, count=10, global_seed=0):
    tf.keras.utils.set_random_seed(global_seed)
    batches = make_pairs(BlackBox(), 24, memory_mb).training_batches(7, seed=seed, start=start)
    return [numbers(batch) for batch in batches.take(count)]


@KEPT
def test_the_order_of_training_batches_depends_on_their_seed_alone(memory_mb):
    first = order(memory_mb, seed=3)
    assert order(memory_mb, seed=3, global_seed=1) == first
    assert order(memory_mb, seed=4) != first


@KEPT
@pytest.mark.parametrize("start", [1, 3, 4, 9])
def test_training_batches_from_a_later_start_are_those_of_an_uninterrupted_run(memory_mb, start):
    assert (
        order(memory_mb, seed=0, start=start, count=10 - start) == order(memory_mb, seed=0)[start:]
    )


def test_kept_images_are_sent_to_the_black_box_once():
    black_box = BlackBox()
    pairs = make_pairs(black_box)
    list(pairs.batches())
    list(pairs.training_batches(8, seed=0).take(9))
    np.testing.assert_array_equal(np.concatenate(black_box.calls), numbered_images(24))


def test_pairs_are_kept_if_all_fit_the_memory():
    # 3 features of 4 bytes and 3 bytes for each pixel.
    needed = 24 * (3 * 4 + 3 * SIZE**2) / 2**20
    sent = {}
    for memory_mb in (needed, needed * 0.999):
        black_box = BlackBox()
        pairs = make_pairs(black_box, 24, memory_mb)
        for _ in range(2):
            list(pairs.batches())
        sent[memory_mb] = black_box.count
    assert sent == {needed: 24, needed * 0.999: 2 * 24}


@KEPT
def test_images_come_by_their_positions_in_any_order_and_repeatedly(memory_mb):
    pairs = make_pairs(BlackBox(), 24, memory_mb)
    positions = np.array([17, 3, 3, 23, 0])
    np.testing.assert_array_equal(pairs.images(positions)[:, 0, 0, 0], positions)


@pytest.mark.parametrize("memory_mb", [100, 0.03, 0], ids=["kept", "in_passes", "no_memory"])
def test_features_come_in_any_order(memory_mb, monkeypatch):
    monkeypatch.setattr(knowledge, "_FEWEST", 4)
    black_box = BlackBox()
    pairs = make_pairs(black_box, 24, memory_mb)
    positions = np.array([17, 3, 23, 0, 9, 8, 7, 6, 5, 4, 22, 21, 20, 19])
    batches = list(pairs.features(positions))
    assert max(map(len, batches)) <= 10
    features = np.concatenate(batches)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, np.repeat(positions[:, None], 3, axis=1))
    assert black_box.count == (24 if memory_mb == 100 else 14)  # no image more than once
    assert list(pairs.features(positions[:0])) == []


def test_images_are_put_in_order_in_as_few_passes_as_the_memory_allows(monkeypatch):
    monkeypatch.setattr(knowledge, "_FEWEST", 1)
    passes = []
    find = Pairs.images
    monkeypatch.setattr(
        Pairs, "images", lambda self, index: passes.append(len(index)) or find(self, index)
    )
    memory_mb = 5 * (3 * 3 * SIZE**2) / 2**20  # five images, three times
    list(make_pairs(BlackBox(), 24, memory_mb).features(np.arange(24)[::-1]))
    assert passes == [5, 5, 5, 5, 4]


# Knowledge


def make_known(identities, **known):
    """Knowledge with images that are numbered, and features that are ten times the number."""
    count = len(identities)
    features = 10.0 * np.arange(count)[:, None]
    train, held_out = FixedPairs(numbered_images(count), features), make_held_out()
    fields = {"identities": (np.array(identities), np.arange(3))}
    return make_knowledge(train, held_out, **fields, **known)


def make_held_out():
    return FixedPairs(numbered_images(3), np.zeros((3, 1)))


def check_numbers(known, expected):
    """Checks that images are those with such numbers, in batches and by position."""
    batches = list(known.pairs.batches())
    count = len(expected)
    assert known.count == known.pairs.count == count
    joined = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    np.testing.assert_array_equal(joined["index"], np.arange(count))
    np.testing.assert_array_equal(joined["images"][:, 0, 0, 0], expected)
    np.testing.assert_array_equal(joined["features"][:, 0], 10.0 * np.array(expected))
    backwards = np.arange(count)[::-1]
    np.testing.assert_array_equal(known.pairs.images(backwards)[:, 0, 0, 0], expected[::-1])
    np.testing.assert_array_equal(known.vectors()[:, 0], 10.0 * np.array(expected))
    assert (known.pairs.size, known.pairs.feature_shape) == (SIZE, (1,))


def test_known_images_at_some_positions_keep_all_that_is_known_of_them():
    embeddings, labels = np.arange(8.0)[:, None], np.arange(16, dtype=np.uint8).reshape(8, 2)
    known = make_known(
        [5, 2, 5, -1, 2, 7, 7, 2],
        embeddings=(embeddings_of(embeddings), None),
        labels=(labels, None),
    ).train.at(np.array([1, 3, 6]))
    check_numbers(known, [1, 3, 6])
    np.testing.assert_array_equal(known.identities, [2, -1, 7])
    np.testing.assert_array_equal(known.embeddings.embedding[:, 0], [1, 3, 6])
    assert known.embeddings.inner.shape == (3, 1)
    np.testing.assert_array_equal(known.labels, labels[[1, 3, 6]])


def test_known_images_at_some_positions_have_no_embeddings_and_labels_if_there_were_none():
    known = make_known([0, 1, 2]).train.at(np.array([0, 2]))
    assert known.embeddings is None
    assert known.labels is None


def test_a_subset_of_many_pairs_leaves_out_batches_without_any():
    known = make_known(np.arange(120)).train.at(np.array([3, 110, 119]))
    check_numbers(known, [3, 110, 119])
    assert len(list(known.pairs.batches())) == 2  # of three


def test_an_attacker_with_fewer_images_has_whole_people():
    full = make_known(
        [5, 2, 5, -1, 2, 7, 7, 2], embeddings=(embeddings_of(np.arange(8.0)[:, None]), None)
    )
    fewer = full.with_fewer(5)
    check_numbers(fewer.train, [0, 1, 2, 4, 7])
    np.testing.assert_array_equal(fewer.train.identities, [5, 2, 5, 2, 2])
    np.testing.assert_array_equal(fewer.train.embeddings.embedding[:, 0], [0, 1, 2, 4, 7])
    assert fewer.held_out is full.held_out


def test_an_attacker_with_fewer_images_has_those_of_unknown_people_last():
    assert make_known([-1, 3, -1, 1]).with_fewer(3).train.identities.tolist() == [-1, 3, 1]


def test_the_plain_view_is_whitened_by_the_training_features():
    features = np.random.default_rng(0).normal(2.0, 3.0, (60, 2, 2, 3))
    pairs = FixedPairs(numbered_images(60), features)
    held_out = FixedPairs(numbered_images(20), features[:20])
    white = make_knowledge(pairs, held_out).views[0].white(features)
    np.testing.assert_allclose(white.mean(0), 0.0, atol=1e-5)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(12), atol=1e-4)
