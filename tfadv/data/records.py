"""How a prepared TFDS dataset is stored: its record files, and what a record holds."""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core import read_only_builder
from tensorflow_datasets.core.utils.shard_utils import FileInstruction

from tfadv.config.errors import UserError
from tfadv.config.schema import Data
from tfadv.config.validation import missing_dataset
from tfadv.data import record_files
from tfadv.data.corruption import Fault, damaged, examine
from tfadv.data.images import decode_pictures
from tfadv.data.schema import INVALID, find_layout
from tfadv.training.history import Progress
from tfadv.training.tf_errors import error_line

_MANY_FILES = 8  # for a worker: one more or less matters little then
_RECORDS = 64  # at a time where all are looked at


class Records:
    """The records of a prepared TFDS dataset that has pictures.

    Args:
        config: where the datasets are, and what the feature of labels is called.
        name: of this one, as in `data.dataset`.
        with_labels: whether there must be labels; else there may be none.

    Attributes:
        name: as given.
        info: what TFDS knows of it.
        metadata: of its builder.
        attributes: the names of the columns of `labels`.
        faults: records that `data.on_error=skip` left out.

    Raises:
        UserError: it isn't there, can't be read, or lacks pictures or labels.
    """

    def __init__(self, config: Data, name: str, *, with_labels: bool = True):
        self.name = name
        self.faults: list[Fault] = []
        self._config = config
        self.place = f"dataset {name} in {config.dir}"
        self.info = _open(config, name).info
        self.metadata = self.info.metadata or {}
        if self.info.file_format != tfds.core.FileFormat.TFRECORD:
            stored = self.info.file_format.value
            raise UserError(f"{self.place} is stored as {stored}; make it as tfrecord")
        self._layout = find_layout(
            self.info.features, config.labels, self.place, with_labels=with_labels
        )
        known = self.metadata.get("attributes", ())
        self.attributes = self._layout.attributes(known)
        if self._layout.is_vector and not (with_labels or known):
            self.attributes = ()  # numbered, they would be taken for any other dataset's

    def parse(self, records: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns what serialized records hold, string [N].

        Returns:
            `image`, encoded, string [N]; `labels` uint8 [N, A], `layout.INVALID` where they are
            other than 0 and 1; `identity` int64 [N], -1 where it is not known; `name` string [N],
            if there are names.
        """
        return self._layout.parse(records)

    def split(self, name: str, field: str) -> "Slice":
        """Returns the records of a split.

        Args:
            name: what TFDS calls it: `train`, or a part of it, `train[:80%]`.
            field: of the config, which says so.

        Raises:
            UserError: there are none, some twice, their labels are other than 0 and 1, or files
                are damaged: all of what `data.on_error=stop` finds without reading them, more than
                `data.skip_at_most` with skip.
        """
        splits = self.info.splits
        try:
            found = Slice(self, name, tuple(splits[name].file_instructions))
        # No such split, no such part of it, no split at all, or a part of `all`.
        except (KeyError, ValueError, NotImplementedError):
            found = Slice(self, name, ())
        # TFDS takes fewer than none for train[5:3].
        if min((file.take for file in found.files), default=0) < 1:
            known = ", ".join(splits) or "none"
            raise UserError(
                f"{self.place} has no pictures in split {name}; set data.{field} to one of those "
                f"that it has ({known}) or to a part, such as {next(iter(splits), 'train')}[:80%]"
            )
        if any(itertools.starmap(_overlap, itertools.combinations(found.files, 2))):
            raise UserError(f"data.{field}, {name}, has pictures of {self.place} twice")
        found = self._usable(found, self.attributes)
        self._check_labels(found)
        return found

    def whole(self, attributes: Sequence[str]) -> "Slice":
        """Returns the records of all splits.

        Args:
            attributes: names of those whose labels matter, if this dataset has any of them.

        Raises:
            UserError: there are none, their labels matter and are other than 0 and 1, or files are
                damaged, as in `split`.
        """
        if not self.info.splits.total_num_examples:
            raise UserError(f"{self.place} has no pictures")
        found = Slice(self, "all", tuple(self.info.splits["all"].file_instructions))
        found = self._usable(found, attributes)
        if not set(self.attributes).isdisjoint(attributes):
            self._check_labels(found)
        return found

    def _usable(self, found: "Slice", attributes: Sequence[str]) -> "Slice":
        """Returns a slice without damaged records, if those are to be skipped.

        Args:
            found: which records are wanted.
            attributes: names of those whose labels matter.

        Raises:
            UserError: there are damaged ones and that shall stop it, or there are too many.
        """
        skips = self._config.on_error == "skip"
        has_known_size = found.has_known_size
        if has_known_size and not skips:
            return found
        columns = [i for i, name in enumerate(self.attributes) if name in attributes]
        progress = Progress(f"looking for damaged records of {self.name}", found.count, 0)
        began, looked, sound, faults = time.monotonic(), 0, [], []
        for file in found.files:
            places, some = examine(file, functools.partial(self._faults_of, columns))
            sound.append(places)
            faults += some
            looked += file.take
            progress.show(looked, {}, looked / (time.monotonic() - began))
        progress.close()
        if not faults:
            # Others than data_prep may count otherwise.
            if not has_known_size and self.metadata.get("attributes"):
                raise UserError(
                    f"the record files of {self.place}, split {found.split}, have another size "
                    f"than when they were made: files of another dataset? Make it again"
                )
            return found
        lost = sum(fault.count for fault in faults)
        if not skips or lost > min(found.count - 1, self._config.skip_at_most * found.count):
            raise damaged(faults, found.count, self._config)
        self.faults += faults
        return dataclasses.replace(found, sound=tuple(sound))

    def _faults_of(self, columns: Sequence[int], records: Sequence[bytes]) -> list[str]:
        """What is wrong with each of some records; only those columns of labels matter."""
        try:
            labels = self._decode(tf.constant(records, tf.string, [len(records)])).numpy()
        except (tf.errors.OpError, UnicodeDecodeError) as error:
            if len(records) > 1:
                return [reason for each in records for reason in self._faults_of(columns, [each])]
            return [f"can't be used: {error_line(error)}"]
        is_wrong = (labels[:, columns] == INVALID).any(axis=1)
        return np.where(is_wrong, "has labels other than 0 and 1", "").tolist()

    @functools.cached_property
    def _decode(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """Reads all of some records as a batch is read; returns their labels."""

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def decode(records):
            found = self.parse(records)
            decode_pictures(found["image"], self._config.size)
            return found["labels"]

        return decode

    def _check_labels(self, found: "Slice") -> None:
        """Raises a UserError unless labels are 0 or 1; takes a pass where only records tell."""
        # Those of data_prep, which knows their names, are.
        if not (self._layout.are_numbers and self.attributes) or self.metadata.get("attributes"):
            return
        largest = found.read().batch(_RECORDS).map(lambda r: tf.reduce_max(self.parse(r)["labels"]))
        if max(largest.as_numpy_iterator()) == INVALID:
            raise UserError(f"{self.place} has labels other than 0 and 1 in split {found.split}")


@dataclasses.dataclass(frozen=True)
class Slice:
    """Some of the records of a dataset.

    Attributes:
        records: the dataset.
        split: what TFDS calls them.
        files: which records of which files.
        turn: (i, n), of n workers who take turns to take one of these this is i.
        sound: where the usable records of each file lie, if some are damaged: see `corruption`.
    """

    records: Records
    split: str
    files: tuple[FileInstruction, ...]
    turn: tuple[int, int] = (0, 1)
    sound: tuple[np.ndarray, ...] | None = None

    @property
    def count(self) -> int:
        """How many records there are."""
        return sum(self._counts)

    @property
    def _counts(self) -> list[int]:
        """How many there are in each file."""
        return [file.take for file in self.files] if self.sound is None else [*map(len, self.sound)]

    @property
    def _splits(self) -> list[tfds.core.SplitInfo]:
        """The splits that these are of."""
        files = {file.filename for file in self.files}
        splits = self.records.info.splits.values()
        return [each for each in splits if not files.isdisjoint(map(str, each.filepaths))]

    @property
    def bytes_each(self) -> int:
        """Bytes of a record, on average over the splits that these are of, at least 1."""
        total = sum(split.num_bytes for split in self._splits)
        return max(1, total // max(1, sum(split.num_examples for split in self._splits)))

    @property
    def has_known_size(self) -> bool:
        """Whether the files are as large as the dataset says; not asked of object storage."""
        for split in self._splits:
            if any("://" in str(path) for path in split.filepaths):
                continue
            try:
                size = sum(tf.io.gfile.stat(str(path)).length for path in split.filepaths)
            except tf.errors.OpError:
                return False
            # TFDS has counted the 16 bytes around a record, or not.
            if size - split.num_bytes not in (0, 16 * split.num_examples):
                return False
        return True

    def pictures(self) -> np.ndarray:
        """Returns what tells each encoded picture from others, int64 [N]; it takes a pass."""

        def hashes(records):
            images = self.records.parse(records)["image"]
            return tf.strings.to_hash_bucket_fast(images, np.iinfo(np.int64).max)

        return np.concatenate([*self.read().batch(_RECORDS).map(hashes).as_numpy_iterator()])

    def share(self, worker: int, workers: int) -> tuple["Slice", np.ndarray]:
        """Returns what one of several workers reads, and where in the order of `read` it lies.

        Whole files, each of one worker, where that gives workers about as many; else all of them
        read all records, and take turns.

        Returns:
            The records, and their places in this slice, int64.
        """
        places = np.arange(self.count)
        if workers == 1:
            return self, places
        each, left = divmod(len(self.files), workers)
        if each == 0 or (left and each < _MANY_FILES):
            return dataclasses.replace(self, turn=(worker, workers)), places[worker::workers]
        file_of = record_files.interleaved(self._counts)
        sound = self.sound and self.sound[worker::workers]
        own = dataclasses.replace(self, files=self.files[worker::workers], sound=sound)
        own_file_of = worker + workers * record_files.interleaved(own._counts)
        found = np.empty(own.count, np.int64)
        for file in range(worker, len(self.files), workers):
            found[own_file_of == file] = places[file_of == file]
        return own, found

    def read(self) -> tf.data.Dataset:
        """Returns the serialized records in the order of TFDS's own reader."""
        if self.sound is None:
            records = record_files.read(self.files)
        else:
            records = record_files.read_sound(self.files, self.sound)
        return records.shard(self.turn[1], self.turn[0]) if self.turn[1] > 1 else records


def check_apart(slices: dict[str, Slice]) -> None:
    """Raises a UserError if two splits, by the config field that names them, share a record."""
    for (field, one), (other_field, other) in itertools.combinations(slices.items(), 2):
        if any(map(_overlap, *zip(*itertools.product(one.files, other.files), strict=True))):
            raise UserError(
                f"data.{field}, {one.split}, and data.{other_field}, {other.split}, share pictures "
                f"of {one.records.place}: name splits or parts that share none"
            )


def _overlap(one: FileInstruction, other: FileInstruction) -> bool:
    starts, ends = (one.skip, other.skip), (one.skip + one.take, other.skip + other.take)
    return one.filename == other.filename and max(starts) < min(ends)


def _open(config: Data, name: str) -> tfds.core.DatasetBuilder:
    stored = "synthetic/default" if name == "synthetic" else name
    try:
        return read_only_builder.builder_from_files(stored, data_dir=config.dir)
    except ValueError:
        raise missing_dataset(config, name) from None
