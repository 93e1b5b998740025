"""What a black-box attacker learns from: pictures, and the features that come back for them."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from tfadv.data.dataset import Dataset
from tfadv.data.streams import in_memory_batches
from tfadv.evaluation.whitening import to_vectors

BlackBox = Callable[[np.ndarray], np.ndarray]

_FEWEST = 1024  # pictures of a pass in another order, however small the budget


class Pairs:
    """Pairs of a picture and its feature from one part of a split.

    Each picture is sent to the black box once and its feature kept, if all of them fit the budget;
    else it is sent again every time it is needed.

    Args:
        black_box: uint8 [N, S, S, 3] to features, float [N, ...].
        dataset: where the pictures come from; labels and identities are dropped.
        split: the public split to learn from, or the test split.
        part: of the split.
        feature_shape: of one picture's feature.
        budget_mb: what may be kept in memory, in MiB.
    """

    def __init__(
        self,
        black_box: BlackBox,
        dataset: Dataset,
        split: str,
        part: str,
        feature_shape: tuple[int, ...],
        budget_mb: float,
    ):
        self._black_box = black_box
        self._dataset = dataset
        self._split = split
        self._part = part
        self.feature_shape = tuple(feature_shape)
        self.count = dataset.count(split, part)
        self._kept = None
        self._budget = budget_mb * 2**20
        bytes_each = 4 * math.prod(feature_shape) + 3 * dataset.size**2
        if self.count * bytes_each <= self._budget:
            self._kept = self._keep()

    def batches(self) -> Iterator[dict[str, np.ndarray]]:
        """Yields every pair once, in order, in the dataset's evaluation batches."""
        batch = self._dataset.evaluation_batch
        if self._kept is not None:
            for start in range(0, self.count, batch):
                yield {name: array[start : start + batch] for name, array in self._kept.items()}
            return
        for pictures in self._dataset.batches(self._split, self._part, batch):
            images, index = pictures["images"].numpy(), pictures["index"].numpy()
            yield {"images": images, "features": self._encode(images), "index": index}

    def training_batches(self, batch: int, *, seed: int, start: int = 0) -> tf.data.Dataset:
        """Returns shuffled full batches without end, in an order that depends on `seed` alone."""
        if self._kept is not None:
            return in_memory_batches(self._kept, batch, seed=seed, start=start)

        def encode(pictures):
            images = pictures["images"]
            features = tf.numpy_function(self._encode, [images], tf.float32)
            features.set_shape((batch, *self.feature_shape))
            return {"images": images, "features": features, "index": pictures["index"]}

        pictures = self._dataset.training_batches(
            self._split, self._part, batch, seed=seed, start=start
        )
        return pictures.map(encode).prefetch(2)

    def pictures(self, index: np.ndarray) -> np.ndarray:
        """Returns the pictures at positions, uint8 [N, S, S, 3], in one pass if none are kept."""
        if self._kept is not None:
            return self._kept["images"][index]
        wanted, places = np.unique(index, return_inverse=True)
        found = [
            batch["images"].numpy()[np.isin(batch["index"], wanted)]
            for batch in self._dataset.batches(
                self._split, self._part, self._dataset.evaluation_batch
            )
        ]
        return np.concatenate(found)[places]

    def features(self, index: np.ndarray) -> Iterator[np.ndarray]:
        """Yields the features at positions, float32 [N, ...], in that order, in batches.

        Where none are kept, pictures are far smaller than maps of features: as many as the budget
        allows are put in order, in a pass over all of them, and sent once more.
        """
        if self._kept is not None:
            for places in _split(index, self._dataset.evaluation_batch):
                yield self._kept["features"][places]
            return
        bytes_each = 3 * 3 * self._dataset.size**2  # `pictures` holds them three times
        for places in _split(index, max(_FEWEST, int(self._budget // bytes_each))):
            for images in _split(self.pictures(places), self._dataset.evaluation_batch):
                yield self._encode(images)

    def _encode(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self._black_box(images), np.float32)

    def _keep(self) -> dict[str, np.ndarray]:
        """All pairs, filled in batch by batch: a list of batches would take twice the budget."""
        side = self._dataset.size
        images = np.empty((self.count, side, side, 3), np.uint8)
        features = np.empty((self.count, *self.feature_shape), np.float32)
        done = 0
        for batch in self.batches():
            rows = slice(done, done := done + len(batch["images"]))
            images[rows], features[rows] = batch["images"], batch["features"]
        return {"images": images, "features": features, "index": np.arange(self.count)}


class FirstPairs:
    """Some of the pairs: what an attacker with less data has.

    Args:
        pairs: all of them, kept in memory or not.
        places: of those that count, int [M], ascending.
    """

    def __init__(self, pairs: Pairs, places: Sequence[int]):
        self._pairs = pairs
        self._places = np.asarray(places)
        self.count = len(self._places)
        self.feature_shape = pairs.feature_shape

    def batches(self):
        """Yields them in order; `index` counts from 0 among them."""
        for batch in self._pairs.batches():
            is_kept = np.isin(batch["index"], self._places)
            if is_kept.any():
                kept = {name: values[is_kept] for name, values in batch.items()}
                yield kept | {"index": np.searchsorted(self._places, kept["index"])}

    def pictures(self, index: np.ndarray) -> np.ndarray:
        """Returns the pictures at positions, uint8 [N, S, S, 3]."""
        return self._pairs.pictures(self._places[index])


def vectors(pairs: Pairs) -> np.ndarray:
    """Returns the features of pairs as vectors, float32 [N, D]."""
    return np.concatenate([to_vectors(batch["features"]) for batch in pairs.batches()])


def _split(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Parts of at most `size` rows."""
    return (rows[start : start + size] for start in range(0, len(rows), size))
