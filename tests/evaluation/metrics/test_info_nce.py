import numpy as np
import pytest
from scipy.stats import hypergeom

from tfadv.evaluation.metrics.bootstrap import IdentityBootstrap, percentile_interval
from tfadv.evaluation.metrics.info_nce import SCALES, choose_scale, info_nce


def make_people(count, correlation, seed, dimensions=64, images=3):
    """Codes s + n of variance 1 per dimension, of which `correlation` is of the person's s."""
    random = np.random.default_rng(seed)
    who = random.normal(size=(count, dimensions)).repeat(images, axis=0)
    noise = random.normal(size=who.shape)
    codes = np.sqrt(correlation) * who + np.sqrt(1 - correlation) * noise
    return codes, np.arange(count).repeat(images)


def measure(codes, identities, scale, replicates=200, **options):
    nats = info_nce(codes, identities, scale, **options)
    return {
        "info_nce": np.nanmean(nats),
        "info_nce_ci95": percentile_interval(IdentityBootstrap(identities, replicates).means(nats)),
    }


def estimate(correlation):
    scale = choose_scale(*make_people(200, correlation, 1))
    return measure(*make_people(600, correlation, 2), scale, candidates=64)


@pytest.mark.parametrize("correlation", [0.1, 0.15, 0.2])
def test_the_bound_of_gaussian_codes_is_just_below_their_mutual_information(correlation):
    found = estimate(correlation)
    information = -64 / 2 * np.log(1 - correlation**2)  # from 0.3 to 1.3 nats
    low, high = found["info_nce_ci95"]
    assert low < information
    assert 0.85 * information < found["info_nce"] < information + (high - low) / 2
    assert high > 0.9 * information


def test_the_bound_never_exceeds_log_k():
    found = estimate(0.6)
    information = -64 / 2 * np.log(1 - 0.6**2)  # 14 nats
    ceiling = np.log(64)
    assert ceiling - 0.1 < found["info_nce"] <= ceiling < information


def test_random_codes_give_about_0():
    low, high = estimate(0.0)["info_nce_ci95"]
    assert -0.05 < low < 0.01
    assert -0.01 < high < 0.05


def test_a_wrong_critic_gives_less_than_0():
    found = measure(*make_people(200, 0.0, 2), scale=30.0)
    assert found["info_nce_ci95"][1] < 0


@pytest.mark.parametrize("candidates", [2, 16, 40])
def test_codes_that_name_the_person_reach_log_k(candidates):
    codes = np.eye(40).repeat(2, axis=0)
    found = measure(codes, np.arange(40).repeat(2), scale=1000.0, candidates=candidates)
    assert found["info_nce"] == pytest.approx(np.log(candidates))
    np.testing.assert_allclose(found["info_nce_ci95"], np.log(candidates))


def test_codes_that_name_a_group_give_the_groups_information():
    # 40 people in 8 groups of 5: I(Z; V) = log 8, and 5 of 40 candidates are as good.
    codes = np.eye(8).repeat(5, axis=0).repeat(2, axis=0)
    found = measure(codes, np.arange(40).repeat(2), scale=1000.0)
    assert found["info_nce"] == pytest.approx(np.log(8))


def test_with_fewer_candidates_the_bound_is_the_mean_over_draws_without_replacement():
    codes = np.eye(8).repeat(5, axis=0).repeat(2, axis=0)
    identities = np.arange(40).repeat(2)
    found = measure(codes, identities, scale=1000.0, candidates=12, rounds=3000)
    others = np.arange(5)  # of the group, among 11 candidates from 39 people
    chances = hypergeom(39, 4, 11).pmf(others)
    expected = np.log(12) - chances @ np.log1p(others)
    assert found["info_nce"] == pytest.approx(expected, abs=0.005)
    assert expected < np.log(8)


def test_people_count_equally_however_many_images_they_have():
    # One person's codes are alike, and apart from all others'; the others' say nothing.
    random = np.random.default_rng(0)
    codes = random.normal(size=(30, 2, 8)) * (np.arange(8) > 0)
    apart = np.eye(8)[:1].repeat(200, axis=0)
    codes = np.concatenate([codes.reshape(60, 8), apart])
    identities = np.concatenate([np.arange(30).repeat(2), np.full(200, 30)])
    few = np.r_[:62]
    many = measure(codes, identities, scale=3.0, rounds=100)["info_nce"]
    assert many == pytest.approx(
        measure(codes[few], identities[few], scale=3.0, rounds=100)["info_nce"], abs=0.02
    )


def test_unknown_people_and_people_with_one_image_are_left_out():
    codes, identities = make_people(40, 0.5, 0)
    found = measure(codes, identities, scale=10.0, candidates=16)
    more = np.concatenate([np.full((5, 64), 1e6), codes, np.full((2, 64), -1e6)])
    who = np.concatenate([np.full(5, -1), identities, [70, 71]])
    again = measure(more, who, scale=10.0, candidates=16)
    assert again["info_nce"] == found["info_nce"]
    assert np.isfinite(again["info_nce_ci95"]).all()


def test_only_the_direction_of_codes_counts():
    codes, identities = make_people(40, 0.5, 0)
    lengths = np.random.default_rng(1).uniform(0.1, 10.0, (len(codes), 1))
    found, scaled = (measure(c, identities, scale=10.0) for c in (codes, codes * lengths))
    assert scaled["info_nce"] == pytest.approx(found["info_nce"], rel=1e-9)


def test_the_interval_is_as_wide_as_estimates_from_other_people_differ():
    found = [measure(*make_people(60, 0.25, seed), scale=14.0, rounds=4) for seed in range(100)]
    estimates = np.array([each["info_nce"] for each in found])
    widths = [np.diff(each["info_nce_ci95"])[0] for each in found]
    assert np.mean(widths) == pytest.approx(2 * 1.96 * estimates.std(), rel=0.25)


def test_the_chosen_scale_has_the_highest_bound():
    people = make_people(60, 0.25, 0)
    bounds = [measure(*people, scale=scale, replicates=1)["info_nce"] for scale in SCALES]
    best = int(np.argmax(bounds))
    assert choose_scale(*people) == SCALES[best]
    assert 0 < best < len(SCALES) - 1


def test_a_seed_gives_the_same_again_and_another_seed_another():
    people = make_people(50, 0.25, 0)
    first, again, other = (
        measure(*people, scale=10.0, candidates=8, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first["info_nce"] != other["info_nce"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": -1.0}, "scale must be at least 0 and finite, not -1.0"),
        ({"scale": np.nan}, "scale .* not nan"),
        ({"candidates": 1}, "candidates must be at least 2, not 1"),
        ({"rounds": 0}, "rounds must be at least 1, not 0"),
        ({"codes": np.ones(4)}, r"codes \(4,\) must be \[N, E\]"),
        ({"codes": np.ones((3, 2))}, r"identities \(4,\)"),
        ({"codes": np.full((4, 2), np.inf)}, "8 values of codes are not finite"),
    ],
)
def test_bad_arguments_are_named(change, message):
    identities = np.array([0, 0, 1, 1])
    arguments = {"codes": np.eye(4), "identities": identities, "scale": 1.0} | change
    with pytest.raises(ValueError, match=message):
        info_nce(**arguments)


@pytest.mark.parametrize(
    ("identities", "message"),
    [
        ([0, 0, 1, 2], "no two known people with two images each"),
        ([-1, -1, 1, 1], "no two known people with two images each"),
        ([0.0, 0.0, 1.0, 1.0], r"identities must be integers \[N\], not float64"),
    ],
)
def test_people_that_cannot_be_compared_are_refused(identities, message):
    with pytest.raises(ValueError, match=message):
        choose_scale(np.eye(4), np.array(identities))
