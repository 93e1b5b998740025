"""The records of a split: read in the order of TFDS's own reader, and parsed to examples."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils.shard_utils import FileInstruction

from tfadv.data.labels import INVALID

Parse = Callable[[tf.Tensor], dict[str, tf.Tensor]]

_FILES_PER_WORKER = 8  # from here on, one file more or less hardly matters
_INTERLEAVED = {"cycle_length": 16, "block_length": 16}  # as TFDS does
_PARSED_RECORDS, _PARSED_BYTES = 64, 64 * 2**20  # at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """The records of a split of a dataset, or of a part of it.

    Attributes:
        info: the `DatasetInfo` of TFDS.
        dataset: the dataset's name, as in `data.dataset`.
        name: as TFDS names the split: `train`, or a part of it, `train[:80%]`.
        files: which records of which files.
        parse: from serialized records, string [N], to `image`, `labels` and `identity`; see
            `Schema.parse`.
        is_sound: for each record in the order of reading, whether it can be used, bool [R].
        turn: (i, n): of n workers that take turns to read a record, this is worker i.
    """

    info: tfds.core.DatasetInfo
    dataset: str
    name: str
    files: tuple[FileInstruction, ...]
    parse: Parse
    is_sound: np.ndarray
    turn: tuple[int, int] = (0, 1)

    @property
    def count(self) -> int:
        """The number of records that can be used."""
        return int(np.count_nonzero(self.is_sound))

    @property
    def bytes_per_record(self) -> int:
        """The mean size of a record in bytes, at least 1, over the splits that hold the files."""
        total = sum(split.num_bytes for split in self._stored_splits)
        return max(1, total // max(1, sum(split.num_examples for split in self._stored_splits)))

    @property
    def has_known_size(self) -> bool:
        """Whether the files are as large as the metadata says; true in object storage, unasked."""
        for split in self._stored_splits:
            if any("://" in str(path) for path in split.filepaths):
                continue
            try:
                size = sum(tf.io.gfile.stat(str(path)).length for path in split.filepaths)
            except tf.errors.OpError:
                return False
            # Some versions of TFDS count the 16 bytes around a record.
            if size - split.num_bytes not in (0, 16 * split.num_examples):
                return False
        return True

    @property
    def _stored_splits(self) -> list[tfds.core.SplitInfo]:
        files = {file.filename for file in self.files}
        splits = self.info.splits.values()
        return [split for split in splits if not files.isdisjoint(map(str, split.filepaths))]

    def marked(self, masks: Sequence[np.ndarray]) -> "Split":
        """Returns the split with its damaged records marked.

        Args:
            masks: for each file, whether each of its first records can be used; the rest of the
                file is not read.
        """
        readable = [(file, mask) for file, mask in zip(self.files, masks, strict=True) if len(mask)]
        file_of = _interleaved([len(mask) for _, mask in readable])
        is_sound = np.empty(len(file_of), bool)
        for number, (_, mask) in enumerate(readable):
            is_sound[file_of == number] = mask
        files = tuple(dataclasses.replace(file, take=len(mask)) for file, mask in readable)
        return dataclasses.replace(self, files=files, is_sound=is_sound)

    def share(self, worker: int, workers: int) -> tuple["Split", np.ndarray]:
        """Returns what one of several workers reads, and its positions in the order of reading.

        Each worker reads whole files of its own where that gives workers about the same number of
        records. Otherwise all workers read all records and take turns to use one.

        Returns:
            The records, and for each its position in this split, int64.
        """
        positions = np.arange(len(self.is_sound))
        if workers == 1:
            return self, positions
        per_worker, rest = divmod(len(self.files), workers)
        if per_worker == 0 or (rest and per_worker < _FILES_PER_WORKER):
            positions = positions[worker::workers]
            own = dataclasses.replace(self, turn=(worker, workers))
        else:
            files = self.files[worker::workers]
            own = dataclasses.replace(self, files=files)
            file_of = _interleaved([file.take for file in self.files])
            own_file_of = _interleaved([file.take for file in files])
            own_positions = np.empty(len(own_file_of), np.int64)
            for number in range(len(files)):
                is_of_file = file_of == worker + workers * number
                own_positions[own_file_of == number] = positions[is_of_file]
            positions = own_positions
        return dataclasses.replace(own, is_sound=self.is_sound[positions]), positions

    def indices(self, is_in: np.ndarray | None = None, start: int = 0) -> np.ndarray:
        """Returns the index of each record among those in use, -1 for the others, int64 [R].

        Args:
            is_in: whether each record that can be used is in use, bool [`count`]; by default all.
            start: the first index.
        """
        used = np.flatnonzero(self.is_sound)
        if is_in is not None:
            used = used[is_in]
        indices = np.full(len(self.is_sound), -1, np.int64)
        indices[used] = start + np.arange(len(used))
        return indices

    def examples(self, indices: np.ndarray) -> tf.data.Dataset:
        """Returns the examples of records one by one; see `parsed`."""
        # `unbatch` divides by the number of labels, which may be 0, and ends the process.
        return self.parsed(indices).flat_map(tf.data.Dataset.from_tensor_slices)

    def parsed(self, indices: np.ndarray) -> tf.data.Dataset:
        """Returns batches of parsed examples, in the order of reading.

        Args:
            indices: of each record, -1 for one to leave out, int64 [R].

        Returns:
            `image`, encoded, string [N]; `labels` uint8 [N, A]; `identity` and `index` int64 [N].
            Reading raises InvalidArgumentError for labels other than 0, 1 and UNKNOWN.
        """

        def parse(batch):
            examples = self.parse(batch["record"])
            is_valid = tf.reduce_all(examples["labels"] != INVALID)
            check = tf.debugging.Assert(is_valid, ["labels other than 0 and 1"])
            with tf.control_dependencies([check]):
                labels = tf.identity(examples["labels"])
            return {
                "image": examples["image"],
                "labels": labels,
                "identity": examples["identity"],
                "index": batch["index"],
            }

        return self.records(indices).map(parse)

    def image_hashes(self) -> np.ndarray:
        """Returns a hash of each encoded image, int64 [`count`]; reads all records."""
        return self._hashes(lambda examples: examples["image"])

    def person_hashes(self) -> np.ndarray:
        """Returns a hash of the person in each image, int64 [`count`]; reads all records.

        Each image of an unknown person has the hash of its name, or of its index if it has none.
        """

        def person(examples):
            index = tf.strings.join(["place ", tf.strings.as_string(examples["index"])])
            name = examples.get("name", index)
            name = tf.where(name == "", index, name)
            identity = tf.strings.as_string(examples["identity"])
            return tf.where(examples["identity"] < 0, name, identity)

        return self._hashes(person)

    def _hashes(self, text_of: Callable[[dict[str, tf.Tensor]], tf.Tensor]) -> np.ndarray:
        def hash_texts(batch):
            text = text_of(self.parse(batch["record"]) | {"index": batch["index"]})
            return tf.strings.to_hash_bucket_fast(text, np.iinfo(np.int64).max)

        batches = self.records(self.indices()).map(hash_texts)
        return np.concatenate([*batches.as_numpy_iterator()])

    def records(self, indices: np.ndarray) -> tf.data.Dataset:
        """Returns batches of serialized records, `record`, and their indices, `index`.

        Args:
            indices: of each record, -1 for one to leave out, int64 [R].
        """

        def select(batch):
            is_used = batch["index"] >= 0
            return {name: tf.boolean_mask(values, is_used) for name, values in batch.items()}

        batch = min(_PARSED_RECORDS, 1 + _PARSED_BYTES // self.bytes_per_record)
        records = _read(self.files)
        if self.turn[1] > 1:
            records = records.shard(self.turn[1], self.turn[0])
        index = tf.data.Dataset.from_tensor_slices(indices)
        batches = tf.data.Dataset.zip({"record": records, "index": index}).batch(batch)
        return batches if (indices >= 0).all() else batches.map(select)


def _read(files: Sequence[FileInstruction]) -> tf.data.Dataset:
    """Returns the serialized records of files, string.

    TFDS's own reader would parse them one by one. Reading raises `FailedPreconditionError` where a
    file has fewer records than it should have.
    """
    names = [file.filename for file in files]
    bounds = np.array([(file.skip, file.take) for file in files], np.int64)
    # `skip` and `take` cost time for every record, even where they change nothing.
    is_whole = all(file.take == file.examples_in_shard for file in files)

    def read_file(name, skip, take):
        records = tf.data.TFRecordDataset(name)
        records = records if is_whole else records.skip(skip).take(take)
        return records.apply(tf.data.experimental.assert_cardinality(take))

    dataset = tf.data.Dataset.from_tensor_slices((names, bounds[:, 0], bounds[:, 1]))
    return dataset.interleave(read_file, **_INTERLEAVED)


def _interleaved(counts: Sequence[int]) -> np.ndarray:
    """Returns the file of each record in the order of `_read`, int64 [sum of counts]."""
    files = tf.data.Dataset.from_tensor_slices((np.arange(len(counts)), np.array(counts, np.int64)))
    records = files.interleave(
        lambda file, count: tf.data.Dataset.from_tensors(file).repeat(count), **_INTERLEAVED
    )
    return np.concatenate([*records.batch(4096).as_numpy_iterator()])
