"""What can be had without any feature: chance, the mean public face, and the real image."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfadv.attacks.scoring import EvaluationSet
from tfadv.data.dataset import PUBLIC, TRAIN, WHOLE, Dataset
from tfadv.data.images import normalize
from tfadv.evaluation.metrics.features import lda_chance
from tfadv.evaluation.metrics.identity import chance
from tfadv.evaluation.recognition.embedding_cache import cached_embeddings
from tfadv.evaluation.recognition.recognizer import Embeddings, Recognizer
from tfadv.evaluation.results import AttackResult, Score

MEAN_FACE, CHANCE, REAL_IMAGE = "mean_face", "chance", "real_image"


def measure_references(
    dataset: Dataset, test: EvaluationSet, recognizers: Sequence[Recognizer], cache: Path
) -> dict[str, AttackResult]:
    """Returns the reference rows of an attack on the test images: name -> result.

    Without a recognizer there is no real image to compare with. `cache` is the folder for the
    embeddings of real images.
    """
    mean = mean_face(dataset)
    embedded = {recognizer.name: recognizer(mean[None]) for recognizer in recognizers}

    def embed(recognizer, batch):
        count = len(batch["images"])
        return Embeddings(*(each.repeat(count, axis=0) for each in embedded[recognizer.name]))

    references = {
        MEAN_FACE: test.score_images(
            test.batches(), lambda batch: np.stack([mean] * len(batch["images"])), embed
        )
    }
    guessed = chance(test.identities) | lda_chance(test.identities)
    scores = {metric: Score(value) for metric, value in guessed.items()}
    if recognizers:
        public = cached_embeddings(recognizers[0], dataset, PUBLIC, TRAIN, cache).embedding
        scores |= test.score_constant_guess(public.mean(0)).scores
        references[REAL_IMAGE] = test.score_real_images()
    if scores:
        references[CHANCE] = AttackResult(scores)
    return references


def mean_face(dataset: Dataset) -> np.ndarray:
    """Returns the mean public image, float32 [S, S, 3] in [-1, 1]."""
    total = np.zeros((dataset.size, dataset.size, 3))
    for batch in dataset.batches(PUBLIC, WHOLE):
        total += normalize(batch["images"]).numpy().sum(0)
    return (total / dataset.count(PUBLIC)).astype(np.float32)
