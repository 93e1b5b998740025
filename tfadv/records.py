"""How a prepared TFDS dataset is stored: its record files, and what a record holds."""

import dataclasses

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core import read_only_builder
from tensorflow_datasets.core.utils.shard_utils import FileInstruction

from tfadv.checks import missing_dataset
from tfadv.config import Data, UserError

_FEATURES = ("image", "attributes", "identity", "name")


class Records:
    """The records of a prepared TFDS dataset.

    Args:
        config: where the datasets are.
        name: of this one, as in `data.dataset`.

    Attributes:
        name: as given.
        info: what TFDS knows of it.
        metadata: of its builder.
        attributes: the names of the columns of `labels`.

    Raises:
        UserError: it isn't there, or can't be read.
    """

    def __init__(self, config: Data, name: str):
        self.name = name
        self.place = f"dataset {name} in {config.dir}"
        self.info = _open(config, name).info
        self.metadata = self.info.metadata or {}
        if self.info.file_format != tfds.core.FileFormat.TFRECORD:
            stored = self.info.file_format.value
            raise UserError(f"{self.place} is stored as {stored}; make it as tfrecord")
        for feature in _FEATURES:
            if feature not in self.info.features:
                raise UserError(f"{self.place} has no feature {feature}; make it with data_prep")
        self.attributes = tuple(self.metadata.get("attributes", ()))
        stored = self.info.features.tf_example_spec
        self._spec = {feature: stored[feature] for feature in _FEATURES}

    def parse(self, records: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns what serialized records hold, string [N].

        Returns:
            `image`, encoded, string [N]; `labels` uint8 [N, A]; `identity` int64 [N], -1 where it
            is not known; `name` string [N].
        """
        examples = tf.io.parse_example(records, self._spec)
        return examples | {"labels": tf.cast(examples.pop("attributes"), tf.uint8)}

    def split(self, name: str) -> "Slice":
        """Returns the records of a split.

        Raises:
            UserError: there are none.
        """
        found = self.info.splits.get(name)
        if not found or not found.num_examples:
            raise UserError(f"{self.place} has no pictures in split {name}")
        return Slice(self, name, tuple(found.file_instructions))

    def whole(self) -> "Slice":
        """Returns the records of all splits.

        Raises:
            UserError: there are none.
        """
        if not self.info.splits.total_num_examples:
            raise UserError(f"{self.place} has no pictures")
        every = "+".join(self.info.splits)
        return Slice(self, every, tuple(self.info.splits[every].file_instructions))


@dataclasses.dataclass(frozen=True)
class Slice:
    """Some of the records of a dataset.

    Attributes:
        records: the dataset.
        split: what TFDS calls them.
        files: which records of which files.
    """

    records: Records
    split: str
    files: tuple[FileInstruction, ...]

    @property
    def count(self) -> int:
        """How many records there are."""
        return sum(file.take for file in self.files)

    @property
    def bytes_each(self) -> int:
        """Bytes of a record, on average over the splits that these are of, at least 1."""
        files = {file.filename for file in self.files}
        splits = [
            split
            for split in self.records.info.splits.values()
            if not files.isdisjoint(map(str, split.filepaths))
        ]
        total = sum(split.num_bytes for split in splits)
        return max(1, total // max(1, sum(split.num_examples for split in splits)))

    def read(self) -> tf.data.Dataset:
        """Returns the serialized records in the order of TFDS's own reader."""
        names = [file.filename for file in self.files]
        bounds = np.array([(file.skip, file.take) for file in self.files], np.int64)
        # TFDS would parse them one by one.
        files = tf.data.Dataset.from_tensor_slices((names, bounds[:, 0], bounds[:, 1]))
        records = files.interleave(
            lambda name, skip, take: tf.data.TFRecordDataset(name).skip(skip).take(take),
            cycle_length=16,
            block_length=16,
        )
        # Told, and not taken for the end: a file that was cut short.
        return records.apply(tf.data.experimental.assert_cardinality(self.count))


def _open(config: Data, name: str) -> tfds.core.DatasetBuilder:
    stored = "synthetic/default" if name == "synthetic" else name
    if stored.startswith("synthetic/"):
        _draw(stored.removeprefix("synthetic/"), config.dir)
    try:
        return read_only_builder.builder_from_files(stored, data_dir=config.dir)
    except ValueError:
        raise missing_dataset(config, name) from None


def _draw(name: str, data_dir: str) -> None:
    """Makes one of the sets that need no source."""
    from data_prep import synthetic

    if name in synthetic.Synthetic.builder_configs:
        synthetic.prepare(data_dir, name)
