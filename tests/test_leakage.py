"""What is measured of an attacker's answers, on the drawn test pictures."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from tfadv.config import Config, Metrics
from tfadv.data import Dataset, normalise
from tfadv.modes.leakage import TestSplit
from tfadv.recognition import Embeddings


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
    return TestSplit(Dataset(tiny_faces), [Colours()], config, tmp_path_factory.mktemp("cache"))


def test_the_very_picture_is_as_near_as_8_bits_allow(test_split):
    found = test_split.of_pictures(
        test_split.batches(), lambda batch: normalise(batch["images"]).numpy()
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
    split = TestSplit(Dataset(tiny_faces), [recognizer], config, tmp_path)

    def mirrored(batch):
        return normalise(batch["images"]).numpy()[:, :, ::-1]

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
