"""What a face recognizer is trained on, and how well it distinguishes people it has not seen."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from tfadv.config.errors import UserError
from tfadv.data import pipeline
from tfadv.data.dataset import HELD_OUT, TEST, TRAIN, WHOLE, Dataset
from tfadv.data.images import normalize
from tfadv.evaluation.metrics.bootstrap import IdentityBootstrap
from tfadv.evaluation.metrics.identity import can_identify, identify
from tfadv.evaluation.recognition.identity_classifier import FaceEmbedder
from tfadv.models.bottleneck import downscaled
from tfadv.training.distribution import over_devices
from tfadv.training.trainer import TrainingError

_MEMORY = 2**30  # bytes of decoded images: decoding a small image takes a third of a step
_COMPARED = 2000  # images compared with each other during training: two million pairs


def people_to_learn(dataset: Dataset, split: str) -> np.ndarray:
    """Returns the known identities in the train part of a split, ascending, int64 [K].

    Raises:
        UserError: there are fewer than two.
    """
    identities, _ = dataset.annotations(split, TRAIN)
    people = np.unique(identities[identities >= 0])
    if len(people) < 2:
        count = ("no known person", "one known person")[len(people)]
        raise UserError(
            f"the train part of split {split} of dataset {dataset.description['name']} shows "
            f"{count}; a recognizer learns from two or more: prepare the dataset with identities"
        )
    return people


def check_test_people(dataset: Dataset) -> None:
    """Raises a UserError if the test split lacks genuine or impostor pairs of known people."""
    identities, _ = dataset.annotations(TEST)
    if not can_identify(identities):
        raise UserError(
            f"split {TEST} of dataset {dataset.description['name']} needs two known people, one of "
            f"them with two images, to measure a recognizer: prepare the dataset with identities"
        )


class TrainingImages:
    """Images of the train part of a split, in memory if they fit, and the number of each person.

    `people` are the identities that are numbered, ascending.
    """

    def __init__(self, dataset: Dataset, split: str, people: np.ndarray):
        self._dataset, self._split, self._people = dataset, split, people
        self._arrays = None
        if dataset.count(split, TRAIN) * 3 * dataset.size**2 <= _MEMORY:
            identities, images = compute_for_known(
                dataset.batches(split, TRAIN), lambda images: images
            )
            self._arrays = {"images": images, "labels": np.searchsorted(people, identities)}

    def batches(self, batch: int, seed: int, start: int = 0) -> tf.data.Dataset:
        """Returns shuffled batches for `IdentityClassifier.train_step`, without end, from `start`.

        Raises:
            UserError: there are fewer images than a batch takes.
        """
        if self._arrays is not None:
            return pipeline.in_memory_batches(self._arrays, batch, seed=seed, start=start)

        def with_labels(examples):
            identity = examples["identity"]
            number = tf.searchsorted(self._people, identity, out_type=tf.int64)
            # Unknown people stay: without them, the order would change when training resumes.
            labels = tf.where(identity < 0, np.int64(-1), number)
            return {"images": examples["images"], "labels": labels}

        return self._dataset.training_batches(
            self._split, TRAIN, batch, seed=seed, start=start
        ).map(with_labels)


class HeldOutVerification:
    """Measures verification on the held-out people of a split, during training."""

    def __init__(self, embedder: FaceEmbedder, dataset: Dataset, split: str):
        self._embed = over_devices(lambda images: embedder(normalize(images))["embedding"])
        self._batches = dataset.batches(split, HELD_OUT)

    def __call__(self, step: int) -> tuple[dict[str, float], bool]:
        """Returns `held_out_auc`, if there are pairs of both kinds; and True: training goes on.

        Raises:
            TrainingError: embeddings are not finite.
        """
        identities, embeddings = compute_for_known(self._batches, self._embed)
        if not np.isfinite(embeddings).all():
            raise TrainingError(
                f"embeddings are not finite at step {step}; lower train.learning_rate (the last "
                f"checkpoint is kept)"
            )
        auc = pairwise_auc(embeddings, identities)
        return ({} if auc is None else {"held_out_auc": auc}), True


def pairwise_auc(embeddings: np.ndarray, identities: np.ndarray) -> float | None:
    """Returns the AUC of cosines for telling genuine from impostor pairs.

    Args:
        embeddings: float [N, E] of length 1.
        identities: int [N]; of more than 2000, those of the lowest identities are compared.

    Returns:
        Between 0 and 1; None if all pairs are of the same kind.
    """
    rows = np.argsort(identities, kind="stable")[:_COMPARED]
    embeddings, identities = embeddings[rows], identities[rows]
    one, other = np.triu_indices(len(rows), k=1)
    is_genuine = identities[one] == identities[other]
    if is_genuine.all() or not is_genuine.any():
        return None
    return float(roc_auc_score(is_genuine, (embeddings @ embeddings.T)[one, other]))


def compute_for_known(
    batches: Iterable[dict[str, tf.Tensor]], compute: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns identities, int64 [N], and computed values, [N, ...], of images of known people."""
    identities, values = [], []
    for batch in batches:
        is_known = batch["identity"].numpy() >= 0
        identities.append(batch["identity"].numpy()[is_known])
        values.append(compute(batch["images"].numpy())[is_known])
    return np.concatenate(identities), np.concatenate(values)


def measure_recognizer(
    folder: Path, dataset: Dataset, replicates: int, seed: int
) -> dict[str, float | list[float]]:
    """Returns how well an exported recognizer distinguishes people of the test split.

    Each image is compared with all other images. Under `blurred/`, each image is first enlarged
    from a quarter of its side, and compared with the other images as they are. `replicates` and
    `seed` are those of `IdentityBootstrap`.
    """
    model = tf.saved_model.load(str(folder))  # it dies with its last reference
    signature = over_devices(lambda images: model.signatures["serving_default"](images=images))

    def embed_both(images):
        soft = tf.round(downscaled(tf.cast(images, tf.float32), 4))
        pair = images, tf.cast(soft, tf.uint8).numpy()
        return np.stack([signature(each)["embedding"] for each in pair], axis=1)

    identities, embeddings = compute_for_known(dataset.batches(TEST, WHOLE), embed_both)
    sharp, blurred = embeddings[:, 0], embeddings[:, 1]
    bootstrap = IdentityBootstrap(identities, replicates, seed)
    metrics = dict(identify(sharp, sharp, identities, bootstrap).metrics)
    for name, value in identify(blurred, sharp, identities, bootstrap).metrics.items():
        metrics[f"blurred/{name}"] = value
    return metrics | {"test_examples": len(identities)}
