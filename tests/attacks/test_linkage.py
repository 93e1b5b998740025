import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tfadv.attacks import linkage
from tfadv.attacks.linkage import Linkage
from tfadv.evaluation.whitening import Whitening


def make_people(count, pictures, seed, signal=1.0, dimensions=30, nuisance=10.0):
    """Vectors in which who it is lies in 6 oblique directions, and much else in the others."""
    random = np.random.default_rng(seed)
    basis = np.linalg.qr(np.random.default_rng(99).normal(size=(dimensions, dimensions)))[0]
    identities = np.arange(count).repeat(pictures) + 1000 * seed
    who = signal * random.normal(size=(count, 6)).repeat(pictures, axis=0)
    who = who + 0.3 * random.normal(size=who.shape)
    noise = nuisance * random.normal(size=(len(identities), dimensions - 6))
    return np.concatenate([who, noise], axis=1) @ basis, identities


def auc_of(codes, identities):
    pairs = np.triu_indices(len(codes), 1)
    return roc_auc_score(identities[pairs[0]] == identities[pairs[1]], (codes @ codes.T)[pairs])


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def learn(**options):
    return Linkage(*make_people(100, 5, 0, **options), *make_people(30, 5, 1, **options))


def test_people_are_told_apart_by_directions_that_much_else_hides():
    vectors, identities = make_people(40, 4, 2)
    assert auc_of(unit(vectors), identities) < 0.6
    assert auc_of(learn()(vectors), identities) > 0.95


@pytest.mark.parametrize("loudness", [1e3, 1e5])
def test_who_it_is_may_hide_in_directions_of_next_to_no_variance(loudness):
    # An invertible linear map of the features, which takes nothing from them.
    options = {"dimensions": 40, "nuisance": loudness}
    found = learn(**options)
    vectors, identities = make_people(40, 4, 2, **options)
    assert auc_of(found(vectors.astype(np.float32)), identities) > 0.95


def test_a_person_with_many_pictures_does_not_decide_alone():
    person = np.array([0] * 30 + [1, 1, 2, 2, 3, 3])
    codes = np.random.default_rng(0).normal(size=(36, 4)).astype(np.float32)
    first, second = np.triu_indices(36, 1)
    same = person[first] == person[second]
    others = np.bincount(person)[person[first]] - 1
    scores = (unit(codes) @ unit(codes).T)[first, second]
    expected = roc_auc_score(same, scores, sample_weight=np.where(same, 1 / others, 1.0))
    found = linkage._auc(codes, *linkage._pairs(person))
    assert found == pytest.approx(expected, abs=1e-6)
    assert abs(found - roc_auc_score(same, scores)) > 1e-3


def test_vectors_that_say_nothing_of_people_leave_a_coin_toss():
    vectors, identities = make_people(40, 4, 2, signal=0.0)
    # Even the spread of a picture's own place in the six directions says nothing of people.
    assert 0.4 < auc_of(learn(signal=0.0)(vectors), identities) < 0.6


def test_codes_have_length_1():
    codes = learn()(make_people(10, 2, 2)[0])
    np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1.0, rtol=1e-5)


def test_people_seen_once_and_nobody_known_are_left_out():
    vectors, identities = make_people(100, 5, 0)
    random = np.random.default_rng(1)
    more = 1e3 * random.normal(size=(40, vectors.shape[1]))
    single = np.concatenate([np.full(20, -1), 5000 + np.arange(20)])
    held_out = make_people(30, 5, 1)
    with_them = Linkage(
        np.concatenate([vectors, more]), np.concatenate([identities, single]), *held_out
    )
    asked = make_people(20, 3, 2)[0]
    np.testing.assert_allclose(
        with_them(asked), Linkage(vectors, identities, *held_out)(asked), atol=1e-4
    )


def test_scatter_is_the_covariance_within_people_and_between_their_means():
    vectors, identities = make_people(6, 3, 0, dimensions=8)
    within, weighted = linkage._scatter(vectors, identities)
    expected = sum(2 * np.cov(vectors[identities == who].T) for who in range(6)) / (18 - 6)
    np.testing.assert_allclose(within, expected, rtol=1e-6, atol=1e-8)
    means = np.stack([vectors[identities == who].mean(0) for who in range(6)])
    np.testing.assert_allclose(
        weighted.T @ weighted, np.cov(means.T, bias=True), rtol=1e-6, atol=1e-8
    )


def test_the_auc_is_scikit_learns_ties_included():
    random = np.random.default_rng(0)
    person = np.arange(20).repeat(4)
    # Few distinct vectors, so that many scores are equal.
    codes = random.integers(-1, 2, (80, 3)) + person[:, None] % 3 * 0.5 + 0.1
    codes = codes.astype(np.float32)
    first, second = np.triu_indices(80, 1)
    unit_codes = unit(codes)
    expected = roc_auc_score(
        person[first] == person[second], (unit_codes @ unit_codes.T)[first, second]
    )
    found = linkage._auc(codes, *linkage._pairs(person))
    assert found == pytest.approx(expected, abs=1e-12)


def test_a_whitening_at_hand_changes_nothing_and_is_left_where_it_saw_more_people():
    vectors, identities = make_people(60, 3, 0)
    held_out, asked = make_people(20, 3, 1), make_people(20, 3, 2)[0]
    expected = Linkage(vectors, identities, *held_out)(asked)
    shared = Linkage(vectors, identities, *held_out, Whitening(np.array_split(vectors, 3)))
    np.testing.assert_allclose(shared(asked), expected, atol=1e-4)

    strangers = 1e3 * np.random.default_rng(3).normal(size=(40, vectors.shape[1]))
    more = np.concatenate([vectors, strangers])
    left_out = np.concatenate([identities, np.full(40, -1)])
    found = Linkage(more, left_out, *held_out, Whitening([more]))(asked)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_two_pictures_each_are_enough_to_learn_from():
    assert (
        Linkage(*make_people(50, 2, 0), *make_people(20, 2, 1))(make_people(5, 2, 2)[0]).shape[0]
        == 10
    )


@pytest.mark.parametrize(
    ("identities", "what"), [([-1] * 6, "to learn from"), ([1, 2, 3, 4, 5, 6], "to learn from")]
)
def test_without_two_people_seen_twice_it_says_so(identities, what):
    vectors = np.random.default_rng(0).normal(size=(6, 3))
    with pytest.raises(ValueError, match=f"no two known people with two pictures each {what}"):
        Linkage(vectors, np.array(identities), *make_people(5, 2, 1, dimensions=30))


def test_without_people_held_out_it_says_so():
    with pytest.raises(ValueError, match="no two known people with two pictures each held out"):
        Linkage(*make_people(20, 3, 0), *make_people(1, 3, 1))


def test_few_people_differ_in_fewer_directions_than_there_are_people():
    learned = Linkage(*make_people(4, 20, 0), *make_people(20, 3, 1))
    assert learned(make_people(5, 2, 2)[0]).shape == (10, 3)


def test_how_much_directions_count_is_chosen_on_held_out_people(monkeypatch):
    held_out = make_people(30, 5, 1)
    aucs = {}
    for emphases in ((0.0,), (0.5,), (1.0,), (0.0, 0.5, 1.0)):
        monkeypatch.setattr(linkage, "EMPHASES", emphases)
        learned = learn()
        aucs[emphases] = auc_of(learned(held_out[0]), held_out[1])
        assert learned.emphasis in emphases
    chosen = aucs.pop((0.0, 0.5, 1.0))
    assert len(set(aucs.values())) > 1
    assert chosen == pytest.approx(max(aucs.values()), abs=1e-6)


def test_choices_are_made_on_the_first_people_where_many_are_held_out(monkeypatch):
    monkeypatch.setattr(linkage, "_COMPARED", 50)
    vectors, identities = make_people(30, 5, 1)
    few = Linkage(*make_people(100, 5, 0), vectors, identities)
    same = Linkage(*make_people(100, 5, 0), vectors[:50], identities[:50])
    asked = make_people(5, 2, 2)[0]
    np.testing.assert_array_equal(few(asked), same(asked))
    monkeypatch.setattr(linkage, "_COMPARED", 1)  # one person is none to tell from another
    assert Linkage(*make_people(100, 5, 0), vectors, identities)(asked).shape[0] == 10


def test_people_whose_own_pictures_are_all_alike_are_told_apart():
    people = np.repeat(np.arange(30), 4)
    codes = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)[people]
    metric = Linkage(codes[:80], people[:80], codes[80:], people[80:])
    found = metric(codes[80:])
    same = people[80:, None] == people[None, 80:]
    assert (found @ found.T)[same].min() > (found @ found.T)[~same].max()


def test_people_whose_pictures_do_not_differ_are_told():
    vectors, identities = make_people(20, 2, 0)
    same = np.ones_like(vectors)
    with pytest.raises(ValueError, match="the same features"):
        Linkage(same, identities, *make_people(30, 5, 1))
