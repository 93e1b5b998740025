import tracemalloc

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import StandardScaler

from tfadv.evaluation.metrics.features import images_by_person, lda_chance, lda_metrics


def make_people(sizes=(2, 3, 7, 4, 2, 5), dimensions=6, seed=0):
    """Features with dimensions of different mean and scale, in random order, and identities."""
    random = np.random.default_rng(seed)
    identities = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    means = random.normal(size=(len(sizes), dimensions))
    features = means[identities] + random.normal(size=(len(identities), dimensions))
    scale, offset = 10.0 ** random.integers(-6, 6, (2, dimensions))
    return ((features + offset * 1e-3) * scale).astype(np.float32), identities


def in_batches(features, size=5):
    return (features[i : i + size] for i in range(0, len(features), size))


def test_metrics_of_a_case_computed_by_hand():
    # Two people at 0 and 2, and at 4 and 6: means 1 and 5, of all 3; within 1, between 4, total 5.
    # The second dimension is the first, the other way round and a hundred times as large.
    one = np.array([0.0, 2.0, 4.0, 6.0])
    found = lda_metrics([np.stack([one, -100 * one], axis=1)], np.array([7, 7, 3, 3]))
    assert found == pytest.approx({"lda_within": 0.4, "lda_between": 1.6, "lda_score": 4.0})


@pytest.mark.parametrize("size", [1, 4, 100])
def test_traces_are_those_of_scikit_learns_covariances(size):
    features, identities = make_people()
    standardised = StandardScaler().fit_transform(features.astype(np.float64))
    fit = LinearDiscriminantAnalysis(solver="eigen", store_covariance=True)
    fit.fit(standardised, identities)
    within = np.trace(fit.covariance_)
    between = fit.priors_ @ np.square(fit.means_).sum(1)  # their mean is 0
    found = lda_metrics(in_batches(features, size), identities)
    assert found["lda_within"] == pytest.approx(within, rel=1e-6)
    assert found["lda_between"] == pytest.approx(between, rel=1e-6)
    assert found["lda_score"] == pytest.approx(between / within, rel=1e-6)
    assert found["lda_within"] + found["lda_between"] == pytest.approx(6)


def test_the_order_of_images_and_the_shape_of_features_make_no_difference():
    features, identities = make_people()
    expected = lda_metrics(in_batches(features), identities)
    order = images_by_person(identities)
    maps = features.reshape(-1, 1, 2, 3)
    assert lda_metrics(in_batches(maps[order]), identities[order]) == pytest.approx(expected)


def test_only_images_of_known_people_with_two_or_more_count():
    features, identities = make_people()
    expected = lda_metrics([features], identities)
    more = np.concatenate([features[:3] + 1, features[5:6] * 9, features])
    who = np.concatenate([[-1, -1, 80], [81], identities])
    assert lda_metrics(in_batches(more), who) == pytest.approx(expected)
    assert sorted(images_by_person(who)) == list(range(4, len(who)))
    assert (np.diff(who[images_by_person(who)]) >= 0).all()


def test_dimensions_that_only_rounding_moves_are_left_out():
    features, identities = make_people()
    random = np.random.default_rng(1)
    rounded = np.float32(1000) * (1 + 1e-8 * random.normal(size=(len(features), 3)))
    constant = np.full((len(features), 2), [0.0, 0.1], np.float32)
    more = np.concatenate([features, rounded.astype(np.float32), constant], axis=1)
    assert lda_metrics(in_batches(more), identities) == pytest.approx(
        lda_metrics(in_batches(features), identities)
    )


def test_a_small_variance_next_to_a_large_mean_is_not_lost():
    identities = make_people()[1]
    random = np.random.default_rng(2)
    spread = random.normal(size=(len(identities), 1))
    # Multiples of 1/16, which float32 holds exactly next to 2**18, but not their squares.
    small = np.round(spread * 16).astype(np.float32) / 16
    found = lda_metrics(in_batches(small + np.float32(2**18)), identities)
    assert found == pytest.approx(lda_metrics(in_batches(small), identities), rel=1e-9)


def test_random_features_score_chance():
    sizes = (2, 3, 4, 5, 6) * 8
    identities = np.repeat(np.arange(len(sizes)), sizes)
    noise = np.random.default_rng(0).normal(size=(len(identities), 4000)).astype(np.float32)
    found = lda_metrics(in_batches(noise, 64), identities)["lda_score"]
    assert lda_chance(identities) == pytest.approx({"lda_score": 39 / 120})
    assert found == pytest.approx(39 / 120, rel=0.01)


def test_a_score_rises_with_the_distance_between_people():
    random = np.random.default_rng(0)
    identities = np.repeat(np.arange(50), 40)
    means, noise = random.normal(size=(50, 30)), random.normal(size=(2000, 30))
    for distance in (0.5, 1.0, 3.0):
        found = lda_metrics([distance * means[identities] + noise], identities)["lda_score"]
        # Of the means' own noise, 1/40, and of 50 means about their mean, 49/50.
        assert found == pytest.approx(distance**2 * 49 / 50 + 1 / 40, rel=0.1)


def test_memory_holds_one_person_at_a_time_if_images_come_person_by_person():
    dimensions, people = 50_000, 60
    identities = np.repeat(np.arange(people), 2)

    def batches():
        random = np.random.default_rng(0)
        for _ in range(people // 2):
            yield random.random((4, dimensions), np.float32)

    tracemalloc.start()
    try:
        lda_metrics(batches(), identities)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * 8 * dimensions  # all people's means would be 60


@pytest.mark.parametrize(
    "identities", [[-1, -1, -1, -1], [0, 1, 2, 3], [5, 5, 5, 5], [5, 5, -1, -1], []]
)
def test_without_two_people_with_two_images_there_are_no_metrics(identities):
    identities = np.array(identities, int)
    features = np.random.default_rng(0).normal(size=(len(identities), 3))
    assert lda_metrics([features], identities) == lda_chance(identities) == {}


def test_equal_features_have_no_metrics():
    assert lda_metrics([np.full((4, 3), 0.1, np.float32)], np.array([0, 0, 1, 1])) == {}


def test_there_is_no_score_if_nobodys_own_features_differ():
    identities = np.repeat(np.arange(5), 3)
    features = np.random.default_rng(0).normal(size=(5, 4))[identities]
    assert lda_metrics(in_batches(features), identities) == pytest.approx(
        {"lda_within": 0, "lda_between": 4}
    )


@pytest.mark.parametrize("rows", [3, 5])
def test_features_of_other_images_are_refused(rows):
    with pytest.raises(ValueError, match="4 identities need as many rows"):
        lda_metrics([np.zeros((rows, 2))], np.array([0, 0, 1, 1]))


def test_features_that_are_not_finite_are_refused():
    features = np.array([[0.0, 1], [2, np.nan], [1, 4], [5, 5]])
    with pytest.raises(ValueError, match="1 of 2 features not finite"):
        lda_metrics([features], np.array([0, 0, 1, 1]))


@pytest.mark.parametrize("measure", [lambda who: lda_metrics([], who), lda_chance])
def test_identities_must_be_integers_in_a_row(measure):
    with pytest.raises(ValueError, match=r"must be integers \[N\], not float64 \(1,\)"):
        measure(np.array([0.5]))
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        measure(np.zeros((2, 2), int))
