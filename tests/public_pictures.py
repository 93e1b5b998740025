"""Stand-ins for a dataset and an encoder that fail where an attacker must not look."""

import numpy as np
import tensorflow as tf

from tfadv.data.dataset import PUBLIC
from tfadv.data.streams import in_memory_batches

SIZE = 32


class ImagesOnly(dict):
    """A batch whose labels and identities must not be read."""

    def __getitem__(self, name):
        assert name in ("images", "index"), f"the attacker reads {name}"
        return super().__getitem__(name)


class PublicPictures:
    """Stands in for a `Dataset` of which nothing but public pictures may be read."""

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
    """The mean colour of a picture, [N, 3], in NumPy alone; remembers what it was asked."""

    def __init__(self):
        self.calls = []

    def __call__(self, images):
        assert type(images) is np.ndarray
        assert images.dtype == np.uint8
        self.calls.append(images.copy())
        return images.mean((1, 2))

    @property
    def pictures(self):
        """How many were sent."""
        return sum(map(len, self.calls))
