import numpy as np

from tests.public_images import make_knowledge, wave_pairs
from tfadv.attacks.nearest_neighbour import SOFTNESSES, NearestNeighbour, Search


def all_images(pairs):
    return pairs.images(slice(None)) / 127.5 - 1.0


def variance_of(pairs):
    """Returns the loss of the mean image."""
    return np.var(all_images(pairs), axis=0).mean()


def loss_of(search, train, pairs):
    found = all_images(train)[search(pairs.all_features)]
    return np.square(found - all_images(pairs)).mean()


def test_the_nearest_neighbour_of_a_known_feature_is_its_own_image():
    train = wave_pairs(100, 0)
    search = Search(make_knowledge(train, wave_pairs(40, 1)))
    np.testing.assert_array_equal(search(train.all_features), np.arange(100))


def test_the_nearest_neighbour_looks_like_the_image():
    train, held_out, unseen = (wave_pairs(count, i) for i, count in enumerate((800, 60, 60)))
    search = Search(make_knowledge(train, held_out))
    assert search.softness in SOFTNESSES
    # An image that is found by chance: twice the variance.
    assert loss_of(search, train, unseen) < 0.6 * variance_of(unseen)


def test_directions_of_large_variance_do_not_mislead_the_search():
    random = np.random.default_rng(5)

    def hide(heights):
        return np.concatenate([heights, 1e4 * random.normal(size=(len(heights), 1))], axis=1)

    train, held_out, unseen = (wave_pairs(count, i, hide) for i, count in enumerate((800, 60, 60)))
    search = Search(make_knowledge(train, held_out))
    assert loss_of(search, train, unseen) < variance_of(unseen)


def test_the_fitted_attack_finds_public_images(tmp_path):
    train = wave_pairs(100, 0)
    knowledge = make_knowledge(train, wave_pairs(40, 1))
    fitted = NearestNeighbour().fit(knowledge, tmp_path)
    np.testing.assert_array_equal(fitted.neighbours(train.all_features[[5, 2]]), [5, 2])
    assert fitted.neighbour_images is knowledge.train
