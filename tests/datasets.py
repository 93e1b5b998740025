"""Small TFDS datasets whose images and labels are known, and ways to read them."""

from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from tfadv.config.schema import Data
from tfadv.data.dataset import PRIVATE, PUBLIC, TEST

SPLITS = (PRIVATE, PUBLIC, TEST)


def read(batches):
    """Returns the batches of an epoch, joined."""
    batches = list(batches.as_numpy_iterator())
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def keys(images):
    """Returns something hashable for each image."""
    return [image.tobytes() for image in images]


def first(batches, count):
    """Returns the keys of the images of the first batches, a list for each."""
    return [keys(batch["images"]) for batch in batches.take(count).as_numpy_iterator()]


class Images(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A set of the features of `data_prep.spec`, or of fewer, with the examples of a test.

    Picture i of a split is of the colour (i % 256, i // 256, `blue`); bit j of i is attribute j.
    """

    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = Path(__file__).parent
    splits, attributes, without, blue = None, ("Smiling", "Male"), (), 7

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "attributes": tfds.features.Tensor(shape=(len(self.attributes),), dtype=np.uint8),
            "identity": tfds.features.Scalar(np.int64),
            "name": tfds.features.Text(),
        }
        features = {name: f for name, f in features.items() if name not in self.without}
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(attributes=list(self.attributes)),
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(people) for split, people in self.splits.items()}

    def _generate_examples(self, people):
        for number, (identity, name) in enumerate(people):
            example = {
                "image": plain_image(number, self.blue),
                "attributes": [number >> bit & 1 for bit in range(len(self.attributes))],
                "identity": identity,
                "name": name,
            }
            yield number, {n: value for n, value in example.items() if n not in self.without}


def plain_image(number, blue):
    """Returns an image of one colour, uint8 [2, 2, 3]."""
    return np.full((2, 2, 3), (number % 256, number // 256, blue), np.uint8)


def prepare(folder, name="pictures", shards=1, base=Images, **variables):
    """Writes a set, by default of an image for each (identity, name) of each split.

    Returns its settings.
    """
    people = [(number, f"{number}.png") for number in range(8)]
    variables.setdefault("splits", dict.fromkeys(SPLITS, people))
    builder = type(name.title(), (base,), variables, skip_registration=True)(data_dir=folder)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=shards))
    return Data(dir=str(folder), dataset=name, size=32)
