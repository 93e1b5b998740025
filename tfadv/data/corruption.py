"""Which records of a dataset's files can't be used, and why.

Reading itself only fails; then this tells where. With `data.on_error=skip` it comes first.
"""

import hashlib
import struct
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow_datasets.core.utils.shard_utils import FileInstruction

from tfadv.config.errors import UserError
from tfadv.config.schema import Data
from tfadv.training.tf_errors import error_line

FaultOf = Callable[[Sequence[bytes]], list[str]]

_HEADER, _FOOTER = 12, 4  # bytes around a record: its length, and a checksum of each
_AT_ONCE = 64  # records


class Fault(NamedTuple):
    """Records of a file that can't be used.

    Attributes:
        file: its name.
        first: the place of the first of them in the file, from 0.
        count: how many there are.
        reason: what is wrong.
    """

    file: str
    first: int
    count: int
    reason: str

    def __str__(self) -> str:
        many = f"s {self.first:,} to {self.first + self.count - 1:,}"
        return f"{self.file}: record{many if self.count > 1 else f' {self.first:,}'} {self.reason}"


def damaged(faults: Sequence[Fault], count: int, config: Data) -> UserError:
    """Returns the error for damaged records among so many, with the first of them."""
    lost = sum(fault.count for fault in faults)
    way_out = ", or leave such records out with --config.data.on_error=skip in another --workdir"
    if lost == count:
        way_out = ""
    elif config.on_error == "skip":
        way_out = f", or leave out more than {config.skip_at_most:g} of a split, data.skip_at_most"
    others = f" ({lost:,} of {count:,} records are damaged)" if lost > 1 else ""
    return UserError(f"{faults[0]}{others}; make the dataset again{way_out}")


def examine(file: FileInstruction, fault_of: FaultOf) -> tuple[np.ndarray, list[Fault]]:
    """Looks at records of a file; it takes the memory that the file takes on the disk.

    Args:
        file: which records are wanted, and how many it has as the dataset says.
        fault_of: what is wrong with each of some serialized records, empty where nothing is.

    Returns:
        Where those lie that can be used, the first byte, the length and the checksum (`checksum`)
        of each, int64 [N, 3]; and the others.
    """
    try:
        with tf.io.gfile.GFile(file.filename, "rb") as opened:
            content = opened.read()
    except tf.errors.OpError as error:
        reason = error_line(error).rpartition("; ")[2]  # behind the file's name
        return _nowhere(), [_lost(file, 0, f"can't be read: {reason}")]
    places, end = _frame(content)
    if not _is_whole(file):
        sound = _with_sound_checksums(content, places)
        if len(sound) == len(places) != file.examples_in_shard and end == len(content):
            what = f"{len(places):,} records where the dataset has {file.examples_in_shard:,}"
            reason = f"can't be used: the file holds {what}, cut short or of another dataset"
            return _nowhere(), [_lost(file, 0, reason)]
        places = sound
    usable, faults = [], []
    wanted = range(file.skip, min(file.skip + file.take, len(places)))
    for start in wanted[::_AT_ONCE]:
        some = range(start, min(start + _AT_ONCE, wanted.stop))
        read = [i for i in some if places[i]]
        reasons = fault_of([content[at : at + length] for at, length in (places[i] for i in read)])
        told = dict(zip(read, reasons, strict=True))
        for i in some:
            if reason := told.get(i, "is damaged: it doesn't match its checksum"):
                faults.append(Fault(file.filename, i, 1, reason))
            else:
                at, length = places[i]
                usable.append((at, length, checksum(content[at : at + length])))
    if len(places) < file.skip + file.take:
        reason = "can't be read: the file is cut short, or the length of the first is damaged"
        faults.append(_lost(file, max(file.skip, len(places)), reason))
    return np.array(usable, np.int64).reshape(-1, 3), faults


def checksum(record: bytes) -> int:
    """Tells a record from what a changed file holds in its place, 64 bits."""
    digest = hashlib.blake2b(record, digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _nowhere() -> np.ndarray:
    return np.empty((0, 3), np.int64)


def _lost(file: FileInstruction, first: int, reason: str) -> Fault:
    """All records that are wanted of a file, from one on."""
    first = max(first, file.skip)
    return Fault(file.filename, first, file.skip + file.take - first, reason)


def _is_whole(file: FileInstruction) -> bool:
    """Whether all checksums of a file fit, and it has as many records as it should."""
    try:
        return int(_count(file.filename)) == file.examples_in_shard
    except (tf.errors.OpError, UnicodeDecodeError):
        return False


@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def _count(path: tf.Tensor) -> tf.Tensor:
    return tf.data.TFRecordDataset(path).reduce(np.int64(0), lambda count, _: count + 1)


def _frame(content: bytes) -> tuple[list[tuple[int, int]], int]:
    """The first byte and the length of each record by its header, and where the last one ends."""
    places, end = [], 0
    while (left := len(content) - end - _HEADER - _FOOTER) >= 0:
        (length,) = struct.unpack_from("<Q", content, end)
        if length > left:
            break
        places.append((end + _HEADER, length))
        end += _HEADER + length + _FOOTER
    return places, end


def _with_sound_checksums(
    content: bytes, places: list[tuple[int, int]]
) -> list[tuple[int, int] | None]:
    """The places up to a damaged length; None where a record doesn't match its checksum.

    TensorFlow offers no checksum to Python: the same records are written again and compared.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for at, length in places:
                writer.write(content[at : at + length])
        expected = path.read_bytes()
    sound = []
    for at, length in places:
        header, footer = slice(at - _HEADER, at), slice(at + length, at + length + _FOOTER)
        if content[header] != expected[header]:
            break
        sound.append((at, length) if content[footer] == expected[footer] else None)
    return sound
