"""A prepared TFDS dataset: opened and checked, split by split."""

import functools
import time
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core import read_only_builder
from tensorflow_datasets.core.utils.shard_utils import FileInstruction

from tfadv.config.errors import UserError
from tfadv.config.schema import Data
from tfadv.config.validation import missing_dataset
from tfadv.data.corruption import Examiner, Fault, damage_error
from tfadv.data.labels import INVALID, UNKNOWN, UNKNOWN_IDENTITY
from tfadv.data.schema import find_schema
from tfadv.data.split import Parse, Split
from tfadv.training.history import Progress


class Records:
    """The records of a prepared TFDS dataset with images.

    Args:
        data: the settings; they name the folder of the datasets and the feature of labels.
        name: of this dataset, as in `data.dataset`.
        with_labels: whether the dataset must have labels.

    Attributes:
        name: as given.
        place: the dataset's name and folder, for errors.
        info: the `DatasetInfo` of TFDS.
        metadata: as the builder wrote it.
        attributes: the names of the label columns.
        faults: records that `data.on_error=skip` left out.

    Raises:
        UserError: the dataset is missing, cannot be read, or lacks images or labels.
    """

    def __init__(self, data: Data, name: str, *, with_labels: bool = True):
        self.name = name
        self.place = f"dataset {name} in {data.dir}"
        self.faults: list[Fault] = []
        self._data = data
        self.info = _open(data, name).info
        self.metadata = self.info.metadata or {}
        if self.info.file_format != tfds.core.FileFormat.TFRECORD:
            stored = self.info.file_format.value
            raise UserError(f"{self.place} is stored as {stored}; make it as tfrecord")
        self._schema = find_schema(
            self.info.features, data.labels, self.place, with_labels=with_labels
        )
        # The builders of data_prep write these names, and labels that are 0 or 1.
        names = self.metadata.get("attributes", ())
        self.attributes = self._schema.attributes(names)
        if self._schema.is_vector and not (with_labels or names):
            self.attributes = ()  # numbered columns would be taken for those of another dataset

    def split(self, name: str, field: str) -> Split:
        """Returns the records of a split.

        Args:
            name: as TFDS names it: `train`, or a part of it, `train[:80%]`.
            field: of `data`, which holds this name.

        Raises:
            UserError: the split is empty, its labels are other than 0 and 1, or files are damaged.
                With `data.on_error=stop` this finds only what shows without reading the files; with
                skip, more damage than `data.skip_at_most`.
        """
        splits = self.info.splits
        try:
            files = tuple(splits[name].file_instructions)
        # No such split, no such part of it, no split at all, or a part of `all`.
        except (KeyError, ValueError, NotImplementedError):
            files = ()
        # TFDS takes fewer than no records for train[5:3].
        if min((file.take for file in files), default=0) < 1:
            known = ", ".join(splits) or "none"
            raise UserError(
                f"{self.place} has no images in split {name}; set data.{field} to one of those "
                f"that it has ({known}) or to a part, such as {next(iter(splits), 'train')}[:80%]"
            )
        return self._checked(name, files, self._schema.parse, self.attributes)

    def as_extra(self, attributes: Sequence[str], number: int) -> Split:
        """Returns the records of all splits, to join the public images of another dataset.

        Args:
            attributes: the label columns of the other dataset. Columns that this dataset lacks are
                UNKNOWN.
            number: of this dataset among those that join, from 1; identities get other numbers
                than in any other dataset.

        Raises:
            UserError: there are no records, or as in `split`.
        """
        if not self.info.splits.total_num_examples:
            raise UserError(f"{self.place} has no images")
        files = tuple(self.info.splits["all"].file_instructions)
        parse = functools.partial(self._parse_as_extra, attributes, number)
        return self._checked("all", files, parse, attributes)

    def _parse_as_extra(
        self, attributes: Sequence[str], number: int, records: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        examples = self._schema.parse(records)
        unknown = examples["labels"].shape[1]  # the column that is added
        labels = tf.pad(examples["labels"], [[0, 0], [0, 1]], constant_values=UNKNOWN)
        column_of = {name: column for column, name in enumerate(self.attributes)}
        columns = [column_of.get(name, unknown) for name in attributes]
        identity = examples["identity"]
        text = tf.strings.join([f"{number} ", tf.strings.as_string(identity)])
        hashed = tf.strings.to_hash_bucket_fast(text, np.iinfo(np.int64).max)
        return examples | {
            "labels": tf.gather(labels, np.array(columns, np.int64), axis=1),
            "identity": tf.where(identity < 0, np.int64(UNKNOWN_IDENTITY), hashed),
        }

    def _checked(
        self,
        name: str,
        files: tuple[FileInstruction, ...],
        parse: Parse,
        attributes: Sequence[str],
    ) -> Split:
        """Returns a split, its damaged records marked if they are to be skipped.

        Args:
            name: as TFDS names the split.
            files: which records of which files.
            parse: of the split.
            attributes: names of the label columns that are used.

        Raises:
            UserError: labels are other than 0 and 1; or there are damaged records and
                `data.on_error` is stop, or more of them than `data.skip_at_most`.
        """
        count = sum(file.take for file in files)
        split = Split(self.info, self.name, name, files, parse, np.ones(count, bool))
        skips = self._data.on_error == "skip"
        has_known_size = split.has_known_size
        if skips or not has_known_size:
            masks, faults = self._examine(files, attributes)
            lost = sum(fault.count for fault in faults)
            if faults and (not skips or lost > min(count - 1, self._data.skip_at_most * count)):
                raise damage_error(faults, count, self._data)
            # Builders other than those of data_prep may count bytes in another way.
            if not (faults or has_known_size) and self.metadata.get("attributes"):
                raise UserError(
                    f"the record files of {self.place}, split {name}, have another size than when "
                    f"they were made: files of another dataset? Make it again"
                )
            if faults:
                split = split.marked(masks)
                self.faults += faults
        if not set(self.attributes).isdisjoint(attributes):
            self._check_labels(split)
        return split

    def _examine(
        self, files: Sequence[FileInstruction], attributes: Sequence[str]
    ) -> tuple[list[np.ndarray], list[Fault]]:
        """Returns which records of each file can be used, and what is wrong with the others."""
        columns = [i for i, name in enumerate(self.attributes) if name in attributes]
        examiner = Examiner(self._schema.parse, columns, self._data.size)
        count = sum(file.take for file in files)
        progress = Progress(f"looking for damaged records of {self.name}", count, 0)
        began, looked, masks, faults = time.monotonic(), 0, [], []
        for file in files:
            mask, file_faults = examiner.examine(file)
            masks.append(mask)
            faults += file_faults
            looked += file.take
            progress.show(looked, {}, looked / (time.monotonic() - began))
        progress.close()
        return masks, faults

    def _check_labels(self, split: Split) -> None:
        """Raises a UserError unless labels are 0 or 1; reads all records if only they show it."""
        if not self._schema.are_integers or self.metadata.get("attributes"):
            return
        largest = split.records(split.indices()).map(
            lambda batch: tf.reduce_max(self._schema.parse(batch["record"])["labels"])
        )
        if max(largest.as_numpy_iterator()) == INVALID:
            raise UserError(f"{self.place} has labels other than 0 and 1 in split {split.name}")


def _open(data: Data, name: str) -> tfds.core.DatasetBuilder:
    stored = "synthetic/default" if name == "synthetic" else name
    try:
        return read_only_builder.builder_from_files(stored, data_dir=data.dir)
    except ValueError:
        raise missing_dataset(data, name) from None
