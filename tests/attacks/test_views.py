import numpy as np
import pytest
from scipy.stats import norm, rankdata

from tests.public_images import embeddings_of, features_only, make_knowledge
from tfadv.attacks.views import (
    discrete_directions,
    level_borders,
    low_bits,
    ranked,
    residuals,
    winsorised,
)
from tfadv.evaluation.whitening import Whitening


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_winsorised_values_end_at_five_robust_deviations(rng):
    sample = rng.normal(3.0, 2.0, (5000, 2))
    sample[:50] = 1e9
    clipped = winsorised(sample)(sample)
    assert clipped.max() == pytest.approx(3.0 + 5 * 2.0, rel=0.05)
    np.testing.assert_array_equal(clipped[50:], sample[50:])


def test_without_far_values_there_is_nothing_to_winsorise(rng):
    assert winsorised(rng.uniform(size=(500, 3))) is None


def test_a_dimension_that_is_mostly_0_keeps_its_other_values(rng):
    sample = np.where(rng.random((1000, 1)) < 0.9, 0.0, rng.uniform(1, 2, (1000, 1)))
    assert winsorised(sample) is None


def test_ranks_are_normal_quantiles_of_ranks(rng):
    sample = np.exp(5 * rng.normal(size=(400, 2)))
    ranks = (np.apply_along_axis(rankdata, 0, sample) - 1) / 399
    inner = (ranks > 0.01) & (ranks < 0.99)
    np.testing.assert_allclose(ranked(sample)(sample)[inner], norm.ppf(ranks)[inner], atol=1e-6)


@pytest.mark.parametrize("levels", [2, 3, 16])
def test_borders_lie_between_levels(rng, levels):
    values = rng.integers(0, levels, 1000) + rng.uniform(-0.1, 0.1, 1000)
    borders = level_borders(values)
    np.testing.assert_allclose(borders, np.arange(levels - 1) + 0.5, atol=0.1)


@pytest.mark.parametrize(
    "values",
    [
        np.linspace(0, 1, 100),
        np.arange(100) % 17,
        np.ones(100),
        np.append(np.zeros(999), 1.0),
    ],
    ids=["even", "17 levels", "one level", "an outlier"],
)
def test_other_values_have_no_levels(values):
    assert level_borders(values.astype(np.float64)) is None


def test_residuals_are_distances_from_levels(rng):
    level, rest = rng.choice([-1.0, 1.0], (500, 1)), rng.uniform(-1e-3, 1e-3, (500, 1))
    sample = np.concatenate([level + rest, rng.normal(size=(500, 1)), level], axis=1)
    found = residuals(sample)(sample)
    assert found.shape == (500, 4)
    np.testing.assert_array_equal(found[:, :3], sample)
    means = [rest[level == sign].mean() for sign in (-1, 1)]
    expected = rest[:, 0] - np.where(level[:, 0] < 0, *means)
    np.testing.assert_allclose(found[:, 3], expected, atol=1e-12)
    assert residuals(level) is None


def test_low_bits_are_those_of_the_fraction():
    ulp = 2.0**-23
    values = np.float32([[1.0, 1 + ulp, 1 + 5 * ulp, 1.5, -2 - 2 * ulp]])
    np.testing.assert_array_equal(low_bits(values, 3), [[0, 1 / 8, 5 / 8, 0, 1 / 8]])


def test_discrete_directions_are_found_in_a_turned_mixture(rng):
    signs = rng.choice([-1.0, 1.0], (2000, 3))
    levels = rng.integers(0, 5, (2000, 1)).astype(float)
    parts = np.concatenate([signs, levels, rng.normal(size=(2000, 8))], axis=1)
    mixed = parts @ rng.normal(size=(12, 12))
    white = Whitening([mixed])(mixed)
    found = discrete_directions(white)
    assert len(found) == 4
    match = np.abs(np.corrcoef((white @ found.T).T, parts[:, :4].T)[:4, 4:])
    np.testing.assert_allclose(match.max(0), 1.0, atol=1e-3)


def test_normal_values_have_no_discrete_direction(rng):
    assert not len(discrete_directions(rng.normal(size=(1000, 6)).astype(np.float32)))


def views_of(features, **known):
    pairs = [features_only(each) for each in np.split(features, [400])]
    parts = {name: np.split(values, [400]) for name, values in known.items()}
    if "embeddings" in parts:
        parts["embeddings"] = [embeddings_of(each) for each in parts["embeddings"]]
    return [view.name for view in make_knowledge(*pairs, **parts).views]


def test_an_ordinary_feature_has_two_views(rng):
    features = rng.normal(size=(600, 5)).astype(np.float32)
    assert views_of(features, embeddings=features[:, :3]) == ["plain", "ranks"]


def test_products_with_levels_are_a_view_if_they_predict(rng):
    sign, values = rng.choice([-1.0, 1.0], (600, 1)), rng.normal(size=(600, 3))
    features = np.concatenate([sign, values], axis=1)
    assert "gated" in views_of(features, embeddings=sign * values)
    assert "gated" not in views_of(features, embeddings=values)


def test_maps_have_views_too(rng):
    maps = rng.normal(size=(600, 2, 2, 3))
    maps[::50] *= 1e6
    assert views_of(maps) == ["plain", "winsorised", "ranks"]


def test_a_long_feature_has_a_view_of_the_dimensions_that_tell_something(rng):
    values = rng.normal(size=(600, 3)).astype(np.float32)
    features = rng.normal(size=(600, 5000)).astype(np.float32)
    features[:, 40:43] = values
    pairs = [features_only(each) for each in np.split(features, [400])]
    known = make_knowledge(*pairs, embeddings=[embeddings_of(v) for v in np.split(values, [400])])
    (selected,) = (view.vectors(features) for view in known.views if view.name == "selected")
    assert selected.shape == (600, 32)
    assert (np.abs(selected[:, :, None] - values[:, None]).max(0) == 0).sum() == 3
