"""The nearest-neighbour attack: the public image whose feature is nearest."""

from pathlib import Path

import numpy as np

from tfadv.attacks.attack import Attack, FittedAttack
from tfadv.attacks.knowledge import Knowledge, KnownImages
from tfadv.attacks.views import View, soften
from tfadv.data.images import thumbnails

SOFTNESSES = (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1)  # of the whitening before a search
_SIDE = 16  # pixels per side at which found images are compared with the right ones
_BLOCK = 1024  # features that are compared at a time


class NearestNeighbour(Attack):
    """Returns the public image whose feature is nearest.

    The view of the feature and the strength of its whitening are those with which held-out images
    are best reconstructed, so that neither noise nor the directions of largest variance decide
    alone.
    """

    title = "nearest neighbour"
    meaning = "Shows the public image whose feature is nearest."

    def fit(self, knowledge: Knowledge, folder: Path) -> FittedAttack:
        """Chooses the view and the strength of the whitening."""
        search = Search(knowledge)
        return FittedAttack(
            neighbours=search, neighbour_images=knowledge.train, view=search.view.name
        )


class Search:
    """Finds the nearest public feature, by the cosine of softly whitened features.

    Attributes:
        view: the chosen one.
        softness: the chosen one of `SOFTNESSES`.
    """

    def __init__(self, knowledge: Knowledge):
        small, wanted = (_small(each) for each in (knowledge.train, knowledge.held_out))
        lowest = np.inf
        for view in knowledge.views:
            white, queries = (
                each.map(view.white) for each in (knowledge.train, knowledge.held_out)
            )
            for softness in SOFTNESSES:
                known, asked = (_soft(each, view, softness) for each in (white, queries))
                error = np.square(small[_nearest(asked, known)] - wanted).mean()
                if error < lowest:
                    lowest = error
                    self.view, self.softness, self._known = view, softness, known

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Returns the places of the nearest public images, int [N]."""
        return _nearest(_soft(self.view.white(features), self.view, self.softness), self._known)


def _small(known: KnownImages) -> np.ndarray:
    """The images at `_SIDE` pixels per side, as vectors."""
    return np.concatenate([thumbnails(batch["images"], _SIDE) for batch in known.pairs.batches()])


def _soft(white: np.ndarray, view: View, softness: float) -> np.ndarray:
    soft = soften(white, view.whitening.variances, softness)
    return soft / np.maximum(np.linalg.norm(soft, axis=1, keepdims=True), 1e-12)


def _nearest(queries: np.ndarray, known: np.ndarray) -> np.ndarray:
    starts = range(0, len(queries), _BLOCK)
    return np.concatenate([(queries[i : i + _BLOCK] @ known.T).argmax(1) for i in starts])
