import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score

from tests.public_images import embeddings_of, features_only, make_knowledge
from tfadv.attacks import linkage
from tfadv.attacks.attack import NotApplicableError
from tfadv.attacks.linkage import FeatureLinkage, Linkage, LinkageByGuesses
from tfadv.attacks.ridge import RidgeFeatureMap
from tfadv.evaluation.metrics.info_nce import choose_scale
from tfadv.evaluation.whitening import Whitening


def make_people(count, images, seed, signal=1.0, dimensions=30, nuisance=10.0):
    """Vectors that show the person in 6 oblique directions, and much else in the others."""
    random = np.random.default_rng(seed)
    basis = np.linalg.qr(np.random.default_rng(99).normal(size=(dimensions, dimensions)))[0]
    identities = np.arange(count).repeat(images) + 1000 * seed
    person = signal * random.normal(size=(count, 6)).repeat(images, axis=0)
    person = person + 0.3 * random.normal(size=person.shape)
    noise = nuisance * random.normal(size=(len(identities), dimensions - 6))
    return np.concatenate([person, noise], axis=1) @ basis, identities


def auc_of(codes, identities):
    pairs = np.triu_indices(len(codes), 1)
    return roc_auc_score(identities[pairs[0]] == identities[pairs[1]], (codes @ codes.T)[pairs])


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def learn(**options):
    return Linkage(*make_people(100, 5, 0, **options), *make_people(30, 5, 1, **options))


def test_people_are_recognized_by_directions_that_louder_ones_hide():
    vectors, identities = make_people(40, 4, 2)
    assert auc_of(unit(vectors), identities) < 0.6
    assert auc_of(learn()(vectors), identities) > 0.95


@pytest.mark.parametrize("loudness", [1e3, 1e5])
def test_the_person_may_hide_in_directions_of_almost_no_variance(loudness):
    # An invertible linear map of the features, which takes nothing from them.
    options = {"dimensions": 40, "nuisance": loudness}
    found = learn(**options)
    vectors, identities = make_people(40, 4, 2, **options)
    assert auc_of(found(vectors.astype(np.float32)), identities) > 0.95


def test_vectors_that_say_nothing_of_people_leave_chance():
    vectors, identities = make_people(40, 4, 2, signal=0.0)
    # The variance within people, in the six directions, says nothing of people either.
    assert 0.4 < auc_of(learn(signal=0.0)(vectors), identities) < 0.6


def test_codes_have_length_1():
    codes = learn()(make_people(10, 2, 2)[0])
    np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1.0, rtol=1e-5)


def test_people_with_one_image_and_unknown_people_are_left_out():
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


def test_a_known_whitening_changes_nothing_and_is_not_used_if_images_are_left_out():
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


def test_two_images_each_are_enough_to_learn_from():
    assert (
        Linkage(*make_people(50, 2, 0), *make_people(20, 2, 1))(make_people(5, 2, 2)[0]).shape[0]
        == 10
    )


@pytest.mark.parametrize("identities", [[-1] * 6, [1, 2, 3, 4, 5, 6], [1, 1, 2, 3, 4, 5]])
def test_without_two_people_with_two_images_it_does_not_apply(identities):
    vectors = np.random.default_rng(0).normal(size=(6, 3))
    with pytest.raises(
        NotApplicableError, match="no two known people have two images each to learn from"
    ):
        Linkage(vectors, np.array(identities), *make_people(5, 2, 1, dimensions=30))


def test_without_two_held_out_people_it_does_not_apply():
    with pytest.raises(
        NotApplicableError, match="no two known people have two images each held out"
    ):
        Linkage(*make_people(20, 3, 0), *make_people(1, 3, 1))


def test_few_people_differ_in_fewer_directions_than_there_are_people():
    learned = Linkage(*make_people(4, 20, 0), *make_people(20, 3, 1))
    assert learned(make_people(5, 2, 2)[0]).shape == (10, 3)


def test_the_emphasis_is_chosen_on_held_out_people(monkeypatch):
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


def test_settings_are_chosen_on_the_first_people_if_many_are_held_out(monkeypatch):
    monkeypatch.setattr(linkage, "_COMPARED", 50)
    vectors, identities = make_people(30, 5, 1)
    few = Linkage(*make_people(100, 5, 0), vectors, identities)
    same = Linkage(*make_people(100, 5, 0), vectors[:50], identities[:50])
    asked = make_people(5, 2, 2)[0]
    np.testing.assert_array_equal(few(asked), same(asked))
    monkeypatch.setattr(linkage, "_COMPARED", 1)  # at least two people are compared
    assert Linkage(*make_people(100, 5, 0), vectors, identities)(asked).shape[0] == 10


def test_people_whose_own_images_are_all_the_same_are_recognized():
    people = np.repeat(np.arange(30), 4)
    codes = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)[people]
    metric = Linkage(codes[:80], people[:80], codes[80:], people[80:])
    found = metric(codes[80:])
    same = people[80:, None] == people[None, 80:]
    assert (found @ found.T)[same].min() > (found @ found.T)[~same].max()


def test_if_all_images_have_the_same_feature_it_does_not_apply():
    vectors, identities = make_people(20, 2, 0)
    same = np.ones_like(vectors)
    with pytest.raises(NotApplicableError, match="all images have the same feature"):
        Linkage(same, identities, *make_people(30, 5, 1))


def test_without_shrinkage_and_emphasis_it_is_scikit_learns_discriminant_analysis(monkeypatch):
    monkeypatch.setattr(linkage, "SHRINKAGES", (1e-12,))
    monkeypatch.setattr(linkage, "EMPHASES", (0.0,))
    monkeypatch.setattr(linkage, "COMPONENTS", (512,))
    vectors, identities = make_people(6, 12, 0, dimensions=10, nuisance=2.0)
    held_out, asked = make_people(20, 3, 1, dimensions=10), make_people(9, 2, 2, dimensions=10)[0]
    codes = Linkage(vectors, identities, *held_out)(asked)
    reference = LinearDiscriminantAnalysis(solver="svd").fit(vectors, identities)
    expected = unit(reference.transform(asked))
    assert codes.shape == expected.shape == (18, 5)  # six people differ in five directions
    np.testing.assert_allclose(codes @ codes.T, expected @ expected.T, atol=1e-4)


def weighted_auc(codes, person, *, is_weighted):
    """scikit-learn's AUC; weighted, each image has the same share in the genuine pairs."""
    first, second = np.triu_indices(len(codes), 1)
    is_genuine = person[first] == person[second]
    others = np.bincount(person)[person[first]] - 1
    weights = np.where(is_genuine & is_weighted, 1 / np.maximum(others, 1), 1.0)
    return roc_auc_score(is_genuine, (codes @ codes.T)[first, second], sample_weight=weights)


def test_a_person_with_many_images_does_not_decide_alone(monkeypatch):
    vectors, identities = make_people(20, 4, 0, signal=0.4)
    held_out, _ = make_people(8, 25, 2, signal=0.4)
    # One person has 25 images and seven have 3.
    person = np.repeat(np.arange(8), 25)
    is_kept = (person == 0) | (np.arange(200) % 25 < 3)
    held_out, person = held_out[is_kept], person[is_kept]
    aucs = {}
    for shrinkage in linkage.SHRINKAGES:
        with monkeypatch.context() as patch:
            patch.setattr(linkage, "SHRINKAGES", (shrinkage,))
            codes = Linkage(vectors, identities, held_out, person)(held_out)
        aucs[shrinkage] = [weighted_auc(codes, person, is_weighted=each) for each in (True, False)]
    chosen = Linkage(vectors, identities, held_out, person).shrinkage
    weighted, plain = (max(aucs, key=lambda each, i=i: aucs[each][i]) for i in (0, 1))
    assert chosen == weighted != plain


# The attacks


def known_people(**options):
    parts = [make_people(60, 4, seed, **options) for seed in (0, 1)]
    identities = [people for _, people in parts]
    # Embeddings that are linear in the features.
    embeddings = [embeddings_of(vectors[:, :8] + 3.0) for vectors, _ in parts]
    pairs = (features_only(vectors) for vectors, _ in parts)
    return make_knowledge(*pairs, identities=identities, embeddings=embeddings), parts


def test_the_attack_compares_by_the_metric_and_scales_its_critic_on_held_out_people(tmp_path):
    known, (train, held_out) = known_people()
    fitted = FeatureLinkage().fit(known, tmp_path)
    metric = Linkage(*train, *held_out)
    asked = make_people(20, 3, 2)[0].astype(np.float32)
    np.testing.assert_allclose(fitted.link(asked), metric(asked), atol=1e-3)
    assert fitted.critic_scale == choose_scale(fitted.link(held_out[0]), held_out[1])


def test_the_attack_by_guesses_compares_guessed_faces_without_their_mean(tmp_path):
    known, _ = known_people()
    attack = LinkageByGuesses(RidgeFeatureMap())
    assert attack.title == "linkage by linear embedding guesses"
    fitted = attack.fit(known, tmp_path)
    asked = make_people(20, 3, 2)[0].astype(np.float32)
    expected = asked[:, :8] + 3.0 - known.train.embeddings.embedding.mean(0)
    np.testing.assert_allclose(fitted.link(asked), expected, atol=0.05)
    assert fitted.critic_scale is None
