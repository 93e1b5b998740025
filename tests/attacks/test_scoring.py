"""What is measured of an attacker's answers, on the drawn test pictures."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from tfadv.attacks import scoring
from tfadv.attacks.scoring import EvaluationSet
from tfadv.config.schema import Config, Metrics
from tfadv.data.dataset import Dataset
from tfadv.data.images import normalize
from tfadv.evaluation.metrics.bootstrap import IdentityBootstrap
from tfadv.evaluation.metrics.identity import chance, identify
from tfadv.evaluation.recognition.recognizer import Embeddings


class Colours:
    """A recogniser that knows people by the mean colours of quarters of the picture."""

    name, digest, alignment, layer = "colours", "0", "whole", "none"

    def __call__(self, pictures):
        side = pictures.shape[1] // 2
        quarters = pictures.reshape(len(pictures), 2, side, 2, side, 3).mean((2, 4))
        vectors = quarters.reshape(len(pictures), -1) + 0.5
        return Embeddings(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), vectors)


@pytest.fixture(scope="module")
def test_split(tiny_faces, tmp_path_factory):
    config = Config(data=tiny_faces, metrics=Metrics(replicates=50))
    return EvaluationSet(Dataset(tiny_faces), [Colours()], config, tmp_path_factory.mktemp("cache"))


def test_the_very_picture_is_as_near_as_8_bits_allow(test_split):
    found = test_split.of_pictures(
        test_split.batches(), lambda batch: normalize(batch["images"]).numpy()
    ).metrics
    # 10 log10(1 / (1 / 255^2 / 12)): the error of rounding, of a range of 1
    assert found["psnr"] == pytest.approx(58.92, abs=0.01)
    assert found["psnr_ci95"] == pytest.approx([58.92, 58.92], abs=0.01)
    assert found["mse"] == 0
    assert found["face_similarity"] == pytest.approx(1)
    real = test_split.of_real_pictures().metrics
    assert found["reid_rank1"] == real["reid_rank1"]
    assert found["verification_auc"] == real["verification_auc"]


def test_what_a_recogniser_is_known_to_see_is_not_asked_for_again(tiny_faces, tmp_path):
    class Once(Colours):
        asked = 0

        def __call__(self, pictures):
            self.asked += len(pictures)
            return super().__call__(pictures)

    recognizer = Once()
    config = Config(data=tiny_faces, metrics=Metrics(replicates=50))
    split = EvaluationSet(Dataset(tiny_faces), [recognizer], config, tmp_path)

    def mirrored(batch):
        return normalize(batch["images"]).numpy()[:, :, ::-1]

    expected = split.of_pictures(split.batches(), mirrored).metrics
    seen = Colours()(np.concatenate([mirrored(batch) for batch in split.batches()]))
    asked = recognizer.asked
    found = split.of_pictures(
        split.batches(),
        mirrored,
        lambda recognizer, batch: Embeddings(*(each[batch["index"]] for each in seen)),
    ).metrics
    assert recognizer.asked == asked
    assert found == expected


def test_people_are_told_apart_by_what_a_guess_has_beyond_the_mean(test_split):
    real = test_split.embeddings["colours"].embedding
    centre = real.mean(0)
    faint = test_split.of_guesses(centre + 0.01 * (real - centre), centre).metrics
    full = test_split.of_guesses(real, centre).metrics
    assert faint["feature_verification_auc"] == pytest.approx(full["feature_verification_auc"])
    assert faint["feature_reid_rank1"] == pytest.approx(full["feature_reid_rank1"])
    assert full["feature_similarity"] == pytest.approx(1)
    expected = cosine_similarity(centre + 0.01 * (real - centre), real).diagonal().mean()
    assert faint["feature_similarity"] == pytest.approx(expected, abs=1e-5)


def test_one_guess_for_all_is_compared_with_everyone(test_split):
    real = test_split.embeddings["colours"].embedding
    found = test_split.of_one_guess(real[:1]).metrics["feature_similarity"]
    assert found == pytest.approx(cosine_similarity(real[:1], real).mean(), abs=1e-5)


def test_each_interval_is_that_of_the_replicates_beside_it(test_split):
    def pale(batch):
        return normalize(batch["images"]).numpy() * 0.5

    found = [
        test_split.of_pictures(test_split.batches(), pale),
        test_split.of_guesses(test_split.embeddings["colours"].embedding + 0.1, np.zeros(12)),
        test_split.of_codes(test_split.embeddings["colours"].embedding),
        test_split.of_real_pictures(),
    ]
    named = set()
    for finding in found:
        intervals = {name for name in finding.metrics if name.endswith("_ci95")}
        assert {f"{name}_ci95" for name in finding.replicates} == intervals
        for name, values in finding.replicates.items():
            assert values.shape == (50,)
            expected = np.nanpercentile(values, [2.5, 97.5])
            np.testing.assert_allclose(finding.metrics[f"{name}_ci95"], expected)
        named |= set(finding.replicates)
    assert {"mse", "reid_rank1", "feature_reid_rank1", "linkage_rank1", "linkage_auc"} <= named


def test_people_are_resampled_alike_whatever_is_measured(test_split):
    """A measure of half of another has its replicates, too: differences are paired."""

    def off(by):
        return lambda batch: normalize(batch["images"]).numpy() + by

    one, other = (test_split.of_pictures(test_split.batches(), off(by)) for by in (0.1, 0.2))
    np.testing.assert_allclose(4 * one.replicates["mse"], other.replicates["mse"], rtol=1e-4)


def test_beyond_the_mean_a_blur_that_all_reconstructions_share_hides_nobody():
    random = np.random.default_rng(0)
    identities = np.arange(60).repeat(4)
    people = random.normal(size=(60, 16))[identities]
    faces = people + 0.5 * random.normal(size=people.shape)
    rebuilt = people + random.normal(size=people.shape)
    blurred = rebuilt + 20 * random.normal(size=16)
    bootstrap = IdentityBootstrap(identities, 2)

    def auc(probes, gallery):
        return identify(probes, gallery, identities, bootstrap).metrics["verification_auc"]

    assert auc(blurred, faces) < 0.75
    assert auc(scoring._beyond_mean(blurred), scoring._beyond_mean(faces)) > 0.9
    assert auc(rebuilt, faces) > 0.9


def test_centred_one_face_for_all_says_nothing(tiny_faces, tmp_path):
    config = Config(data=tiny_faces, metrics=Metrics(replicates=50))
    centred = EvaluationSet(Dataset(tiny_faces), [Colours()], config, tmp_path, is_centred=True)

    def mean_face(batch):
        return np.full((len(batch["images"]), tiny_faces.size, tiny_faces.size, 3), 0.1)

    found = centred.of_pictures(centred.batches(), mean_face).metrics
    guess = chance(centred.identities)
    assert found["reid_rank1"] == pytest.approx(guess["reid_rank1"])
    assert found["verification_auc"] == pytest.approx(0.5)


def test_any_part_of_a_split_can_be_measured_on(tiny_faces, tmp_path):
    config = Config(data=tiny_faces, metrics=Metrics(replicates=50))
    dataset = Dataset(tiny_faces)
    part = EvaluationSet(dataset, [], config, tmp_path, "public", "held_out")
    assert len(part.identities) == dataset.count("public", "held_out")
    assert sum(len(batch["index"]) for batch in part.batches()) == len(part.identities)
