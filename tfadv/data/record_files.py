"""Reads record files in the order of TFDS's own reader."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow_datasets.core.utils.shard_utils import FileInstruction

from tfadv.data.corruption import checksum

CHANGED = "has changed since the run began"
_INTERLEAVED = {"cycle_length": 16, "block_length": 16}  # as TFDS does
_AT_ONCE = 64  # records where damaged ones are left out


def read(files: Sequence[FileInstruction]) -> tf.data.Dataset:
    """Returns the serialized records of files, string; TFDS would parse them one by one.

    Reading raises `tf.errors.FailedPreconditionError` where a file has fewer than it should.
    """
    names = [file.filename for file in files]
    bounds = np.array([(file.skip, file.take) for file in files], np.int64)
    # To skip and to count takes time for every record, even to no effect.
    is_whole = all(file.take == file.examples_in_shard for file in files)

    def read_file(name, skip, take):
        records = tf.data.TFRecordDataset(name)
        records = records if is_whole else records.skip(skip).take(take)
        # Told, and not taken for the end: a file that was cut short.
        return records.apply(tf.data.experimental.assert_cardinality(take))

    each = tf.data.Dataset.from_tensor_slices((names, bounds[:, 0], bounds[:, 1]))
    return each.interleave(read_file, **_INTERLEAVED)


def read_sound(files: Sequence[FileInstruction], sound: Sequence[np.ndarray]) -> tf.data.Dataset:
    """Returns those of the serialized records that aren't damaged, string.

    From where they lie: TensorFlow gives up a file at the first damaged record.

    Args:
        files: which records are wanted.
        sound: where the sound ones of each file lie, as `corruption.examine` says. Reading raises
            an error that says CHANGED where something else lies there.
    """
    file_of = interleaved([*map(len, sound)])
    places = np.empty((len(file_of), 3), np.int64)
    for file, found in enumerate(sound):
        places[file_of == file] = found

    def read_places(files_of, places):
        found = np.empty(len(files_of), object)
        for file in np.unique(files_of):
            with tf.io.gfile.GFile(files[file].filename, "rb") as opened:
                for i in np.flatnonzero(files_of == file):
                    at, length, expected = places[i]
                    opened.seek(at)
                    found[i] = opened.read(length)
                    if checksum(found[i]) != expected:
                        raise ValueError(f"{files[file].filename} {CHANGED}")
        return found

    def read_some(files_of, places):
        records = tf.numpy_function(read_places, [files_of, places], tf.string)
        return tf.ensure_shape(records, [None])

    some = tf.data.Dataset.from_tensor_slices((file_of, places)).batch(_AT_ONCE)
    records = some.map(read_some).unbatch()
    return records.apply(tf.data.experimental.assert_cardinality(len(file_of)))


def interleaved(counts: Sequence[int]) -> np.ndarray:
    """Returns which of several files each record is of in the order of `read`, int64 [sum].

    Args:
        counts: of each file's records.
    """
    files = tf.data.Dataset.from_tensor_slices((np.arange(len(counts)), np.array(counts, np.int64)))
    records = files.interleave(
        lambda file, count: tf.data.Dataset.from_tensors(file).repeat(count), **_INTERLEAVED
    )
    return np.concatenate([*records.batch(4096).as_numpy_iterator()])
