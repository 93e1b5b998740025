import numpy as np
import pytest

from tests.public_images import FixedDataset, embeddings_of
from tfadv.attacks.references import mean_face, measure_references
from tfadv.attacks.scoring import EvaluationSet
from tfadv.data.dataset import PUBLIC, TEST, TRAIN, WHOLE
from tfadv.evaluation.metrics.features import lda_chance
from tfadv.evaluation.metrics.identity import chance

PEOPLE = np.arange(6).repeat(4)


def make_images(seed):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (24, 16, 16, 3), np.uint8)
    # A person has a brightness.
    images[:] = (0.2 * images + 30.0 * PEOPLE[:, None, None, None]).astype(np.uint8)
    return images, PEOPLE, np.zeros((24, 0), np.uint8)


class Thumbnails:
    """A recognizer that sees four numbers of an image; it counts its images."""

    name, digest, alignment, layer = "thumbnails", "0", "whole", "none"

    def __init__(self):
        self.count = 0

    def __call__(self, images):
        self.count += len(images)
        vectors = images[:, :2, :2, 0].reshape(len(images), 4) + 1.5
        return embeddings_of(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.fixture
def dataset():
    public = make_images(0)
    return FixedDataset(
        {(PUBLIC, WHOLE): public, (PUBLIC, TRAIN): public, (TEST, WHOLE): make_images(1)}
    )


def measure(dataset, folder, recognizers):
    test = EvaluationSet(dataset, TEST, WHOLE, recognizers, folder, replicates=20)
    return test, measure_references(dataset, test, recognizers, folder)


def test_the_mean_face_is_the_mean_public_image(dataset):
    expected = (make_images(0)[0] / 127.5 - 1.0).mean(0)
    np.testing.assert_allclose(mean_face(dataset), expected, atol=1e-6)


def test_the_mean_face_is_scored_as_the_reconstruction_of_every_test_image(dataset, tmp_path):
    _, references = measure(dataset, tmp_path, [])
    differences = make_images(1)[0] / 127.5 - 1.0 - mean_face(dataset)
    metrics = references["mean_face"].metrics
    assert metrics["mse"] == pytest.approx(np.square(differences).mean(), rel=1e-5)
    assert metrics["test_examples"] == 24


def test_without_a_recognizer_there_is_no_real_image_to_compare_with(dataset, tmp_path):
    _, references = measure(dataset, tmp_path, [])
    assert set(references) == {"mean_face", "chance"}
    assert references["chance"].metrics == chance(PEOPLE) | lda_chance(PEOPLE)


def test_the_recognizer_sees_the_mean_face_once_and_each_real_image(dataset, tmp_path):
    recognizer = Thumbnails()
    test, references = measure(dataset, tmp_path, [recognizer])
    assert recognizer.count == 1 + 24 + 24  # mean face, test images, public images
    assert set(references) == {"mean_face", "real_image", "chance"}
    assert references["real_image"].metrics == test.score_real_images().metrics
    assert references["mean_face"].metrics["verification_auc"] == pytest.approx(0.5)
    guess = recognizer(make_images(0)[0] / 127.5 - 1.0).embedding.mean(0)
    expected = test.score_constant_guess(guess).metrics["feature_similarity"]
    assert references["chance"].metrics["feature_similarity"] == pytest.approx(expected)
