"""Records of several datasets, read as those of one.

Those of the dataset itself come first, those of further ones follow. A record's place tells which
dataset it is of, so that a batch of any records is parsed at once, dataset by dataset.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfadv.config.errors import UserError
from tfadv.data.records import Records, Slice
from tfadv.data.schema import INVALID

Parse = Callable[[dict[str, tf.Tensor]], dict[str, tf.Tensor]]

UNKNOWN = 255  # a label that nobody knows


def check_source(own: Records, other: Records) -> None:
    """Raises a UserError if a further dataset was made from the same pictures as the dataset."""
    sources = [records.metadata.get("source") for records in (own, other)]
    # TFDS's own CelebA is called otherwise, and its celeb_a_hq is of the same pictures.
    names = {
        records.info.name.replace("celeb_a", "celeba").removesuffix("_hq")
        for records in (own, other)
    }
    # Folders alone are made from sources of the user's own, which differ.
    if len(names) == 1 and (own.info.name != "folder" or len({*sources}) == 1):
        raise UserError(
            f"data.extra names {other.name}, which is made from the same source as data.dataset, "
            f"{own.name}: attackers would learn from test pictures"
        )


def check_pictures(test: Slice, other: Slice) -> None:
    """Raises a UserError if a further dataset has pictures of the test split, byte for byte."""
    shared = np.count_nonzero(np.isin(test.pictures(), other.pictures()))
    if shared:
        raise UserError(
            f"data.extra names {other.records.name}, which has {shared:,} of the {test.count:,} "
            f"pictures in split {test.split} of data.dataset, {test.records.name}: attackers would "
            f"learn from them; leave it out, or make it from other pictures"
        )


class Part(NamedTuple):
    """Records of a slice to be read.

    Attributes:
        slice: what is read.
        is_in: whether each record of it is wanted, bool [N].
        index: its place among all those that are wanted, of all slices and workers, int64 [N].
    """

    slice: Slice
    is_in: np.ndarray
    index: np.ndarray


def parts_of(
    slices: Sequence[Slice], is_in: Sequence[np.ndarray], worker: int = 0, workers: int = 1
) -> list[Part]:
    """Returns what to read of slices.

    Args:
        slices: of the dataset itself, then of further ones.
        is_in: whether each record of each slice is wanted, bool [N].
        worker: which of several this is; each gets records of its own.
        workers: how many there are.
    """
    parts, start = [], 0
    for each, wanted in zip(slices, is_in, strict=True):
        index = start + np.cumsum(wanted) - 1
        start += np.count_nonzero(wanted)
        own, places = each.share(worker, workers)
        parts.append(Part(own, wanted[places], index[places]))
    return parts


def read(parts: Sequence[Part], *, mixed: bool = False) -> tf.data.Dataset:
    """Returns records.

    Args:
        parts: of the dataset itself, then of further ones.
        mixed: whether those of further datasets are spread evenly among the others.

    Returns:
        `record`, serialized, and `index`, its place among those that are wanted.
    """
    streams, counts = [], []
    for each in parts:
        records = {
            "record": each.slice.read(),
            "is_in": tf.data.Dataset.from_tensor_slices(each.is_in),
            "index": tf.data.Dataset.from_tensor_slices(each.index),
        }
        if each.is_in.any():
            streams.append(tf.data.Dataset.zip(records).filter(lambda record: record["is_in"]))
            counts.append(np.count_nonzero(each.is_in))
    if mixed and len(streams) > 1:
        order = tf.data.Dataset.from_tensor_slices(_spread(counts))
        return tf.data.Dataset.choose_from_datasets(streams, order, stop_on_empty_dataset=False)
    return functools.reduce(tf.data.Dataset.concatenate, streams)


def _spread(counts: Sequence[int]) -> np.ndarray:
    """Which of several streams comes next, each as evenly as it can be, int64 [sum of counts]."""
    places = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    return np.repeat(np.arange(len(counts)), counts)[np.argsort(places, kind="stable")]


def parser(
    slices: Sequence[Slice], is_in: Sequence[np.ndarray], attributes: Sequence[str]
) -> Parse:
    """Returns what gives the features of a batch of what `read` returns.

    Args:
        slices: as for `read`.
        is_in: as for `read`.
        attributes: the names of the columns of labels.

    Returns:
        From a batch to `image`, encoded, string [N]; `labels` uint8 [N, A], 0, 1, or UNKNOWN where
        a further dataset has no attribute of the name; `identity` int64 [N], -1 where it is not
        known, with the people of further datasets numbered apart. It raises an
        InvalidArgumentError for other labels.
    """
    own, *others = (each.records for each in slices)
    if not others:
        return lambda records: _check_labels(own.parse(records["record"]))
    parsers = [own.parse]
    for place, other in enumerate(others, start=1):
        parsers.append(functools.partial(_parse_other, other, place, attributes))
    ends = np.cumsum([*map(np.count_nonzero, is_in)])
    return lambda records: _check_labels(_parse_mixed(parsers, ends, records))


def _check_labels(examples: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    valid = tf.reduce_all(examples["labels"] != INVALID)
    with tf.control_dependencies([tf.debugging.Assert(valid, ["labels other than 0 and 1"])]):
        return examples | {"labels": tf.identity(examples["labels"])}


def _parse_other(
    other: Records, place: int, attributes: Sequence[str], records: tf.Tensor
) -> dict[str, tf.Tensor]:
    """What records of a further dataset hold, string [N], in terms of the dataset itself."""
    examples = other.parse(records)
    # One more column, which nobody knows.
    labels = tf.pad(examples["labels"], [[0, 0], [0, 1]], constant_values=UNKNOWN)
    known = {name: column for column, name in enumerate(other.attributes)}
    columns = [known.get(name, labels.shape[1] - 1) for name in attributes]
    identity = examples["identity"]
    return {
        "image": examples["image"],
        "labels": tf.gather(labels, np.array(columns, np.int64), axis=1),
        "identity": tf.where(identity < 0, np.int64(-1), _renumber(identity, place)),
    }


def _renumber(identity: tf.Tensor, place: int) -> tf.Tensor:
    """Numbers for the people of a further dataset that no other's have: hashes of 63 bits."""
    names = tf.strings.join([f"{place} ", tf.strings.as_string(identity)])
    return tf.strings.to_hash_bucket_fast(names, np.iinfo(np.int64).max)


def _parse_mixed(
    parsers: Sequence[Callable[[tf.Tensor], dict[str, tf.Tensor]]],
    ends: np.ndarray,
    records: dict[str, tf.Tensor],
) -> dict[str, tf.Tensor]:
    """Parses a batch of records of several datasets.

    Args:
        parsers: of each dataset.
        ends: the place after the last one of each dataset, int64.
        records: `record` string [N] and `index`, its place, int64 [N].
    """
    source = tf.searchsorted(ends, records["index"], side="right")
    rows = [tf.where(source == i)[:, 0] for i in range(len(parsers))]
    parsed = [
        parse(tf.gather(records["record"], some)) for parse, some in zip(parsers, rows, strict=True)
    ]
    order = tf.argsort(tf.concat(rows, axis=0))
    return {
        name: tf.gather(tf.concat([each[name] for each in parsed], axis=0), order)
        for name in ("image", "labels", "identity")
    }
