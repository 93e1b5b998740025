import numpy as np
import pytest

from tests.public_images import embeddings_of, make_knowledge, wave_pairs
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


class Brightness:
    """A recognizer that counts the images that it is asked about."""

    def __init__(self, name):
        self.name, self.count = name, 0

    def __call__(self, images):
        self.count += len(images)
        return embeddings_of(images.mean((1, 2)))


@pytest.mark.parametrize(
    ("has_embeddings", "name", "asked"),
    [(True, "faces", 0), (True, "others", 40), (False, "faces", 40)],
)
def test_the_embeddings_of_public_images_are_known_for_the_first_recognizer(
    tmp_path, has_embeddings, name, asked
):
    train, held_out = wave_pairs(100, 0), wave_pairs(40, 1)
    known = {}
    if has_embeddings:
        parts = (train, held_out)
        known["embeddings"] = [embeddings_of(all_images(each).mean((1, 2))) for each in parts]
    fitted = NearestNeighbour().fit(make_knowledge(train, held_out, **known), tmp_path)
    reconstructions = fitted.reconstruct(held_out.all_features)
    recognizer = Brightness(name)
    found = fitted.embed_images(recognizer, held_out.all_features)
    assert recognizer.count == asked
    np.testing.assert_allclose(found.embedding, reconstructions.mean((1, 2)), atol=1e-6)


def test_reconstructions_are_public_images(tmp_path):
    train = wave_pairs(100, 0)
    fitted = NearestNeighbour().fit(make_knowledge(train, wave_pairs(40, 1)), tmp_path)
    reconstructions = fitted.reconstruct(train.all_features[[5, 2]])
    assert reconstructions.dtype == np.float32
    np.testing.assert_allclose(reconstructions, all_images(train)[[5, 2]], atol=1e-6)
