"""Attacks by kernel ridge regression: the strongest that learn in closed form."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
from sklearn.utils.extmath import randomized_svd

from tfadv.attacks.attack import Attack, FittedAttack, NotApplicableError
from tfadv.attacks.kernel_ridge import KernelRidge, Targets
from tfadv.attacks.knowledge import Knowledge, embeddings_of, labels_of
from tfadv.attacks.probes import inferred_attributes
from tfadv.data.images import resized, thumbnails
from tfadv.evaluation.leakage_measures import LABELS, RECOGNIZER

_SIDE = 64  # pixels per side at which images are fitted, at most
_COMPONENTS = 400  # principal components of the images that are fitted
_DESCRIBED = 4_000  # images that these are taken from, at most


class KernelDecoder(Attack):
    """Kernel ridge regression from features to images.

    What is predicted are the 400 largest principal components of images, at 64 pixels per side at
    most; they are enlarged bilinearly.
    """

    title = "kernel decoder"
    meaning = "Kernel ridge regression from features to images, in closed form."

    def fit(self, knowledge: Knowledge, folder: Path) -> FittedAttack:
        """Solves the regression; its loss is the squared error in [-1, 1], at the fitted size."""
        size = knowledge.train.pairs.size
        side = min(size, _SIDE)

        def small(known, batch):
            return thumbnails(batch["images"], side)

        components = PrincipalComponents(small(None, each) for each in _first_images(knowledge))
        predict = fit_kernel(
            knowledge, "images", lambda known, batch: components(small(known, batch))
        )

        def fitted(features):
            return np.clip(components.inverse(predict(features)), -1.0, 1.0)

        def reconstruct(features):
            return resized(fitted(features).reshape(-1, side, side, 3), size, cv2.INTER_LINEAR)

        loss = _held_out_error(knowledge, fitted, small)
        return FittedAttack(
            reconstruct=reconstruct, held_out_loss=loss, view=predict.setting.view.name
        )


class PrincipalComponents:
    """The largest principal components of vectors, float [N, D], that come in batches."""

    def __init__(self, batches: Iterable[np.ndarray]):
        vectors = np.concatenate(list(batches))
        self._mean = vectors.mean(0)
        count = min(_COMPONENTS, *vectors.shape)
        self._basis = randomized_svd(vectors - self._mean, count, n_iter=2, random_state=0)[2].T

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Returns the components of vectors [N, D], [N, K]."""
        return (vectors - self._mean) @ self._basis

    def inverse(self, components: np.ndarray) -> np.ndarray:
        """Returns the vectors of components [N, K], [N, D]."""
        return components @ self._basis.T + self._mean


def _first_images(knowledge: Knowledge) -> Iterator[dict[str, np.ndarray]]:
    """Batches of the first training images, some 4,000."""
    count = 0
    for batch in knowledge.train.pairs.batches():
        yield batch
        count += len(batch["index"])
        if count >= _DESCRIBED:
            return


class KernelFeatureMap(Attack):
    """Kernel ridge regression from features to face embeddings."""

    title = "kernel embedding guess"
    meaning = "Kernel ridge regression from features to face embeddings, in closed form."
    needs: ClassVar = frozenset({RECOGNIZER})

    def fit(self, knowledge: Knowledge, folder: Path) -> FittedAttack:
        """Solves the regression."""
        _check(knowledge)
        embed = knowledge.kernel_guess
        loss = _held_out_error(knowledge, embed, embeddings_of)
        mean = knowledge.train.embeddings.embedding.mean(0)
        return FittedAttack(
            embed=embed, mean_embedding=mean, held_out_loss=loss, view=embed.setting.view.name
        )


class KernelProbe(Attack):
    """Kernel ridge regression from features to attributes."""

    title = "kernel probe"
    meaning = "Kernel ridge regression from features to attributes that the task does not train."
    needs: ClassVar = frozenset({LABELS})

    def fit(self, knowledge: Knowledge, folder: Path) -> FittedAttack:
        """Solves the regression."""
        score = fit_kernel(knowledge, "labels", labels_of)
        return FittedAttack(
            attributes=inferred_attributes(knowledge, score), view=score.setting.view.name
        )


def fit_kernel(knowledge: Knowledge, kind: str, targets: Targets) -> KernelRidge:
    """Returns kernel ridge regression with a setting that was chosen for a kind of target.

    Raises:
        NotApplicableError: all images have the same feature.
    """
    _check(knowledge)
    settings = knowledge.kernel_settings[kind]
    return KernelRidge(settings, knowledge.train, knowledge.held_out, targets)


def _check(knowledge: Knowledge) -> None:
    if not knowledge.kernel_settings:
        raise NotApplicableError("all images have the same feature")


def _held_out_error(knowledge: Knowledge, predict, targets: Targets) -> float:
    """The mean squared error on held-out images."""
    known, error = knowledge.held_out, 0.0
    for batch in known.pairs.batches():
        error += np.square(predict(batch["features"]) - targets(known, batch)).mean(1).sum()
    return float(error / known.count)
