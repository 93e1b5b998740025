"""Damaged records: which they are, and why they cannot be read.

Reading a damaged record raises an error of TensorFlow, which does not say where the record is.
This module then reads all records again. With `data.on_error=skip`, it reads them before the run.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow_datasets.core.utils.shard_utils import FileInstruction

from tfadv.config.errors import UserError
from tfadv.config.schema import Data
from tfadv.data.images import decode_images
from tfadv.data.labels import INVALID
from tfadv.training.tf_errors import error_line

_AT_ONCE = 64  # records


class Fault(NamedTuple):
    """Consecutive records of a file that cannot be used.

    Attributes:
        file: name of the file.
        first: position of the first of these records in the file, from 0.
        count: number of records.
        reason: what is wrong with them.
    """

    file: str
    first: int
    count: int
    reason: str

    def __str__(self) -> str:
        last = self.first + self.count - 1
        records = f"records {self.first:,} to {last:,}" if self.count > 1 else f"record {last:,}"
        return f"{self.file}: {records} {self.reason}"


def damage_error(faults: Sequence[Fault], count: int, data: Data) -> UserError:
    """Returns the error for damaged records, of which it names the first.

    Args:
        faults: the damaged records.
        count: number of all records.
        data: the settings, for the advice.
    """
    lost = sum(fault.count for fault in faults)
    advice = ", or leave such records out with --config.data.on_error=skip in another --workdir"
    if lost == count:
        advice = ""
    elif data.on_error == "skip":
        advice = f", or leave out more than {data.skip_at_most:g} of a split, data.skip_at_most"
    total = f" ({lost:,} of {count:,} records are damaged)" if lost > 1 else ""
    return UserError(f"{faults[0]}{total}; make the dataset again{advice}")


@dataclasses.dataclass
class Examiner:
    """Finds the damaged records of a dataset's files.

    Attributes:
        parse: from serialized records to `image` and `labels`, as `Schema.parse`.
        columns: the label columns that must be 0 or 1.
        size: pixels a side to which images are decoded.
    """

    parse: Callable[[tf.Tensor], dict[str, tf.Tensor]]
    columns: Sequence[int]
    size: int

    def examine(self, file: FileInstruction) -> tuple[np.ndarray, list[Fault]]:
        """Reads and decodes the wanted records of a file, which must fit into memory.

        A file has nothing that marks the start of a record. A damaged length or checksum therefore
        loses the rest of the file.

        Returns:
            Whether each record before such damage can be used, bool [N], and the faults.
        """
        records, damage = _read(file)
        wanted = records[file.skip : file.skip + file.take]
        reasons = [
            reason
            for start in range(0, len(wanted), _AT_ONCE)
            for reason in self._reasons(wanted[start : start + _AT_ONCE])
        ]
        faults = [
            Fault(file.filename, file.skip + i, 1, reason)
            for i, reason in enumerate(reasons)
            if reason
        ]
        if lost := file.take - len(wanted):
            faults.append(Fault(file.filename, file.skip + len(wanted), lost, damage))
        return np.array([not reason for reason in reasons], bool), faults

    def _reasons(self, records: Sequence[bytes]) -> list[str]:
        """What is wrong with each record; empty for a record that can be used."""
        try:
            labels = self._decode(tf.constant(records, tf.string, [len(records)])).numpy()
        # TensorFlow's message may quote the record, which need not be text.
        except (tf.errors.OpError, UnicodeDecodeError) as error:
            if len(records) > 1:
                return [reason for record in records for reason in self._reasons([record])]
            return [f"can't be used: {error_line(error)}"]
        is_wrong = (labels[:, self.columns] == INVALID).any(axis=1)
        return np.where(is_wrong, "has labels other than 0 and 1", "").tolist()

    @functools.cached_property
    def _decode(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """Decodes records as for a batch and returns their labels."""

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def decode(records):
            examples = self.parse(records)
            decode_images(examples["image"], self.size)
            return examples["labels"]

        return decode


def _read(file: FileInstruction) -> tuple[list[bytes], str]:
    """Returns the records of a file up to the first damage, and what that damage is."""
    records: list[bytes] = []
    try:
        for record in tf.data.TFRecordDataset(file.filename).as_numpy_iterator():
            records.append(record)
    except tf.errors.DataLossError:
        return records, "can't be read: the file is cut short or damaged there"
    except tf.errors.OpError as error:
        return records, f"can't be read: {error_line(error).rpartition('; ')[2]}"
    if len(records) != file.examples_in_shard:
        counts = f"{len(records):,} records where the dataset has {file.examples_in_shard:,}"
        return [], f"can't be used: the file holds {counts}, cut short or of another dataset"
    return records, ""
