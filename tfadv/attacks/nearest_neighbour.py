"""The nearest-neighbour attack: the public image whose feature is nearest."""

from pathlib import Path

import numpy as np

from tfadv.attacks.attack import Attack, FittedAttack
from tfadv.attacks.knowledge import Knowledge, KnownImages
from tfadv.attacks.ridge import thumbnails
from tfadv.evaluation.whitening import to_vectors

SOFTNESSES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1)  # of the whitening before a search
_SIDE = 16  # pixels per side at which found images are compared with the right ones
_BLOCK = 1024  # features that are compared at a time


class NearestNeighbour(Attack):
    """Returns the public image whose feature is nearest.

    Features are whitened to the strength at which held-out images are best reconstructed, so that
    neither noise nor the directions of largest variance decide alone.
    """

    title = "nearest neighbour"
    meaning = "Shows the public image whose feature is nearest."

    def fit(self, knowledge: Knowledge, folder: Path) -> FittedAttack:
        """Chooses the strength of the whitening."""
        return FittedAttack(neighbours=Search(knowledge), neighbour_images=knowledge.train)


class Search:
    """Finds the nearest public feature, by the cosine of softly whitened features.

    Attributes:
        softness: the chosen one of `SOFTNESSES`.
    """

    def __init__(self, knowledge: Knowledge):
        self._whitening = knowledge.whitening
        known, small = self._white_and_small(knowledge.train)
        queries, wanted = self._white_and_small(knowledge.held_out)
        errors = []
        for softness in SOFTNESSES:
            nearest = _nearest(self._soften(queries, softness), self._soften(known, softness))
            errors.append(np.square(small[nearest] - wanted).mean())
        self.softness = SOFTNESSES[int(np.argmin(errors))]
        self._known = self._soften(known, self.softness)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Returns the places of the nearest public images, int [N]."""
        return _nearest(self._soften(self._white(features), self.softness), self._known)

    def _white_and_small(self, known: KnownImages) -> tuple[np.ndarray, np.ndarray]:
        """The whitened features, and the images at `_SIDE` pixels per side, in one pass."""
        parts = [
            (self._white(batch["features"]), thumbnails(batch["images"], _SIDE))
            for batch in known.pairs.batches()
        ]
        white, small = map(np.concatenate, zip(*parts, strict=True))
        return white, small

    def _white(self, features: np.ndarray) -> np.ndarray:
        return self._whitening(to_vectors(features))

    def _soften(self, white: np.ndarray, softness: float) -> np.ndarray:
        variances = self._whitening.variances
        soft = white * np.sqrt(variances / (variances + softness)).astype(np.float32)
        return soft / np.maximum(np.linalg.norm(soft, axis=1, keepdims=True), 1e-12)


def _nearest(queries: np.ndarray, known: np.ndarray) -> np.ndarray:
    starts = range(0, len(queries), _BLOCK)
    return np.concatenate([(queries[i : i + _BLOCK] @ known.T).argmax(1) for i in starts])
