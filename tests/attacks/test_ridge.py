import cv2
import numpy as np
import pytest
from sklearn.linear_model import Ridge as ReferenceRidge
from sklearn.preprocessing import StandardScaler

from tfadv.attacks import ridge as closed_form
from tfadv.attacks.ridge import ClosedFormDecoder, NearestNeighbour, RandomFeatures, Ridge
from tfadv.evaluation.whitening import Whitening

SIZE = 32


@pytest.fixture
def rng():
    return np.random.default_rng(0)


class FixedPairs:
    """Pairs of pictures and features that are given."""

    def __init__(self, images, features):
        self.images, self.features = images, features.astype(np.float32)
        self.count = len(images)

    def batches(self):
        for start in range(0, self.count, 50):
            rows = slice(start, start + 50)
            yield {"images": self.images[rows], "features": self.features[rows]}


def blocks(inputs, targets, size=37):
    def batches():
        for start in range(0, len(inputs), size):
            yield inputs[start : start + size], targets[start : start + size]

    return batches


# Ridge


@pytest.mark.parametrize("dimensions", [5, 60])
def test_ridge_is_scikit_learns_at_the_strength_it_chooses(rng, dimensions):
    inputs = rng.normal(size=(90, dimensions)) * rng.uniform(0.1, 10, dimensions) + 3.0
    targets = inputs @ rng.normal(size=(dimensions, 4)) + rng.normal(size=(90, 4))
    ridge = Ridge(blocks(inputs[:50], targets[:50]), blocks(inputs[50:], targets[50:]))
    scaler = StandardScaler().fit(inputs[:50])
    reference = ReferenceRidge(alpha=50 * ridge.strength)
    reference.fit(scaler.transform(inputs[:50]), targets[:50])
    expected = reference.predict(scaler.transform(inputs[50:]))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(ridge(inputs[50:]), expected, atol=2e-3 * scale)


def test_ridge_chooses_the_strength_with_the_smallest_held_out_error(rng):
    inputs = rng.normal(size=(60, 40))
    targets = inputs[:, :1] + rng.normal(size=(60, 1))  # 40 directions, one that tells
    fit, held_out = (inputs[:30], targets[:30]), (inputs[30:], targets[30:])
    ridge = Ridge(blocks(*fit), blocks(*held_out))
    scaler = StandardScaler().fit(fit[0])
    errors = [
        np.square(
            ReferenceRidge(alpha=30 * strength)
            .fit(scaler.transform(fit[0]), fit[1])
            .predict(scaler.transform(held_out[0]))
            .reshape(-1, 1)
            - held_out[1]
        ).mean()
        for strength in closed_form.STRENGTHS
    ]
    assert ridge.strength == pytest.approx(closed_form.STRENGTHS[np.argmin(errors)])
    assert ridge.strength > 0.01  # next to none overfits
    assert ridge.held_out_error == pytest.approx(min(errors), rel=1e-3)


def test_each_target_can_have_a_strength_of_its_own(rng):
    inputs = rng.normal(size=(80, 30))
    targets = np.stack([inputs[:, 0], rng.normal(size=80)], axis=1)  # one told, one noise
    ridge = Ridge(
        blocks(inputs[:40], targets[:40]), blocks(inputs[40:], targets[40:]), per_target=True
    )
    assert ridge.strength.shape == (2,)
    assert ridge.strength[1] > 100 * ridge.strength[0]


def test_size_of_the_blocks_changes_nothing(rng):
    inputs, targets = rng.normal(size=(100, 8)), rng.normal(size=(100, 3))
    one, other = (
        Ridge(blocks(inputs, targets, size), blocks(inputs, targets, size))(inputs)
        for size in (100, 7)
    )
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_input_without_emphasis_is_hardly_used(rng):
    inputs = rng.normal(size=(100, 2))
    targets = inputs.sum(1, keepdims=True)
    noise = 0.5 * rng.normal(size=(100, 1))
    pairs = blocks(inputs, targets + noise)
    with_little = Ridge(pairs, pairs, Whitening([inputs], np.array([1.0, 1e-4])))
    with_little._coefficients *= with_little._shrinkage(1e-2) / with_little._shrinkage(
        with_little.strength
    )
    steps = with_little(np.eye(2)) - with_little(np.zeros((1, 2)))
    assert steps[0, 0] > 0.8
    assert abs(steps[1, 0]) < 0.1


# Decoders


def linear_pairs(count, seed, hide=lambda values: values):
    """Pictures of a few random waves, and the waves' heights, hidden in features."""
    random = np.random.default_rng(seed)
    heights = random.uniform(-1, 1, (count, 6))
    places = np.arange(SIZE) / SIZE
    waves = np.stack([np.cos(np.pi * k * places) for k in (1, 2, 3)])
    levels = np.einsum("nk,ky->ny", heights[:, :3], waves)[:, :, None]
    levels = levels + np.einsum("nk,kx->nx", heights[:, 3:], waves)[:, None, :]
    images = np.rint(127.5 * (1 + levels[..., None] / 6)).astype(np.uint8).repeat(3, axis=-1)
    return FixedPairs(images, hide(heights))


def loss_of(decoder, pairs):
    pictures = decoder(pairs.features)
    assert pictures.shape == pairs.images.shape
    assert np.abs(pictures).max() <= 1.0
    return np.square(pictures - (pairs.images / 127.5 - 1.0)).mean()


def variance_of(pairs):
    return np.var(pairs.images / 127.5, axis=0).mean()


@pytest.mark.parametrize("random_features", [0, 20])
def test_linear_encoder_is_inverted_exactly(random_features):
    train, held_out, unseen = (linear_pairs(count, i) for i, count in enumerate((200, 60, 60)))
    decoder = ClosedFormDecoder(train, held_out, SIZE, random_features)
    assert loss_of(decoder, unseen) < 1e-3 * variance_of(unseen)
    assert decoder.held_out_loss == pytest.approx(loss_of(decoder, held_out), rel=1e-4)


def test_picture_hidden_in_oblique_directions_of_little_variance_is_recovered():
    basis = np.linalg.qr(np.random.default_rng(7).normal(size=(20, 20)))[0]
    random = np.random.default_rng(8)

    def hide(heights):
        loud = 100 * random.normal(size=(len(heights), 14))
        return np.concatenate([0.01 * heights, loud], axis=1) @ basis

    train, held_out, unseen = (
        linear_pairs(count, i, hide) for i, count in enumerate((400, 100, 100))
    )
    assert loss_of(ClosedFormDecoder(train, held_out, SIZE), unseen) < 0.05 * variance_of(unseen)


def test_targets_in_directions_of_next_to_no_variance_are_found(rng):
    hidden, loud = rng.normal(size=(400, 3)), rng.normal(size=(400, 8))
    basis = np.linalg.qr(rng.normal(size=(11, 11)))[0]
    inputs = np.concatenate([1e-6 * hidden, loud], axis=1) @ basis
    ridge = Ridge(blocks(inputs[:300], hidden[:300]), blocks(inputs[300:], hidden[300:]))
    assert np.square(ridge(inputs[300:]) - hidden[300:]).mean() < 0.05


def test_features_that_say_nothing_give_the_mean_picture():
    random = np.random.default_rng(3)

    def hide(heights):
        return random.normal(size=(len(heights), 10))

    train, held_out, unseen = (linear_pairs(200, i, hide) for i in range(3))
    loss = loss_of(ClosedFormDecoder(train, held_out, SIZE), unseen)
    assert 0.95 * variance_of(unseen) < loss < 1.1 * variance_of(unseen)


def test_random_features_find_what_is_not_linear():
    def fold(heights):
        # The sign is lost to any linear map of the square alone, so give it in another dimension.
        return np.concatenate([np.abs(heights), np.sign(heights)], axis=1)

    train, held_out, unseen = (
        linear_pairs(count, i, fold) for i, count in enumerate((1500, 300, 300))
    )
    plain = loss_of(ClosedFormDecoder(train, held_out, SIZE), unseen)
    through = loss_of(ClosedFormDecoder(train, held_out, SIZE, random_features=300), unseen)
    assert through < 0.7 * plain


def test_random_features_are_relus_of_directions_fixed_by_their_seed(rng):
    vectors = rng.normal(size=(50, 4)).astype(np.float32)
    first, same, other = (
        RandomFeatures(Whitening([vectors]), 6, seed)(vectors) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, same)
    assert not np.allclose(first, other)
    np.testing.assert_array_equal(first[:, :4], vectors)
    assert first[:, 4:].min() == 0.0


@pytest.mark.parametrize("random_features", [0, 20])
def test_a_whitening_at_hand_changes_nothing(random_features):
    train, held_out, unseen = (linear_pairs(count, i) for i, count in enumerate((200, 60, 60)))
    shared = Whitening([train.features])
    decoders = (
        ClosedFormDecoder(train, held_out, SIZE, random_features, whitening=whitening)
        for whitening in (None, shared)
    )
    alone, together = (decoder(unseen.features) for decoder in decoders)
    np.testing.assert_allclose(together, alone, atol=1e-4)
    searches = (NearestNeighbour(train, held_out, whitening) for whitening in (None, shared))
    alone, together = (search(unseen.features) for search in searches)
    np.testing.assert_array_equal(together, alone)


def test_large_pictures_are_fitted_small_and_enlarged(monkeypatch):
    monkeypatch.setattr(closed_form, "_SIDE", 16)
    train, held_out, unseen = (linear_pairs(count, i) for i, count in enumerate((200, 60, 60)))
    decoder = ClosedFormDecoder(train, held_out, SIZE)
    pictures = decoder(unseen.features)
    for picture, image in zip(pictures[:3], unseen.images, strict=False):
        small = cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA) / 127.5 - 1.0
        expected = cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(picture, expected, atol=0.02)


# Nearest neighbour


def test_nearest_neighbour_of_a_known_feature_is_its_own_picture():
    train, held_out = linear_pairs(100, 0), linear_pairs(40, 1)
    search = NearestNeighbour(train, held_out)
    np.testing.assert_array_equal(search(train.features), np.arange(100))


def test_nearest_neighbour_looks_like_the_picture_asked_for():
    train, held_out, unseen = (linear_pairs(count, i) for i, count in enumerate((800, 60, 60)))
    found = train.images[NearestNeighbour(train, held_out)(unseen.features)]
    error = np.square(found / 127.5 - unseen.images / 127.5).mean()
    assert error < 0.6 * variance_of(unseen)  # any picture by chance: twice the variance


def test_nearest_neighbour_is_not_led_astray_by_loud_directions():
    random = np.random.default_rng(5)

    def hide(heights):
        return np.concatenate([heights, 1e4 * random.normal(size=(len(heights), 1))], axis=1)

    train, held_out, unseen = (
        linear_pairs(count, i, hide) for i, count in enumerate((800, 60, 60))
    )
    found = train.images[NearestNeighbour(train, held_out)(unseen.features)]
    assert np.square(found / 127.5 - unseen.images / 127.5).mean() < variance_of(unseen)
