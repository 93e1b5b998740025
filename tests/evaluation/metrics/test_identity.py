import numpy as np
import pytest
from scipy.stats import binomtest, hypergeom
from sklearn.metrics import roc_auc_score, roc_curve

from tfadv.evaluation.metrics import identity
from tfadv.evaluation.metrics.bootstrap import IdentityBootstrap, percentile_interval
from tfadv.evaluation.metrics.identity import chance, cosine_similarity, identify
from tfadv.evaluation.metrics.roc import equal_error_rate

NAMES = ("reid_rank1", "reid_rank5", "verification_auc", "verification_eer")


def made_people(people=30, images=4, noise=1.5, seed=0):
    """Probes and gallery around a centre per person, [N, 6], and identities, shuffled."""
    random = np.random.default_rng(seed)
    identities = random.permutation(np.repeat(np.arange(people) * 3, images))
    centres = random.normal(size=(people * 3, 6))[identities]
    gallery = centres + 0.7 * random.normal(size=centres.shape)
    probes = centres + noise * random.normal(size=centres.shape)
    return probes.astype(np.float32), gallery.astype(np.float32), identities


def identified(probes, gallery, identities, replicates=50):
    return identify(probes, gallery, identities, IdentityBootstrap(identities, replicates))


def pairs_by_loop(probes, gallery, identities):
    """Cosines of all (probe, other image), and whether they are of one person."""
    scores, same = [], []
    for i, probe in enumerate(probes):
        for j, image in enumerate(gallery):
            if i != j:
                cosine = probe @ image / np.linalg.norm(probe) / np.linalg.norm(image)
                scores.append(float(cosine))
                same.append(identities[i] == identities[j])
    return np.array(scores), np.array(same)


def weights_of(identities, same):
    """The weight of each pair: a person's genuine pairs together weigh as the person's images."""
    others = np.bincount(identities)[identities] - 1
    return np.where(same, 1 / np.maximum(others, 1).repeat(len(identities) - 1), 1.0)


def equal_error_rate_by_scikit_learn(same, scores, weights=None):
    """The crossing of both errors on the straight lines of scikit-learn's curve."""
    false, true, _ = roc_curve(same, scores, sample_weight=weights, drop_intermediate=False)
    along = np.linspace(0, len(false) - 1, 200_000)
    false, true = (np.interp(along, np.arange(len(false)), rate) for rate in (false, true))
    return false[np.argmin(np.abs(false - (1 - true)))]


def test_cosine_similarity_of_known_angles():
    a = np.array([[1.0, 0.0], [1.0, 1.0], [2.0, 0.0], [0.0, 0.0], [3.0, 4.0]], np.float32)
    b = np.array([[5.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 2.0], [4.0, 3.0]], np.float32)
    np.testing.assert_allclose(
        cosine_similarity(a, b), [1.0, np.sqrt(0.5), -1.0, 0.0, 24 / 25], atol=1e-12
    )


def test_ranks_of_a_case_counted_by_hand():
    # A stranger at 36 degrees, person 0 at 0 and 10, 1 at 30 and 100, 2 at 35 and 101.
    angles = np.radians([36.0, 0.0, 10.0, 30.0, 100.0, 35.0, 101.0])
    identities = np.array([9, 0, 0, 1, 1, 2, 2])
    images = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # The right one comes first for 0 and for 10; for 30 fifth, after 35, 36, 10 and 0; for 100
    # fourth, after 101, 36 and 35; for 35 sixth, after all others; for 101 third, after 100 and 36.
    metrics = identified(images, images, identities).metrics
    assert metrics["reid_rank1"] == pytest.approx(2 / 6)
    assert metrics["reid_rank5"] == pytest.approx(5 / 6)


def test_ranks_agree_with_a_loop_that_sorts():
    probes, gallery, identities = made_people()
    unit = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
    hits = {1: 0, 5: 0}
    for i, probe in enumerate(probes):
        nearest = [j for j in np.argsort(-(unit @ probe)) if j != i]
        for rank in hits:
            hits[rank] += identities[i] in identities[nearest[:rank]]
    metrics = identified(probes, gallery, identities).metrics
    assert metrics["reid_rank1"] == pytest.approx(hits[1] / 120)
    assert metrics["reid_rank5"] == pytest.approx(hits[5] / 120)


@pytest.mark.parametrize("most", [60, 7], ids=["people alike", "people of many and few images"])
@pytest.mark.parametrize("decimals", [9, 0], ids=["distinct scores", "many ties"])
def test_verification_agrees_with_scikit_learn_over_all_pairs(decimals, most):
    probes, gallery, identities = made_people()
    kept = np.arange(len(identities)) % most > 0
    kept |= identities < identities.max() // 3
    probes, gallery, identities = probes[kept], gallery[kept], identities[kept]
    probes, gallery = np.round(probes[:, :3], decimals), np.round(gallery[:, :3], decimals)
    nonzero = probes.any(axis=1) & gallery.any(axis=1)
    probes, gallery, identities = probes[nonzero], gallery[nonzero], identities[nonzero]
    scores, same = pairs_by_loop(probes.astype(np.float64), gallery.astype(np.float64), identities)
    scores = scores.round(10)
    found = identified(probes, gallery, identities)
    weights = weights_of(identities, same)
    area = roc_auc_score(same, scores, sample_weight=weights)
    assert found.metrics["verification_auc"] == pytest.approx(area)
    assert found.metrics["verification_eer"] == pytest.approx(
        equal_error_rate_by_scikit_learn(same, scores, weights), abs=1e-4
    )
    np.testing.assert_allclose(found.genuine, np.sort(scores[same]), atol=1e-9)
    np.testing.assert_allclose(found.impostor, np.sort(scores[~same]), atol=1e-9)


def test_equal_error_rate_is_interpolated_between_two_points_of_the_curve():
    # The curve through (0, 0), (.25, .5), (1, 1) meets 1 - true = false where
    # .25 + t .75 = .5 - t .5, so at t = .2 and an error of .4.
    false, true = np.array([0.0, 0.25, 1.0]), np.array([0.0, 0.5, 1.0])
    assert equal_error_rate(false, true) == pytest.approx(0.4)


def test_perfect_probes_find_everybody():
    identities = made_people()[2]
    centres = np.eye(100)[identities]
    found = identified(centres, centres, identities).metrics
    assert [found[name] for name in NAMES] == [1.0, 1.0, 1.0, 0.0]
    assert found["verification_auc_ci95"] == [1.0, 1.0]
    assert found["reid_rank1_ci95"] == [1.0, 1.0]


def test_random_probes_score_chance():
    _, gallery, identities = made_people(people=200, images=5)
    probes = np.random.default_rng(1).normal(size=gallery.shape)
    found, guessed = identified(probes, gallery, identities).metrics, chance(identities)
    for name in NAMES:
        low, high = found[f"{name}_ci95"]
        assert low - 0.01 < guessed[name] < high + 0.01
        assert found[name] == pytest.approx(guessed[name], abs=0.02)


@pytest.mark.parametrize("dimensions", [1, 3, 128], ids=str)
def test_equal_scores_score_exactly_chance(dimensions):
    vector = np.random.default_rng(0).normal(size=dimensions)
    identities = np.repeat(np.arange(40), [2, 3, 4, 1] * 10)
    constant = np.tile(vector, (100, 1)) * np.linspace(1, 2, 100)[:, None]
    found, guessed = identified(constant, constant, identities).metrics, chance(identities)
    for name in NAMES:
        assert found[name] == pytest.approx(guessed[name], abs=1e-12)


def test_zero_probes_score_chance():
    _, gallery, identities = made_people()
    found, guessed = identified(0 * gallery, gallery, identities).metrics, chance(identities)
    for name in NAMES:
        assert found[name] == pytest.approx(guessed[name], abs=1e-12)


def test_a_constant_probe_finds_only_the_person_it_is_close_to():
    _, gallery, identities = made_people()
    mean_face = np.tile(gallery[0], (len(gallery), 1))
    # All probes but image 0's own are nearest to image 0: right for the 3 others of its person.
    # Image 0's own is nearest to the image that is the most like it.
    unit = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
    second = np.argsort(-(unit @ unit[0]))[1]
    expected = (3 + (identities[second] == identities[0])) / len(gallery)
    assert identified(mean_face, gallery, identities).metrics["reid_rank1"] == expected


def test_two_tied_images_count_half_each():
    # Each probe is as near to an image of its own person as to one of a stranger.
    gallery = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    identities = np.array([0, 0, 1, 2])
    assert identified(gallery, gallery, identities).metrics["reid_rank1"] == 0.5


def test_chance_is_hypergeometric():
    identities = np.repeat(np.arange(5), [1, 2, 3, 4, 7])
    counts = [2] * 2 + [3] * 3 + [4] * 4 + [7] * 7  # people with one image are not counted
    for rank in (1, 5):
        expected = np.mean([hypergeom.sf(0, 16, count - 1, rank) for count in counts])
        assert chance(identities)[f"reid_rank{rank}"] == pytest.approx(expected)


def test_chance_is_1_if_the_gallery_is_smaller_than_the_rank():
    assert chance(np.array([0, 0, 1, 1]))["reid_rank5"] == 1.0


def test_the_order_of_the_images_does_not_matter():
    probes, gallery, identities = made_people()
    order = np.random.default_rng(5).permutation(len(identities))
    first = identified(probes, gallery, identities).metrics
    second = identified(probes[order], gallery[order], identities[order]).metrics
    for name, value in first.items():
        assert second[name] == pytest.approx(value, abs=1e-9), name


def test_the_length_of_the_vectors_does_not_matter():
    probes, gallery, identities = made_people()
    longer = probes * np.random.default_rng(0).uniform(0.1, 9.0, (len(probes), 1))
    first = identified(probes.astype(np.float64), gallery, identities).metrics
    assert identified(longer, gallery, identities).metrics == first


def test_unknown_people_are_left_out():
    probes, gallery, identities = made_people()
    stranger = np.full((9, 6), gallery[3])
    found = identified(
        np.concatenate([stranger, probes]),
        np.concatenate([stranger, gallery]),
        np.concatenate([np.full(9, -1), identities]),
    )
    alone = identified(probes, gallery, identities)
    for name in NAMES:
        assert found.metrics[name] == pytest.approx(alone.metrics[name])
    assert len(found.impostor) == len(alone.impostor)


def test_a_person_with_one_image_is_a_stranger_but_no_probe():
    probes, gallery, identities = made_people()
    probes, gallery = np.concatenate([probes, -probes[:1]]), np.concatenate([gallery, probes[:1]])
    identities = np.append(identities, 999)  # its image looks exactly like probe 0
    found = identified(probes, gallery, identities)
    without = identified(probes[:-1], gallery[:-1], identities[:-1])
    share = [found.metrics["reid_rank1"] * 120, without.metrics["reid_rank1"] * 120]
    assert np.allclose(share, np.round(share))  # of the 120 probes that can be found
    assert share[0] <= share[1]
    assert len(found.impostor) == len(without.impostor) + 2 * 120


@pytest.mark.parametrize("identities", [[], [4], [4, 4, 4], [1, 2, 3], [-1, -1, 3, 3]], ids=str)
def test_nothing_is_measured_without_pairs_of_both_kinds(identities):
    identities = np.array(identities, int)
    found = identified(np.ones((len(identities), 2)), np.ones((len(identities), 2)), identities)
    assert found.metrics == {}
    assert chance(identities) == {}
    assert len(found.roc[0]) == len(found.genuine) == len(found.impostor) == 0


def test_the_result_does_not_depend_on_how_many_rows_are_in_memory(monkeypatch):
    probes, gallery, identities = made_people()
    whole = identified(probes, gallery, identities).metrics
    monkeypatch.setattr(identity, "_BLOCK", 7 * len(identities))
    for name, value in identified(probes, gallery, identities).metrics.items():
        assert value == pytest.approx(whole[name], abs=1e-9), name


def test_a_sample_of_impostor_pairs_estimates_the_same(monkeypatch):
    probes, gallery, identities = made_people(people=150)
    everything = identified(probes, gallery, identities)
    monkeypatch.setattr(identity, "_IMPOSTOR_PAIRS", 60_000)
    sample = identified(probes, gallery, identities)
    again = identified(probes, gallery, identities)
    assert sample.metrics == again.metrics
    assert sample.metrics != everything.metrics
    for name in ("verification_auc", "verification_eer"):
        assert sample.metrics[name] == pytest.approx(everything.metrics[name], abs=0.005)
    for name in ("reid_rank1", "reid_rank5"):
        assert sample.metrics[name] == everything.metrics[name]
    # Impostor scores are a sample without bias of all.
    np.testing.assert_allclose(
        np.quantile(sample.impostor, [0.1, 0.5, 0.9]),
        np.quantile(everything.impostor, [0.1, 0.5, 0.9]),
        atol=0.02,
    )


def test_intervals_are_the_percentiles_of_scikit_learns_weighted_curves():
    probes, gallery, identities = made_people()
    bootstrap = IdentityBootstrap(identities, 40)
    scores, same = pairs_by_loop(probes, gallery, identities)
    others = ~np.eye(len(identities), dtype=bool)
    first, second = (bootstrap.person[axis[others.ravel()]] for axis in _every_pair(identities))
    areas, errors = [], []
    for drawn in bootstrap.weights.astype(float):
        weights = np.where(same, drawn[first], drawn[first] * drawn[second])
        weights *= weights_of(identities, same)
        areas.append(roc_auc_score(same, scores, sample_weight=weights))
        errors.append(equal_error_rate_by_scikit_learn(same, scores, weights))
    found = identify(probes, gallery, identities, bootstrap).metrics
    for name, values in (("auc", areas), ("eer", errors)):
        np.testing.assert_allclose(
            found[f"verification_{name}_ci95"], np.percentile(values, [2.5, 97.5]), atol=1e-3
        )


def _every_pair(identities):
    return (axis.ravel() for axis in np.indices((len(identities),) * 2))


def test_intervals_from_sampled_pairs_are_those_of_all_pairs(monkeypatch):
    probes, gallery, identities = made_people(people=100)
    all_pairs = identified(probes, gallery, identities, 400).metrics
    monkeypatch.setattr(identity, "_RESAMPLED_PAIRS", 20_000)  # of 158,400
    sampled = identified(probes, gallery, identities, 400).metrics
    for name in ("verification_auc_ci95", "verification_eer_ci95"):
        width = all_pairs[name][1] - all_pairs[name][0]
        np.testing.assert_allclose(sampled[name], all_pairs[name], atol=0.1 * width)


def test_the_interval_of_rank_1_is_that_of_a_mean_over_people():
    probes, gallery, identities = made_people()
    unit = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
    scores = probes @ unit.T
    np.fill_diagonal(scores, -np.inf)
    hits = identities[scores.argmax(axis=1)] == identities
    bootstrap = IdentityBootstrap(identities, 200)
    found = identify(probes, gallery, identities, bootstrap).metrics["reid_rank1_ci95"]
    assert found == pytest.approx(percentile_interval(bootstrap.means(hits)))
    assert found[0] < hits.mean() < found[1]


def test_auc_intervals_cover_the_truth_in_95_of_100_cases(monkeypatch):
    monkeypatch.setattr(identity, "_THRESHOLDS", 50)  # enough for 40 people, and faster
    probes, gallery = uneven_people(20_000, 0)[:2]
    probed = probes[::4].repeat(2, axis=0)
    shown = np.stack([gallery[1::4], np.roll(gallery[1::4], 1, axis=0)], axis=1).reshape(-1, 8)
    cosines = (probed * shown).sum(1) / np.linalg.norm(probed, axis=1)
    truth = roc_auc_score(np.tile([1, 0], 20_000), cosines / np.linalg.norm(shown, axis=1))
    covered = 0
    for seed in range(1, 101):
        low, high = identified(*uneven_people(40, seed), 200).metrics["verification_auc_ci95"]
        covered += low <= truth <= high
    assert binomtest(covered, 100, 0.95).pvalue > 0.01


def uneven_people(people, seed):
    """People differ in how much their probes tell, so that those of one person are alike."""
    random = np.random.default_rng(seed)
    identities = np.repeat(np.arange(people), 4)
    centres = random.normal(size=(people, 8))[identities]
    noise = np.exp(0.7 * random.normal(size=(people, 1)))[identities]
    probes = centres + 1.5 * noise * random.normal(size=centres.shape)
    return probes, centres + 0.7 * random.normal(size=centres.shape), identities


def test_the_curve_for_a_figure_is_short_and_keeps_its_area():
    probes, gallery, identities = made_people(people=150, images=5)
    found = identified(probes, gallery, identities)
    false, true = found.roc
    assert 100 < len(false) == len(true) <= 400
    assert (false[0], true[0], false[-1], true[-1]) == (0.0, 0.0, 1.0, 1.0)
    assert (np.diff(false) >= 0).all()
    assert (np.diff(true) >= 0).all()
    area = ((true[1:] + true[:-1]) / 2 * np.diff(false)).sum()
    assert area == pytest.approx(found.metrics["verification_auc"], abs=1e-3)


def test_scores_for_a_histogram_have_the_quantiles_of_all_scores(monkeypatch):
    probes, gallery, identities = made_people()
    every = identified(probes, gallery, identities).impostor
    monkeypatch.setattr(identity, "_HISTOGRAM_SCORES", 500)
    few = identified(probes, gallery, identities).impostor
    assert len(few) == 500
    quantiles = np.linspace(0, 1, 21)
    np.testing.assert_allclose(
        np.quantile(few, quantiles), np.quantile(every, quantiles), atol=0.01
    )


def test_bad_input_is_named():
    probes, gallery, identities = made_people()
    bootstrap = IdentityBootstrap(identities, 10)
    with pytest.raises(ValueError, match=r"\(120, 6\) and \(120, 5\)"):
        identify(probes, gallery[:, :5], identities, bootstrap)
    with pytest.raises(ValueError, match=r"identities \(119,\)"):
        identify(probes, gallery, identities[1:], bootstrap)
    with pytest.raises(ValueError, match="bootstrap is of other identities"):
        identify(probes, gallery, identities + 1, bootstrap)
    probes[3, 2] = np.nan
    with pytest.raises(ValueError, match="1 values of embeddings are not finite"):
        identify(probes, gallery, identities, bootstrap)
