import dataclasses

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge as ReferenceRidge
from sklearn.metrics.pairwise import euclidean_distances, rbf_kernel

from tests.public_images import embeddings_of, features_only, make_knowledge
from tfadv.attacks import kernel_ridge
from tfadv.attacks.kernel_ridge import KernelRidge, Setting, choose_settings, squared_distances
from tfadv.attacks.knowledge import embeddings_of as targets_of
from tfadv.attacks.views import View, to_vectors
from tfadv.evaluation.whitening import Whitening


def rings(count, seed):
    """Features, and embeddings that are smooth functions of them but far from linear."""
    features = np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)
    wanted = [np.cos(2 * np.linalg.norm(features[:, :2], axis=1)), features[:, 0] * features[:, 2]]
    return features_only(features), embeddings_of(np.stack(wanted, axis=1))


@pytest.fixture(scope="module")
def known():
    parts = rings(400, 0), rings(150, 1)
    pairs, embeddings = zip(*parts, strict=True)
    return make_knowledge(*pairs, embeddings=embeddings)


@pytest.fixture(scope="module")
def view(known):
    return View("plain", to_vectors, Whitening([known.train.pairs.all_features]))


def fit(known, *settings):
    return KernelRidge(settings, known.train, known.held_out, targets_of)


def test_distances_are_scikit_learns():
    one, other = (np.random.default_rng(i).normal(size=(7 + i, 4)) for i in range(2))
    expected = euclidean_distances(one, other, squared=True)
    np.testing.assert_allclose(squared_distances(one, other), expected, atol=1e-12)
    assert squared_distances(one, one).min() >= 0


@pytest.mark.parametrize("kernel", ["rbf", "laplace"])
def test_it_is_scikit_learns_kernel_ridge_regression(known, view, kernel):
    setting = Setting(view, 0.5, kernel, width=1.5, strength=1e-3)
    ridge = fit(known, setting)
    inputs, held_out = (
        setting.inputs(each.pairs.all_features) for each in (known.train, known.held_out)
    )
    variances = view.whitening.variances
    width = 1.5 * np.sqrt(2 * (variances / (variances + 0.5)).sum())
    mean_square = squared_distances(inputs, inputs).sum() / len(inputs) ** 2
    assert width == pytest.approx(1.5 * np.sqrt(mean_square), rel=1e-3)

    def between(one, other):
        if kernel == "rbf":
            return rbf_kernel(one, other, gamma=1 / (2 * width**2))
        return np.exp(-euclidean_distances(one, other) / width)

    wanted = known.train.embeddings.embedding
    reference = ReferenceRidge(alpha=ridge.setting.strength * len(inputs), kernel="precomputed")
    reference.fit(between(inputs, inputs), wanted - wanted.mean(0))
    expected = reference.predict(between(held_out, inputs)) + wanted.mean(0)
    np.testing.assert_allclose(ridge(known.held_out.pairs.all_features), expected, atol=2e-3)


def test_the_setting_with_the_lowest_error_on_held_out_images_is_used(known, view):
    settings = [Setting(view, 0.0, "rbf", width, 1e-5) for width in (0.01, 0.5, 50.0)]
    assert fit(known, *settings).setting.width == 0.5


def test_the_strength_is_chosen_among_weaker_ones(known, view):
    too_strong = Setting(view, 0.0, "rbf", 0.5, 1.0)
    assert fit(known, too_strong).setting.strength == pytest.approx(0.1)


def test_beyond_the_exact_size_some_images_stand_for_all(known, view, monkeypatch):
    setting = Setting(view, 0.0, "rbf", 0.7, 1e-4)
    exact = fit(known, setting)(known.held_out.pairs.all_features)
    monkeypatch.setattr(kernel_ridge, "_EXACT", 100)
    errors = []
    for landmarks in (400, 200, 10):
        monkeypatch.setattr(kernel_ridge, "_LANDMARKS", landmarks)
        monkeypatch.setattr(kernel_ridge, "_BLOCK", 64)
        found = fit(known, setting)
        assert len(found._landmarks) == landmarks
        errors.append(np.square(found(known.held_out.pairs.all_features) - exact).mean())
    assert errors[0] < 1e-4 < 1e-2 < errors[2]
    assert errors[1] < errors[2]


def test_the_view_that_shows_the_target_is_chosen(known, view):
    random = np.random.default_rng(0)

    def blind(features):
        return random.normal(size=(len(features), 3))

    noise = dataclasses.replace(view, name="noise", vectors=blind)
    chosen = choose_settings([noise, view], known.train, known.held_out, {"embeddings": targets_of})
    assert [each.view.name for each in chosen["embeddings"]] == ["plain"] * 3
    assert len({each.softness for each in chosen["embeddings"]}) == 3
    fitted = fit(known, *chosen["embeddings"])
    wanted = known.held_out.embeddings.embedding
    rest = fitted(known.held_out.pairs.all_features) - wanted
    assert (np.square(rest).mean(0) < 0.1 * wanted.var(0)).all()


def test_features_that_never_vary_have_no_setting():
    pairs = [features_only(np.ones((50, 3)))] * 2
    known = make_knowledge(*pairs)
    assert known.kernel_settings == {}
