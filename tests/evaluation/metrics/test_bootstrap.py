import numpy as np
import pytest
from scipy.stats import binomtest, norm

from tfadv.evaluation.metrics.bootstrap import IdentityBootstrap, percentile_interval

IDENTITIES = np.array([7, -1, 3, 7, -1, 3, 7])


def test_images_of_a_person_share_a_number_and_each_unknown_one_has_its_own():
    bootstrap = IdentityBootstrap(IDENTITIES, 5)
    person = bootstrap.person
    assert person[0] == person[3] == person[6]
    assert person[2] == person[5]
    assert len({person[0], person[1], person[2], person[4]}) == 4
    assert bootstrap.weights.shape == (5, 4)


def test_each_replicate_draws_as_many_people_as_there_are():
    weights = IdentityBootstrap(np.repeat(np.arange(40), 3), 2000).weights.astype(float)
    assert (weights.sum(axis=1) == 40).all()
    # Multinomial: mean 1, variance 1 - 1/40, covariance -1/40.
    np.testing.assert_allclose(weights.mean(), 1.0)
    np.testing.assert_allclose(weights.var(), 1 - 1 / 40, atol=0.02)
    np.testing.assert_allclose(np.mean(weights[:, 0] * weights[:, 1]) - 1, -1 / 40, atol=0.08)


def test_a_seed_draws_the_same_people_again_and_another_seed_others():
    first, again, other = (IdentityBootstrap(np.arange(50), 20, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.weights, again.weights)
    assert (first.weights != other.weights).any()


def test_totals_are_sums_over_the_images_of_the_drawn_people():
    bootstrap = IdentityBootstrap(IDENTITIES, 250)
    values = np.random.default_rng(0).normal(size=(7, 3))
    expected = [
        sum(weights[person] * row for person, row in zip(bootstrap.person, values, strict=True))
        for weights in bootstrap.weights.astype(int)
    ]
    np.testing.assert_allclose(bootstrap.totals(values), expected, atol=1e-12)


def test_the_mean_weighs_all_images_equally():
    bootstrap = IdentityBootstrap(np.array([0, 0, 0, 1]), 400)
    # Draws: person 0 twice (mean 1), person 1 twice (mean 5), or each once (mean (3 + 5) / 4).
    values = np.array([1.0, 1.0, 1.0, 5.0])
    drawn = bootstrap.weights @ np.array([3.0, 1.0])
    means = set((bootstrap.weights @ np.array([3.0, 5.0]) / drawn).tolist())
    assert means == {1.0, 2.0, 5.0}
    assert percentile_interval(bootstrap.means(values)) == (1.0, 5.0)


def test_the_interval_of_the_mean_of_independent_images_is_the_normal_one():
    values = np.random.default_rng(0).normal(2.0, 3.0, 2000)
    error = values.std() / np.sqrt(2000)
    expected = norm.interval(0.95, values.mean(), error)
    interval = percentile_interval(IdentityBootstrap(np.full(2000, -1), 2000).means(values))
    np.testing.assert_allclose(interval, expected, atol=0.15 * error)


def test_missing_values_are_left_out():
    identities = np.repeat(np.arange(30), 2)
    values = np.random.default_rng(0).normal(size=60)
    values[::2] = np.nan
    # One image of each person is left, drawn by the same seed.
    np.testing.assert_allclose(
        IdentityBootstrap(identities).means(values),
        IdentityBootstrap(np.arange(30)).means(values[1::2]),
    )


def test_nothing_to_average_has_no_interval():
    for identities, values in ((np.arange(3), np.full(3, np.nan)), (np.zeros(0, int), np.zeros(0))):
        means = IdentityBootstrap(identities).means(values)
        assert np.isnan(percentile_interval(means)).all()


@pytest.mark.parametrize("resampled", ["people", "images"])
def test_only_resampled_people_cover_the_truth_if_a_persons_images_are_alike(resampled):
    random = np.random.default_rng(0)
    people = np.repeat(np.arange(50), 10)
    bootstrap = IdentityBootstrap(people if resampled == "people" else np.full(500, -1), 400)
    covered = 0
    for _ in range(400):
        values = random.normal(size=50)[people] + 0.3 * random.normal(size=500)  # true mean 0
        low, high = percentile_interval(bootstrap.means(values))
        covered += low <= 0 <= high
    if resampled == "people":  # percentile intervals of 50 people are a little narrow
        assert binomtest(covered, 400, 0.94).pvalue > 0.001
    else:  # an error sqrt(10) times too small, almost: covers 1.96 / sqrt(9.3) deviations
        expected = 1 - 2 * norm.sf(1.96 / np.sqrt(10 * (1 + 0.009) / 1.09))
        assert binomtest(covered, 400, expected).pvalue > 0.001


def test_replicates_without_a_value_are_left_out_of_the_percentiles():
    replicates = np.append(np.linspace(0.0, 1.0, 1001), np.nan)
    assert percentile_interval(replicates) == pytest.approx((0.025, 0.975))


@pytest.mark.parametrize(
    ("identities", "replicates", "message"),
    [
        (np.array([0.5]), 10, "must be integers"),
        (np.zeros((2, 2), int), 10, r"\(2, 2\)"),
        (np.array([1]), 0, "at least 1, not 0"),
    ],
)
def test_bad_settings_are_named(identities, replicates, message):
    with pytest.raises(ValueError, match=message):
        IdentityBootstrap(identities, replicates)


def test_values_of_other_images_are_refused():
    with pytest.raises(ValueError, match="one row per image"):
        IdentityBootstrap(np.arange(3)).means(np.zeros(4))
