"""What an attacker knows of one encoder: images, the features that come back, and identities."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from tfadv.attacks.black_box import BlackBox
from tfadv.attacks.kernel_ridge import KernelRidge, Setting, choose_settings
from tfadv.attacks.views import Classifier, View, make_views, to_vectors
from tfadv.data.dataset import Dataset
from tfadv.data.images import thumbnails
from tfadv.data.labels import UNKNOWN
from tfadv.data.pipeline import in_memory_batches
from tfadv.evaluation.recognition.recognizer import Embeddings, FaceFeatures
from tfadv.models.vgg import VGGFeatures

_FEWEST = 1024  # images of a pass in another order, however small the memory


class Pairs:
    """Pairs of an image and its feature, from one part of a split.

    Each image is sent to the black box once and its feature is kept, if all pairs fit the memory of
    `memory_mb` MiB; else it is sent again whenever it is needed.
    """

    def __init__(
        self, black_box: BlackBox, dataset: Dataset, split: str, part: str, memory_mb: float
    ):
        self._black_box = black_box
        self._dataset = dataset
        self._split = split
        self._part = part
        self._memory = memory_mb * 2**20
        self.size = dataset.size
        self.feature_shape = tuple(black_box.feature_shape)
        self.count = dataset.count(split, part)

    def batches(self) -> Iterator[dict[str, np.ndarray]]:
        """Yields every pair once, in order: `images` uint8, `features` float32 and `index`."""
        if self._kept is None:
            yield from self._encoded()
            return
        batch = self._dataset.evaluation_batch
        for start in range(0, self.count, batch):
            yield {name: array[start : start + batch] for name, array in self._kept.items()}

    def feature_batches(self) -> Iterator[np.ndarray]:
        """Yields the features of every pair once, in order, float32 [N, ...]."""
        return (batch["features"] for batch in self.batches())

    def _encoded(self) -> Iterator[dict[str, np.ndarray]]:
        """Sends every image to the black box once, in order."""
        batch = self._dataset.evaluation_batch
        for found in self._dataset.batches(self._split, self._part, batch):
            images, index = found["images"].numpy(), found["index"].numpy()
            yield {"images": images, "features": self._encode(images), "index": index}

    def training_batches(self, batch: int, *, seed: int, start: int = 0) -> tf.data.Dataset:
        """Returns shuffled full batches without end, in an order that depends on `seed` alone."""
        if self._kept is not None:
            return in_memory_batches(self._kept, batch, seed=seed, start=start)

        def encode(found):
            features = tf.numpy_function(self._encode, [found["images"]], tf.float32)
            features.set_shape((batch, *self.feature_shape))
            return {"images": found["images"], "features": features, "index": found["index"]}

        images = self._dataset.training_batches(
            self._split, self._part, batch, seed=seed, start=start
        )
        return images.map(encode).prefetch(2)

    def images(self, index: np.ndarray) -> np.ndarray:
        """Returns the images at some positions, uint8 [N, S, S, 3]; one pass if none are kept."""
        if self._kept is not None:
            return self._kept["images"][index]
        wanted, places = np.unique(index, return_inverse=True)
        batches = self._dataset.batches(self._split, self._part, self._dataset.evaluation_batch)
        found = [
            batch["images"].numpy()[np.isin(batch["index"].numpy(), wanted)] for batch in batches
        ]
        return np.concatenate(found)[places]

    def features(self, index: np.ndarray) -> Iterator[np.ndarray]:
        """Yields the features at some positions, float32 [N, ...], in that order, in batches.

        If features are not kept, as many images as fit the memory are put in order, in one pass
        over all images, and are sent again.
        """
        if self._kept is not None:
            for places in _blocks(index, self._dataset.evaluation_batch):
                yield self._kept["features"][places]
            return
        bytes_each = 3 * 3 * self.size**2  # `images` holds them three times
        for places in _blocks(index, max(_FEWEST, int(self._memory // bytes_each))):
            for images in _blocks(self.images(places), self._dataset.evaluation_batch):
                yield self._encode(images)

    def _encode(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self._black_box(images), np.float32)

    @functools.cached_property
    def _kept(self) -> dict[str, np.ndarray] | None:
        """All pairs, from their first use on; None if they do not fit the memory.

        They are filled in batch by batch: a list of batches would take twice the memory.
        """
        bytes_each = 4 * math.prod(self.feature_shape) + 3 * self.size**2
        if self.count * bytes_each > self._memory:
            return None
        images = np.empty((self.count, self.size, self.size, 3), np.uint8)
        features = np.empty((self.count, *self.feature_shape), np.float32)
        done = 0
        for batch in self._encoded():
            rows = slice(done, done := done + len(batch["images"]))
            images[rows], features[rows] = batch["images"], batch["features"]
        return {"images": images, "features": features, "index": np.arange(self.count)}


class PairsSubset:
    """The pairs at some positions, int [M], ascending: those of an attacker with less data."""

    def __init__(self, pairs: Pairs, places: Sequence[int]):
        self._pairs = pairs
        self._places = np.asarray(places)
        self.count = len(self._places)
        self.size, self.feature_shape = pairs.size, pairs.feature_shape

    def batches(self) -> Iterator[dict[str, np.ndarray]]:
        """Yields every pair of the subset once, in order; `index` counts from 0 in the subset."""
        for batch in self._pairs.batches():
            is_in = np.isin(batch["index"], self._places)
            if is_in.any():
                kept = {name: values[is_in] for name, values in batch.items()}
                yield kept | {"index": np.searchsorted(self._places, kept["index"])}

    def images(self, index: np.ndarray) -> np.ndarray:
        """Returns the images at some positions of the subset, uint8 [N, S, S, 3]."""
        return self._pairs.images(self._places[index])


@dataclasses.dataclass(frozen=True)
class KnownImages:
    """Images with their features, and what the attacker knows of these images.

    Attributes:
        pairs: N images with their features.
        identities: int64 [N], -1 where it is not known.
        embeddings: of the first recognizer, float32 [N, E]; None without a recognizer.
        labels: of the attributes that the task does not train, uint8 [N, A], 0 or 1, and UNKNOWN
            where it is not known; None if there are no such attributes.
    """

    pairs: Pairs | PairsSubset
    identities: np.ndarray
    embeddings: Embeddings | None = None
    labels: np.ndarray | None = None

    @property
    def count(self) -> int:
        """N."""
        return self.pairs.count

    def vectors(self) -> np.ndarray:
        """Returns the features as vectors, float32 [N, D]."""
        return self.map(to_vectors)

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Returns what a function makes of all features, batch by batch."""
        return np.concatenate([function(batch["features"]) for batch in self.pairs.batches()])

    def at(self, places: np.ndarray) -> "KnownImages":
        """Returns the subset at some positions, ascending."""
        return KnownImages(
            PairsSubset(self.pairs, places),
            self.identities[places],
            self.embeddings and Embeddings(*(each[places] for each in self.embeddings)),
            None if self.labels is None else self.labels[places],
        )

    def repeated(self, pairs: Pairs, times: int) -> "KnownImages":
        """Returns what is known of the same images `times` times in a row, given their pairs."""
        return KnownImages(
            pairs,
            np.tile(self.identities, times),
            self.embeddings and Embeddings(*(np.tile(e, (times, 1)) for e in self.embeddings)),
            None if self.labels is None else np.tile(self.labels, (times, 1)),
        )


@dataclasses.dataclass(frozen=True)
class Knowledge:
    """What the attacker of one encoder knows.

    Attributes:
        name: of the encoder, for progress lines.
        encoder: the black box.
        train: public images to learn from.
        held_out: public images of other people, to stop training and choose settings by.
        attributes: names and label columns of the attributes that the task does not train.
        classifier: of the encoder, which whoever gets its features has as well; None without.
        g: VGG19, for the perceptual distance; None without.
        faces: the recognizer as a function that gradients pass; None where there is none.
    """

    name: str
    encoder: BlackBox
    train: KnownImages
    held_out: KnownImages
    attributes: tuple[Sequence[str], Sequence[int]] = ((), ())
    classifier: Classifier | None = None
    g: VGGFeatures | None = None
    faces: FaceFeatures | None = None

    @functools.cached_property
    def views(self) -> list[View]:
        """The ways in which attacks in closed form look at a feature; the plain one is first."""
        return make_views(self.train, self.held_out, self.classifier)

    @functools.cached_property
    def kernel_settings(self) -> dict[str, list[Setting]]:
        """The best settings of kernel ridge regression: for `images`, and for what else is known.

        That is `embeddings` and `labels`. It is empty if all images have the same feature.
        """
        targets = {"images": lambda known, batch: thumbnails(batch["images"], 16)}
        if self.train.embeddings is not None:
            targets["embeddings"] = embeddings_of
        if self.train.labels is not None:
            targets["labels"] = labels_of
        return choose_settings(self.views, self.train, self.held_out, targets)

    @functools.cached_property
    def kernel_guess(self) -> KernelRidge:
        """Kernel ridge regression from features to face embeddings."""
        settings = self.kernel_settings["embeddings"]
        return KernelRidge(settings, self.train, self.held_out, embeddings_of)

    def with_fewer(self, count: int) -> "Knowledge":
        """Returns the knowledge of an attacker with so many public images to learn from.

        They show as few people as possible: an attacker with few images has few people.
        """
        people = self.train.identities
        order = np.argsort(np.where(people < 0, np.iinfo(np.int64).max, people), kind="stable")
        return dataclasses.replace(self, train=self.train.at(np.sort(order[:count])))


def embeddings_of(known: KnownImages, batch: dict[str, np.ndarray]) -> np.ndarray:
    """Returns the face embeddings of a batch of known images, float32 [N, E]."""
    return known.embeddings.embedding[batch["index"]]


def labels_of(known: KnownImages, batch: dict[str, np.ndarray]) -> np.ndarray:
    """Returns the labels of a batch minus 0.5, float32 [N, A]; 0 where they are not known."""
    labels = known.labels[batch["index"]]
    return np.where(labels == UNKNOWN, 0.0, labels.astype(np.float32) - 0.5)


def _blocks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Parts of at most `size` rows."""
    return (rows[start : start + size] for start in range(0, len(rows), size))
