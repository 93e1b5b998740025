"""What is measured of the results of attacks, on the synthetic test images."""

import numpy as np
import pytest
from sklearn.metrics import matthews_corrcoef
from sklearn.metrics.pairwise import cosine_similarity

from tests.public_images import FixedDataset, FixedPairs
from tfadv.attacks.attack import FittedAttack
from tfadv.attacks.knowledge import KnownImages
from tfadv.attacks.scoring import EvaluationSet, first_pairs
from tfadv.data.dataset import HELD_OUT, PUBLIC, TEST, WHOLE, Dataset
from tfadv.data.images import normalize
from tfadv.evaluation.metrics.identity import chance
from tfadv.evaluation.recognition.recognizer import Embeddings


class Colours:
    """A recognizer of people by the mean colours of the quarters of an image."""

    alignment, layer = "whole", "none"

    def __init__(self, name="colours", sign=1):
        self.name = self.digest = name
        self._sign, self.count = sign, 0

    def __call__(self, images):
        self.count += len(images)
        side = images.shape[1] // 2
        quarters = images.reshape(len(images), 2, side, 2, side, 3).mean((2, 4))
        vectors = self._sign * quarters.reshape(len(images), -1) + 0.5
        return Embeddings(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), vectors)


def evaluation_set(dataset, folder, recognizers=(), split=TEST, part=WHOLE, **options):
    options = {"replicates": 50} | options
    return EvaluationSet(dataset, split, part, recognizers, folder, **options)


@pytest.fixture(scope="module")
def dataset(tiny_faces):
    return Dataset(tiny_faces)


@pytest.fixture(scope="module")
def test_set(dataset, tmp_path_factory):
    return evaluation_set(dataset, tmp_path_factory.mktemp("cache"), [Colours()])


def changed(change):
    """An attack that sees the images and gives changed ones."""
    return lambda batch: change(normalize(batch["images"]).numpy())


def test_the_image_itself_is_as_near_as_8_bits_allow(test_set):
    found = test_set.score_images(test_set.batches(), changed(lambda images: images)).metrics
    # 10 log10(1 / (1 / 255^2 / 12)): the error of rounding, of a range of 1
    assert found["psnr"] == pytest.approx(58.92, abs=0.01)
    assert found["psnr_ci95"] == pytest.approx([58.92, 58.92], abs=0.01)
    assert found["mse"] == 0
    assert found["face_similarity"] == pytest.approx(1)
    real = test_set.score_real_images().metrics
    assert found["reid_rank1"] == real["reid_rank1"]
    assert found["verification_auc"] == real["verification_auc"]


def test_known_embeddings_of_reconstructions_are_not_computed_again(dataset, tmp_path):
    recognizer = Colours()
    evaluation = evaluation_set(dataset, tmp_path, [recognizer])
    mirrored = changed(lambda images: images[:, :, ::-1])
    expected = evaluation.score_images(evaluation.batches(), mirrored).metrics
    known = Colours()(np.concatenate([mirrored(batch) for batch in evaluation.batches()]))
    asked = recognizer.count
    found = evaluation.score_images(
        evaluation.batches(),
        mirrored,
        lambda recognizer, batch: Embeddings(*(each[batch["index"]] for each in known)),
    ).metrics
    assert recognizer.count == asked
    assert found == expected


def test_neighbours_are_fetched_once_with_the_embeddings_that_are_known(dataset, tmp_path):
    first, second = Colours(), Colours("others", sign=-1)
    evaluation = evaluation_set(dataset, tmp_path, [first, second])
    images = np.concatenate([batch["images"] for batch in evaluation.batches()])
    mirrored = FixedPairs(images[:, :, ::-1].copy(), np.arange(len(images))[:, None])
    passes = []
    fetch = mirrored.images
    mirrored.images = lambda places: passes.append(places) or fetch(places)
    known = KnownImages(mirrored, np.full(len(images), -1), Colours()(mirror_of(images)))
    fitted = FittedAttack(
        neighbours=lambda features: features[:, 0].astype(int), neighbour_images=known
    )
    asked = first.count, second.count
    found = evaluation.score(fitted, FixedPairs(images, np.arange(len(images))[:, None])).metrics
    assert (first.count, second.count) == (asked[0], asked[1] + len(images))
    assert len(passes) == 1
    flip = changed(lambda images: images[:, :, ::-1])
    expected = evaluation.score_images(evaluation.batches(), flip).metrics
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value), name


def mirror_of(images):
    return normalize(images[:, :, ::-1]).numpy()


def test_reconstructions_that_are_not_finite_end_the_run(test_set):
    broken = changed(lambda images: np.where(images > 0.5, np.nan, images))
    with pytest.raises(ValueError, match="pixels of reconstructions are not finite"):
        test_set.score_images(test_set.batches(), broken)


def test_other_recognizers_have_metrics_of_their_own(dataset, tmp_path):
    evaluation = evaluation_set(dataset, tmp_path, [Colours(), Colours("others", sign=-1)])
    darker = changed(lambda images: images * 0.5 - 0.5)
    found = evaluation.score_images(evaluation.batches(), darker)
    alone = evaluation_set(dataset, tmp_path / "alone", [Colours("others", sign=-1)])
    expected = alone.score_images(alone.batches(), darker).metrics
    for metric in ("face_similarity", "face_similarity_inner", "reid_rank1", "reid_rank1_centred"):
        assert found.metrics[f"{metric}/others"] == expected[metric]
        assert metric in found.metrics
    assert "mse/others" not in found.metrics
    assert set(found.pairs) == {"colours", "others"}
    assert "verification_auc/others" in evaluation.score_real_images().metrics


def guess(test_set, embeddings, mean, pairs=None):
    """Scores an attack that guesses these embeddings."""
    pairs = pairs or FixedPairs(np.zeros((len(embeddings), 4, 4, 3), np.uint8), embeddings)
    return test_set.score(FittedAttack(embed=lambda features: features, mean_embedding=mean), pairs)


def test_guesses_are_identified_by_their_difference_from_the_mean(test_set):
    real = test_set.embeddings["colours"].embedding
    mean = real.mean(0)
    faint_guesses = mean + 0.01 * (real - mean)
    faint = guess(test_set, faint_guesses, mean).metrics
    full = guess(test_set, real, mean).metrics
    for metric in ("feature_verification_auc", "feature_reid_rank1"):
        assert faint[metric] == pytest.approx(full[metric])
    assert full["feature_similarity"] == pytest.approx(1)
    expected = cosine_similarity(faint_guesses, real).diagonal().mean()
    assert faint["feature_similarity"] == pytest.approx(expected, abs=1e-5)


def test_one_guess_for_all_is_compared_with_everybody(test_set):
    real = test_set.embeddings["colours"].embedding
    found = test_set.score_constant_guess(real[0]).metrics["feature_similarity"]
    assert found == pytest.approx(cosine_similarity(real[:1], real).mean(), abs=1e-5)


def link(test_set, codes, scale=None):
    """Scores an attack that compares these codes."""
    pairs = FixedPairs(np.zeros((len(codes), 4, 4, 3), np.uint8), codes)
    return test_set.score(FittedAttack(link=lambda features: features, critic_scale=scale), pairs)


def test_codes_of_the_same_people_are_linked(test_set):
    real = test_set.embeddings["colours"].embedding
    found = link(test_set, real)
    images = test_set.score_real_images().metrics
    assert found.metrics["linkage_rank1"] == images["reid_rank1"]
    assert found.metrics["linkage_auc"] == images["verification_auc"]
    assert set(found.pairs) == {""}
    perfect = link(test_set, np.eye(test_set.identities.max() + 1)[test_set.identities], scale=20.0)
    assert perfect.metrics["linkage_auc"] == 1.0
    assert perfect.metrics["info_nce_bits"] > 1.0
    assert "info_nce_bits" not in found.metrics  # without a scale


def test_each_interval_is_that_of_the_replicates(test_set):
    real = test_set.embeddings["colours"].embedding
    results = [
        test_set.score_images(test_set.batches(), changed(lambda images: images * 0.5)),
        guess(test_set, real + 0.1, np.zeros(12)),
        link(test_set, real),
        test_set.score_real_images(),
    ]
    names = set()
    for result in results:
        for name, score in result.scores.items():
            assert score.replicates.shape == (50,)
            expected = np.nanpercentile(score.replicates, [2.5, 97.5])
            np.testing.assert_allclose(score.interval, expected)
            np.testing.assert_allclose(result.metrics[f"{name}_ci95"], expected)
        names |= set(result.scores)
    assert {"mse", "reid_rank1", "feature_reid_rank1", "linkage_rank1", "linkage_auc"} <= names


def test_people_are_resampled_alike_for_all_attacks(test_set):
    """Differences are paired: a metric that is four times another has four times its replicates."""
    one, other = (
        test_set.score_images(test_set.batches(), changed(lambda images, by=by: images + by))
        for by in (0.1, 0.2)
    )
    np.testing.assert_allclose(
        4 * one.scores["mse"].replicates, other.scores["mse"].replicates, rtol=1e-4
    )


class Table(Colours):
    """A recognizer that gives the vector of an image's number, which is its colour."""

    def __init__(self, vectors):
        super().__init__()
        self._vectors = vectors.astype(np.float32)

    def __call__(self, images):
        numbers = np.rint((images[:, 0, 0, 0] + 1) * 127.5).astype(int)
        vectors = self._vectors[numbers]
        return Embeddings(vectors, vectors)


def test_a_blur_that_all_reconstructions_share_hides_nobody_once_the_mean_is_taken_off(tmp_path):
    random = np.random.default_rng(0)
    identities = np.arange(60).repeat(4)
    people = random.normal(size=(60, 16))[identities]
    # The recognizer sees given vectors: an image of one colour tells which one.
    faces = people + 0.5 * random.normal(size=people.shape)
    rebuilt = people + random.normal(size=people.shape)
    images = np.tile(np.arange(240, dtype=np.uint8)[:, None, None, None], (1, 16, 16, 3))
    recognizer = Table(faces)
    dataset = FixedDataset({(TEST, WHOLE): (images, identities, np.zeros((240, 0)))})
    evaluation = evaluation_set(dataset, tmp_path, [recognizer], replicates=2)

    def auc(vectors):
        table = Table(vectors)
        return evaluation.score_images(
            evaluation.batches(),
            changed(lambda images: images),
            lambda _, batch: table(normalize(batch["images"]).numpy()),
        ).metrics

    blurred = auc(rebuilt + 20 * random.normal(size=16))
    assert blurred["verification_auc"] < 0.75
    assert blurred["verification_auc_centred"] > 0.9
    assert auc(rebuilt)["verification_auc"] > 0.9


def test_one_face_for_all_is_chance_once_the_mean_is_taken_off(test_set):
    found = test_set.score_images(
        test_set.batches(), changed(lambda images: np.full_like(images, 0.1))
    ).metrics
    guess = chance(test_set.identities)
    assert found["reid_rank1_centred"] == pytest.approx(guess["reid_rank1"])
    assert found["verification_auc_centred"] == pytest.approx(0.5)


def test_any_part_of_a_split_can_be_measured_on(dataset, tmp_path):
    part = evaluation_set(dataset, tmp_path, split=PUBLIC, part=HELD_OUT)
    assert len(part.identities) == dataset.count(PUBLIC, HELD_OUT)
    assert sum(len(batch["index"]) for batch in part.batches()) == len(part.identities)


# Attacks


@pytest.fixture(scope="module")
def pairs(test_set):
    """The test images, with the mean colours of their quarters as features."""
    images = np.concatenate([batch["images"] for batch in test_set.batches()])
    return FixedPairs(images, Colours()(normalize(images).numpy()).inner)


def constant(size, value=0.25):
    return lambda features: np.full((len(features), size, size, 3), value, np.float32)


def test_reconstructions_are_scored_and_the_first_ones_are_kept(test_set, pairs):
    result = test_set.score(FittedAttack(reconstruct=constant(pairs.size)), pairs)
    expected = np.square(pairs.images(slice(None)) / 127.5 - 1.0 - 0.25).mean()
    assert result.metrics["mse"] == pytest.approx(expected, rel=1e-5)
    assert result.examples == pairs.count
    assert result.images.shape == (8, pairs.size, pairs.size, 3)
    assert result.images.dtype == np.uint8
    assert np.unique(result.images).tolist() == [159]  # 127.5 * 1.25


def test_no_reconstructions_are_kept_for_0_examples(dataset, pairs, tmp_path):
    evaluation = evaluation_set(dataset, tmp_path, examples=0)
    for examples in (0, 3):
        fitted = FittedAttack(reconstruct=constant(pairs.size), examples=examples)
        assert evaluation.score(fitted, pairs).images is None


def test_a_slow_attack_is_scored_on_the_first_images_by_pixels_only(test_set, pairs):
    fitted = FittedAttack(reconstruct=constant(pairs.size), examples=3)
    result = test_set.score(fitted, pairs)
    expected = np.square(pairs.images([0, 1, 2]) / 127.5 - 1.0 - 0.25).mean()
    assert set(result.scores) == {"mse", "psnr", "ssim"}
    assert result.metrics["mse"] == pytest.approx(expected, rel=1e-5)
    assert result.metrics["test_examples"] == result.examples == len(result.images) == 3


@pytest.mark.parametrize("count", [3, 50, 70, 1000])
def test_the_first_pairs_come_from_as_many_batches_as_needed(count):
    pairs = FixedPairs(np.zeros((120, 4, 4, 3), np.uint8), np.arange(120.0)[:, None])
    first = first_pairs(pairs, count)
    np.testing.assert_array_equal(first["index"], np.arange(min(count, 120)))
    np.testing.assert_array_equal(first["features"][:, 0], first["index"])
    assert len(first["images"]) == len(first["index"])


class Classifier:
    """Predicts attributes where two of the features are high."""

    attributes, feature_shape, thresholds = ("Smiling", "Male"), (12,), None

    def __call__(self, features):
        return features[:, :2] - 0.3


def test_the_utility_is_that_of_the_classifier_on_its_attributes(test_set, dataset, pairs):
    found = test_set.utility(Classifier(), pairs)
    expected = [
        matthews_corrcoef(
            test_set.labels[:, dataset.attributes.index(name)], pairs.all_features[:, i] > 0.3
        )
        for i, name in enumerate(Classifier.attributes)
    ]
    assert found["mcc_task"] == pytest.approx(np.mean(expected))
    assert found["mcc/Male"] == pytest.approx(expected[1])


@pytest.mark.parametrize(
    "fields", [{"feature_shape": (13,)}, {"attributes": ("Smiling", "Nobody")}, None]
)
def test_a_classifier_of_other_features_or_attributes_says_nothing(test_set, pairs, fields):
    classify = None if fields is None else type("Other", (Classifier,), fields)()
    assert test_set.utility(classify, pairs) == {}


def test_the_separation_of_people_is_measured_in_feature_space(test_set, pairs):
    class Ordered(FixedPairs):
        def features(self, index):
            yield self.all_features[index]

    ordered = Ordered(pairs.images(slice(None)), pairs.all_features)
    assert {"lda_within", "lda_between", "lda_score"} <= set(test_set.separation(ordered))
