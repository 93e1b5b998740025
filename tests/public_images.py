"""Stand-ins for data sets and encoders. Some fail where an attacker must not look."""

import numpy as np
import tensorflow as tf

from tfadv.attacks.knowledge import Knowledge, KnownImages
from tfadv.data.dataset import PUBLIC, WHOLE
from tfadv.data.pipeline import in_memory_batches
from tfadv.evaluation.recognition.recognizer import Embeddings

SIZE = 32


class ImagesOnly(dict):
    """A batch whose labels and identities must not be read."""

    def __getitem__(self, name):
        assert name in ("images", "index"), f"the attacker reads {name}"
        return super().__getitem__(name)


class PublicImages:
    """Stands in for a `Dataset` of which nothing but public images may be read."""

    size = SIZE

    evaluation_batch = 10

    def __init__(self, images):
        self.images = images

    def __getattr__(self, name):
        raise AssertionError(f"the attacker asks for {name}")

    def _check(self, split):
        assert split == PUBLIC, f"the attacker reads {split}"

    def count(self, split, part):
        self._check(split)
        return len(self.images)

    def batches(self, split, part, batch):
        self._check(split)
        for start in range(0, len(self.images), batch):
            images = tf.constant(self.images[start : start + batch])
            index = tf.range(start, start + len(images), dtype=tf.int64)
            yield ImagesOnly(images=images, labels=None, identity=None, index=index)

    def training_batches(self, split, part, batch, *, seed, start=0):
        self._check(split)
        count = len(self.images)
        arrays = {
            "images": self.images,
            "labels": np.full((count, 2), 255, np.uint8),
            "identity": np.full(count, -7),
            "index": np.arange(count),
        }
        return in_memory_batches(arrays, batch, seed=seed, start=start)


class BlackBox:
    """The mean colour of an image, [N, 3], in NumPy alone; it remembers its calls."""

    feature_shape, split = (3,), None

    def __init__(self):
        self.calls = []

    def __call__(self, images):
        assert type(images) is np.ndarray
        assert images.dtype == np.uint8
        self.calls.append(images.copy())
        return images.mean((1, 2))

    @property
    def count(self):
        """The number of images that were sent."""
        return sum(map(len, self.calls))


class FixedPairs:
    """Given pairs of images, uint8 [N, S, S, 3], and features, [N, ...]."""

    def __init__(self, images, features):
        self._images, self.all_features = images, features.astype(np.float32)
        self.count, self.size = len(images), images.shape[1]
        self.feature_shape = features.shape[1:]

    def batches(self):
        for start in range(0, self.count, 50):
            index = np.arange(start, min(start + 50, self.count))
            yield {
                "images": self._images[index],
                "features": self.all_features[index],
                "index": index,
            }

    def feature_batches(self):
        return (batch["features"] for batch in self.batches())

    def training_batches(self, batch, *, seed, start=0):
        arrays = {
            "images": self._images,
            "features": self.all_features,
            "index": np.arange(self.count),
        }
        return in_memory_batches(arrays, batch, seed=seed, start=start)

    def images(self, index):
        return self._images[index]


class FixedDataset:
    """Stands in for a `Dataset` in memory.

    `parts` are (split, part) -> images, uint8 [N, S, S, 3], identities [N] and labels [N, A].
    """

    evaluation_batch = 10

    def __init__(self, parts, attributes=()):
        self._parts, self.attributes = parts, attributes
        self.size = next(iter(parts.values()))[0].shape[1]

    def count(self, split, part=WHOLE):
        return len(self._parts[split, part][0])

    def annotations(self, split, part):
        return self._parts[split, part][1:]

    def batches(self, split, part, batch=evaluation_batch):
        images = self._parts[split, part][0]
        for start in range(0, len(images), batch):
            index = np.arange(start, min(start + batch, len(images)))
            yield {"images": tf.constant(images[index]), "index": tf.constant(index)}

    def digest(self, split, part):
        return f"{split} {part}"


def features_only(features):
    """Returns pairs of such features, [N, ...], with black images."""
    return FixedPairs(np.zeros((len(features), 4, 4, 3), np.uint8), features)


def make_knowledge(train, held_out, classifier=None, **known):
    """Returns the knowledge of an attacker with such pairs.

    Each of `known` is a field of `KnownImages`, for training and held-out images.
    """
    parts = []
    for i, pairs in enumerate((train, held_out)):
        fields = {"identities": np.full(pairs.count, -1)} | {n: v[i] for n, v in known.items()}
        parts.append(KnownImages(pairs, **fields))
    return Knowledge("mine", BlackBox(), *parts, classifier=classifier)


def embeddings_of(vectors):
    """Returns `Embeddings` of such embeddings, [N, E], with an inner layer of one value."""
    vectors = np.asarray(vectors, np.float32)
    return Embeddings(vectors, np.ones((len(vectors), 1), np.float32))


def wave_pairs(count, seed, hide=lambda values: values):
    """Returns pairs of images of a few random waves, and features that hide the waves' heights."""
    random = np.random.default_rng(seed)
    heights = random.uniform(-1, 1, (count, 6))
    places = np.arange(SIZE) / SIZE
    waves = np.stack([np.cos(np.pi * k * places) for k in (1, 2, 3)])
    levels = np.einsum("nk,ky->ny", heights[:, :3], waves)[:, :, None]
    levels = levels + np.einsum("nk,kx->nx", heights[:, 3:], waves)[:, None, :]
    images = np.rint(127.5 * (1 + levels[..., None] / 6)).astype(np.uint8).repeat(3, axis=-1)
    return FixedPairs(images, hide(heights))
