from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.linear_model import Ridge as ReferenceRidge
from sklearn.preprocessing import StandardScaler

from tests.public_images import embeddings_of, features_only, make_knowledge, wave_pairs
from tfadv.attacks import ridge as ridge_module
from tfadv.attacks.kernel import KernelDecoder, KernelFeatureMap
from tfadv.attacks.ridge import Ridge, RidgeDecoder, RidgeFeatureMap


@pytest.fixture
def rng():
    return np.random.default_rng(0)


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
    targets = inputs[:, :1] + rng.normal(size=(60, 1))  # 40 directions, one of which is of use
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
        for strength in ridge_module.STRENGTHS
    ]
    assert ridge.strength == pytest.approx(ridge_module.STRENGTHS[np.argmin(errors)])
    assert ridge.strength > 0.01  # a smaller one overfits
    assert ridge.held_out_error == pytest.approx(min(errors), rel=1e-3)


def test_each_target_can_have_a_strength_of_its_own(rng):
    inputs = rng.normal(size=(80, 30))
    targets = np.stack([inputs[:, 0], rng.normal(size=80)], axis=1)  # one linear, one noise
    ridge = Ridge(
        blocks(inputs[:40], targets[:40]), blocks(inputs[40:], targets[40:]), per_target=True
    )
    assert ridge.strength.shape == (2,)
    assert ridge.strength[1] > 100 * ridge.strength[0]


def test_the_size_of_batches_changes_nothing(rng):
    inputs, targets = rng.normal(size=(100, 8)), rng.normal(size=(100, 3))
    one, other = (
        Ridge(blocks(inputs, targets, size), blocks(inputs, targets, size))(inputs)
        for size in (100, 7)
    )
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_one_image_with_huge_values_does_not_choose_the_strength(rng):
    inputs = rng.normal(size=(200, 5))
    targets = inputs @ rng.normal(size=(5, 2))
    inputs[150] = 1e9
    ridge = Ridge(blocks(inputs[:100], targets[:100]), blocks(inputs[100:], targets[100:]))
    assert ridge.strength < 1e-3
    # The image itself is guessed wrong by no more than twice the range.
    rest = np.abs(np.clip(ridge(inputs), ridge.low, ridge.high) - targets)
    assert np.delete(rest, 150, axis=0).max() < 1e-2 * np.ptp(targets)
    assert (rest[150] <= 2 * np.ptp(targets, axis=0)).all()


def test_targets_in_directions_of_almost_no_variance_are_found(rng):
    hidden, loud = rng.normal(size=(400, 3)), rng.normal(size=(400, 8))
    basis = np.linalg.qr(rng.normal(size=(11, 11)))[0]
    inputs = np.concatenate([1e-6 * hidden, loud], axis=1) @ basis
    ridge = Ridge(blocks(inputs[:300], hidden[:300]), blocks(inputs[300:], hidden[300:]))
    assert np.square(ridge(inputs[300:]) - hidden[300:]).mean() < 0.05


# Decoders


def all_images(pairs):
    return pairs.images(slice(None)) / 127.5 - 1.0


def variance_of(pairs):
    """Returns the loss of the mean image."""
    return np.var(all_images(pairs), axis=0).mean()


def loss_of(decoder, pairs):
    images, reconstructions = all_images(pairs), decoder.reconstruct(pairs.all_features)
    assert reconstructions.shape == images.shape
    assert np.abs(reconstructions).max() <= 1.0
    return np.square(reconstructions - images).mean()


def decoder_of(train, held_out, attack=RidgeDecoder):
    return attack().fit(make_knowledge(train, held_out), Path())


DECODERS = pytest.mark.parametrize("attack", [RidgeDecoder, KernelDecoder])


@DECODERS
def test_a_linear_encoder_is_inverted_exactly(attack):
    train, held_out, unseen = (wave_pairs(count, i) for i, count in enumerate((200, 60, 60)))
    decoder = decoder_of(train, held_out, attack)
    assert loss_of(decoder, unseen) < 1e-3 * variance_of(unseen)
    assert decoder.held_out_loss == pytest.approx(loss_of(decoder, held_out), rel=1e-4)


def test_an_image_that_is_hidden_in_oblique_directions_of_small_variance_is_recovered():
    basis = np.linalg.qr(np.random.default_rng(7).normal(size=(20, 20)))[0]
    random = np.random.default_rng(8)

    def hide(heights):
        loud = 100 * random.normal(size=(len(heights), 14))
        return np.concatenate([0.01 * heights, loud], axis=1) @ basis

    train, held_out, unseen = (
        wave_pairs(count, i, hide) for i, count in enumerate((400, 100, 100))
    )
    assert loss_of(decoder_of(train, held_out), unseen) < 0.05 * variance_of(unseen)


def test_features_that_say_nothing_give_the_mean_image():
    random = np.random.default_rng(3)

    def hide(heights):
        return random.normal(size=(len(heights), 10))

    train, held_out, unseen = (wave_pairs(200, i, hide) for i in range(3))
    loss = loss_of(decoder_of(train, held_out), unseen)
    assert 0.95 * variance_of(unseen) < loss < 1.1 * variance_of(unseen)


def test_a_kernel_finds_what_is_not_linear():
    def fold(heights):
        # The product of both is the height: no linear map multiplies.
        return np.concatenate([np.abs(heights), np.tanh(30 * heights)], axis=1)

    train, held_out, unseen = (
        wave_pairs(count, i, fold) for i, count in enumerate((600, 150, 150))
    )
    plain = loss_of(decoder_of(train, held_out), unseen)
    assert loss_of(decoder_of(train, held_out, KernelDecoder), unseen) < 0.7 * plain


def test_large_images_are_fitted_small_and_enlarged(monkeypatch):
    monkeypatch.setattr(ridge_module, "_SIDE", 16)
    train, held_out, unseen = (wave_pairs(count, i) for i, count in enumerate((200, 60, 60)))
    reconstructions = decoder_of(train, held_out).reconstruct(unseen.all_features)
    for reconstruction, image in zip(reconstructions[:3], unseen.images([0, 1, 2]), strict=True):
        small = cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA) / 127.5 - 1.0
        expected = cv2.resize(small, image.shape[:2], interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(reconstruction, expected, atol=0.02)


def test_maps_are_inverted_as_vectors():
    def as_maps(heights):
        return heights.reshape(-1, 1, 3, 2)

    train, held_out, unseen = (
        wave_pairs(count, i, as_maps) for i, count in enumerate((200, 60, 60))
    )
    assert loss_of(decoder_of(train, held_out), unseen) < 1e-3 * variance_of(unseen)


def test_what_matters_in_a_few_places_of_a_large_map_is_found():
    def in_a_large_map(heights):
        maps = np.zeros((len(heights), 24, 24, 16))  # 9,216 values
        maps[:, 5:7, 9, 3] = heights[:, :2]
        maps[:, 5:7, 10, 3] = -heights[:, :2]  # a mean over the area would be 0
        maps[:, 20, 20, 6:10] = heights[:, 2:]
        return maps + 0.01 * np.random.default_rng(0).normal(size=maps.shape)

    train, held_out, unseen = (
        wave_pairs(count, i, in_a_large_map) for i, count in enumerate((600, 60, 60))
    )
    assert loss_of(decoder_of(train, held_out), unseen) < 0.15 * variance_of(unseen)


# The attacks


@DECODERS
def test_the_attack_on_pixels_is_fitted_in_closed_form_with_its_held_out_loss(attack):
    train, held_out = wave_pairs(200, 0), wave_pairs(60, 1)
    fitted = attack().fit(make_knowledge(train, held_out), Path())
    assert fitted.held_out_loss == pytest.approx(loss_of(fitted, held_out), rel=1e-4)
    assert fitted.training is None


def folded_people(count, seed):
    """Features, and embeddings that are one linear and one folded function of the features."""
    features = np.random.default_rng(seed).normal(size=(count, 3))
    embeddings = np.stack([features[:, 0], np.abs(features[:, 1])], axis=1) + 5.0
    return features_only(features), embeddings_of(embeddings)


@pytest.mark.parametrize("attack", [RidgeFeatureMap, KernelFeatureMap])
def test_the_attack_on_embeddings_finds_the_folded_part_with_a_kernel_only(tmp_path, attack):
    (train, embeddings), (held_out, others) = folded_people(600, 0), folded_people(200, 1)
    known = make_knowledge(train, held_out, embeddings=(embeddings, others))
    fitted = attack().fit(known, tmp_path)
    unseen, expected = folded_people(200, 2)
    errors = np.square(fitted.embed(unseen.all_features) - expected.embedding).mean(0)
    errors /= expected.embedding.var(0)
    is_kernel = attack is KernelFeatureMap
    assert errors[0] < 0.02
    assert (errors[1] < 0.2) == is_kernel
    assert (errors[1] > 0.8) == (not is_kernel)
    np.testing.assert_allclose(fitted.mean_embedding, embeddings.embedding.mean(0))
    guesses = fitted.embed(held_out.all_features)
    assert fitted.held_out_loss == pytest.approx(
        np.square(guesses - others.embedding).mean(), rel=1e-3
    )
