"""Attacks by kernel ridge regression: the strongest that learn in closed form."""

from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from tfadv.attacks.attack import Attack, FittedAttack, NotApplicableError
from tfadv.attacks.kernel_ridge import KernelRidge, Targets
from tfadv.attacks.knowledge import Knowledge, embeddings_of, labels_of
from tfadv.attacks.probes import inferred_attributes
from tfadv.data.images import resized, thumbnails
from tfadv.evaluation.leakage_measures import LABELS, RECOGNIZER

_SIDE = 32  # pixels per side at which images are fitted, at most


class KernelDecoder(Attack):
    """Kernel ridge regression from features to pixels.

    Images are fitted at 32 pixels per side at most, and enlarged bilinearly.
    """

    title = "kernel decoder"
    meaning = "Kernel ridge regression from features to pixels, in closed form."

    def fit(self, knowledge: Knowledge, folder: Path) -> FittedAttack:
        """Solves the regression; its loss is the squared error in [-1, 1], at the fitted size."""
        size = knowledge.train.pairs.size
        side = min(size, _SIDE)

        def small(known, batch):
            return thumbnails(batch["images"], side)

        predict = fit_kernel(knowledge, "images", small)

        def fitted(features):
            return np.clip(predict(features), -1.0, 1.0)

        def reconstruct(features):
            return resized(fitted(features).reshape(-1, side, side, 3), size, cv2.INTER_LINEAR)

        loss = _held_out_error(knowledge, fitted, small)
        return FittedAttack(reconstruct=reconstruct, held_out_loss=loss)


class KernelFeatureMap(Attack):
    """Kernel ridge regression from features to face embeddings."""

    title = "kernel embedding guess"
    meaning = "Kernel ridge regression from features to face embeddings, in closed form."
    needs: ClassVar = frozenset({RECOGNIZER})

    def fit(self, knowledge: Knowledge, folder: Path) -> FittedAttack:
        """Solves the regression."""
        embed = fit_kernel(knowledge, "embeddings", embeddings_of)
        loss = _held_out_error(knowledge, embed, embeddings_of)
        mean = knowledge.train.embeddings.embedding.mean(0)
        return FittedAttack(embed=embed, mean_embedding=mean, held_out_loss=loss)


class KernelProbe(Attack):
    """Kernel ridge regression from features to attributes."""

    title = "kernel probe"
    meaning = "Kernel ridge regression from features to attributes that the task does not train."
    needs: ClassVar = frozenset({LABELS})

    def fit(self, knowledge: Knowledge, folder: Path) -> FittedAttack:
        """Solves the regression."""
        score = fit_kernel(knowledge, "labels", labels_of)
        return FittedAttack(attributes=inferred_attributes(knowledge, score))


def fit_kernel(knowledge: Knowledge, kind: str, targets: Targets) -> KernelRidge:
    """Returns kernel ridge regression with the setting that was chosen for a kind of target.

    Raises:
        NotApplicableError: all images have the same feature.
    """
    if kind not in knowledge.kernel_settings:
        raise NotApplicableError("all images have the same feature")
    setting = knowledge.kernel_settings[kind]
    return KernelRidge(setting, knowledge.train, knowledge.held_out, targets)


def _held_out_error(knowledge: Knowledge, predict, targets: Targets) -> float:
    """The mean squared error on held-out images."""
    known, error = knowledge.held_out, 0.0
    for batch in known.pairs.batches():
        error += np.square(predict(batch["features"]) - targets(known, batch)).mean(1).sum()
    return float(error / known.count)
