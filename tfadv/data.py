"""TFRecord splits to batches of pictures.

A batch is a dict: `images` uint8 [N, S, S, 3] RGB; `labels` uint8 [N, A], 0 or 1; `identity` int64
[N], -1 where it is not known; `index` int64 [N], the picture's place in its part of the split.
Models bring the pictures to [-1, 1] themselves, on their device (`normalise`).
"""

import hashlib
import json
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core import read_only_builder

from tfadv.checks import check_dataset, missing_dataset
from tfadv.config import Data, UserError
from tfadv.pictures import decode_pictures

PRIVATE, PUBLIC, TEST = "private", "public", "test"
TRAIN, HELD_OUT, WHOLE = "train", "held_out", "whole"

_SHUFFLE_BYTES = 512 * 2**20
_DECODED_BYTES = 64 * 2**20  # of encoded pictures that are taken from the disk for decoding
_RECORDS = 64  # at a time where their pictures aren't wanted


def normalise(images: tf.Tensor) -> tf.Tensor:
    """Returns uint8 pictures as float32 in [-1, 1]."""
    return tf.cast(images, tf.float32) / 127.5 - 1.0


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Returns pictures in [-1, 1] as uint8, rounded."""
    return np.rint((np.clip(images, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)


class Dataset:
    """A prepared TFDS dataset with the features of `data_prep.spec`.

    Each split can be read whole, or as two parts that share no identity: `train`, and `held_out`
    for thresholds and for stopping.

    Attributes:
        attributes: the names of the columns of `labels`.
        size: S, the pixels a side of a picture.
        shares_no_identity: whether it is known that nobody is in two splits.
        sizes: pictures in each split.
    """

    def __init__(self, config: Data):
        self._config = config
        self._hashes_of: dict[str, np.ndarray] = {}
        self.size = config.size
        self._builder = _open(config)
        for feature in _FEATURES:
            if feature not in self._builder.info.features:
                raise UserError(
                    f"dataset {config.dataset} in {config.dir} has no feature {feature}; make it "
                    f"with data_prep"
                )
        stored = self._builder.info.file_format
        if stored != tfds.core.FileFormat.TFRECORD:
            raise UserError(
                f"dataset {config.dataset} in {config.dir} is stored as {stored.value}; make it "
                f"as tfrecord"
            )
        metadata = self._builder.info.metadata or {}
        self.attributes = tuple(metadata.get("attributes", ()))
        self.sizes = {name: info.num_examples for name, info in self._builder.info.splits.items()}
        # Said only where it is known: a picture of nobody known counts as a person of its own.
        known = metadata.get("identities", {})
        self.shares_no_identity = metadata.get("scheme") == "identity" and all(
            known.get(split) for split in self.sizes
        )
        self.description = {
            "name": self._builder.info.full_name,
            "splits": self.sizes,
            "metadata": {key: value for key, value in metadata.items() if key != "attributes"},
        }
        for split in (PRIVATE, PUBLIC, TEST):
            if not self.sizes.get(split):
                raise UserError(
                    f"dataset {config.dataset} in {config.dir} has no pictures in split {split}"
                )

    def columns(self, attributes: Sequence[str]) -> np.ndarray:
        """Returns the columns of `labels` that hold these attributes; all of them if none is named.

        Raises:
            UserError: the dataset has no such attribute.
        """
        for name in attributes:
            if name not in self.attributes:
                known = ", ".join(self.attributes) or "none at all"
                raise UserError(
                    f"task.attributes names {name}, which dataset {self._config.dataset} lacks; "
                    f"it has {known}"
                )
        if not self.attributes:
            raise UserError(f"dataset {self._config.dataset} has no attributes to learn")
        return np.array([self.attributes.index(name) for name in attributes or self.attributes])

    def count(self, split: str, part: str = WHOLE) -> int:
        """Returns how many pictures a part of a split has.

        Raises:
            UserError: everybody in the split is the same person, so that it has no two parts.
        """
        return int(np.sum(self._is_in(split, part)))

    def annotations(self, split: str, part: str = WHOLE) -> tuple[np.ndarray, np.ndarray]:
        """Returns who is in each picture of a part and its labels, in its order.

        Returns:
            int64 [N], -1 where it is not known, and uint8 [N, A].
        """
        records = self._records(split, part).batch(_RECORDS).map(self._parse)
        batches = records.map(lambda r: (r["identity"], r["labels"]))
        identities, labels = zip(*batches.as_numpy_iterator(), strict=True)
        return np.concatenate(identities), np.concatenate(labels)

    def digest(self, split: str, part: str) -> str:
        """Returns what tells the pictures of `batches` from any others, a SHA-256 in hexadecimal.

        It changes with the content of the split's record files and with whatever decides which of
        them are read, and how.
        """
        # The share that is held out doesn't matter where the whole split is read.
        held_out = None if part == WHOLE else self._config.held_out
        facts = [self._builder.info.full_name, self.size, split, part, held_out]
        digest = hashlib.sha256(json.dumps(facts).encode())
        for path in self._builder.info.splits[split].filepaths:
            with path.open("rb") as file:
                while chunk := file.read(2**20):
                    digest.update(chunk)
        return digest.hexdigest()

    def batches(self, split: str, part: str, batch: int = 0) -> tf.data.Dataset:
        """Returns a part of a split once, in its order, the last batch as small as it comes.

        Without `batch`, the batches have as many pixels as 256 pictures of 64 x 64 have.
        """
        records = self._records(split, part)
        return self._pictures(records, split, batch or self.evaluation_batch)

    @property
    def evaluation_batch(self) -> int:
        """Pictures at a time where nothing is trained: fewer, the larger they are."""
        return max(1, 256 * 64**2 // self.size**2)

    def training_batches(
        self, split: str, part: str, batch: int, *, seed: int, start: int = 0
    ) -> tf.data.Dataset:
        """Returns shuffled full batches without end.

        The order depends on `seed` alone: what starts at batch `start` is what an uninterrupted run
        would have seen there.

        Raises:
            UserError: there are fewer pictures than a batch takes.
        """
        count = self.count(split, part)
        _check_batch(batch, count, f"the {part} part of split {split}")
        stream = _endless(
            self._records(split, part),
            count=count,
            skip=start * batch,
            buffer=self._shuffle_buffer(split),
            seed=seed,
        )
        return self._pictures(stream, split, batch, drop_remainder=True)

    def _shuffle_buffer(self, split: str) -> int:
        """Pictures to shuffle among: photographs of several MB each must fit the memory too."""
        return min(self._config.shuffle_buffer, self._within(_SHUFFLE_BYTES, split))

    def _within(self, limit: int, split: str) -> int:
        """How many encoded pictures of a split fit into so many bytes, at least one."""
        info = self._builder.info.splits[split]
        return 1 + limit * info.num_examples // max(1, info.num_bytes)

    def _records(self, split: str, part: str) -> tf.data.Dataset:
        """The records of a part of a split, serialized, each with its place in the part."""
        is_in = self._is_in(split, part)
        files = [str(path) for path in self._builder.info.splits[split].filepaths]
        records = {
            # In the order of TFDS's own reader, which would parse them one by one.
            "record": tf.data.Dataset.from_tensor_slices(files).interleave(
                tf.data.TFRecordDataset, cycle_length=16, block_length=16
            ),
            "is_in": tf.data.Dataset.from_tensor_slices(is_in),
            "index": tf.data.Dataset.from_tensor_slices(np.cumsum(is_in) - 1),
        }
        whole = tf.data.Dataset.zip(records)
        # Told, and not taken for the end: a file that was cut short.
        whole = whole.apply(tf.data.experimental.assert_cardinality(len(is_in)))
        return whole.filter(lambda record: record["is_in"])

    def _is_in(self, split: str, part: str) -> np.ndarray:
        """Whether each picture of a split is in a part of it, bool [N]."""
        if part == WHOLE:
            return np.ones(self.sizes[split], bool)
        is_held_out = self._hashes(split) <= self._threshold(split)
        return is_held_out if part == HELD_OUT else ~is_held_out

    def _hashes(self, split: str) -> np.ndarray:
        """The hash of who is in each picture of a split, int64 [N]; one pass over its records."""
        if split not in self._hashes_of:
            hashes = self._records(split, WHOLE).batch(_RECORDS).map(self._parse).map(_hash)
            self._hashes_of[split] = np.concatenate(list(hashes.as_numpy_iterator()))
        return self._hashes_of[split]

    def _threshold(self, split: str) -> int:
        """The largest hash that is held out: a share of the people, drawn by their hashes."""
        people = np.unique(self._hashes(split))
        if len(people) < 2:
            raise UserError(
                f"split {split} of dataset {self._config.dataset} shows one person only: some "
                f"people have to be held out from training"
            )
        return int(people[max(1, round(self._config.held_out * len(people))) - 1])

    def _pictures(
        self, records: tf.data.Dataset, split: str, batch: int, drop_remainder: bool = False
    ) -> tf.data.Dataset:
        """Batches as `batches` returns them."""
        at_once = min(batch, self._within(_DECODED_BYTES, split))

        def decode(records):
            examples = self._parse(records)
            return {
                "images": decode_pictures(examples["image"], self.size),
                "labels": examples["labels"],
                "identity": examples["identity"],
                "index": examples["index"],
            }

        # In each call up to ten pictures are decoded at the same time.
        calls = max(2, (os.cpu_count() or 1) // 8)
        decoded = records.batch(at_once).map(decode, num_parallel_calls=calls)
        if at_once < batch:
            decoded = decoded.rebatch(batch, drop_remainder)
        return decoded.prefetch(2)

    def _parse(self, records: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The features of a batch of records, pictures still encoded."""
        stored = self._builder.info.features.tf_example_spec
        features = {name: stored[name] for name in _FEATURES}
        examples = tf.io.parse_example(records["record"], features)
        labels = tf.cast(examples.pop("attributes"), tf.uint8)
        return examples | {"labels": labels, "index": records["index"]}


def _hash(record: dict[str, tf.Tensor]) -> tf.Tensor:
    """A number for who is in a picture; for the picture itself, where that is not known."""
    person = tf.strings.as_string(record["identity"])
    group = tf.where(record["identity"] < 0, record["name"], person)
    return tf.strings.to_hash_bucket_fast(group, np.iinfo(np.int64).max)


def _endless(
    examples: tf.data.Dataset, *, count: int, skip: int, buffer: int, seed: int
) -> tf.data.Dataset:
    """Epoch after epoch, each in an order of its own, from example `skip` on."""
    first, offset = divmod(skip, count)

    def epoch(number):
        # In this function's graph alone, so that the order doesn't depend on the global seed. With
        # a seed of 0 TensorFlow compares the other seed, a tensor here, as if it were a number.
        tf.random.set_seed(seed + 1)
        shuffled = examples.shuffle(buffer, seed=number, reshuffle_each_iteration=False)
        return shuffled.skip(tf.where(number == first, np.int64(offset), np.int64(0)))

    return tf.data.Dataset.range(first, np.iinfo(np.int64).max).flat_map(epoch)


def in_memory_batches(
    arrays: dict[str, np.ndarray], batch: int, *, seed: int, start: int = 0
) -> tf.data.Dataset:
    """Returns shuffled full batches of rows of arrays, as `Dataset.training_batches` does.

    Raises:
        UserError: there are fewer rows than a batch takes.
    """
    count = len(next(iter(arrays.values())))
    _check_batch(batch, count, "the part to train on")
    rows = _endless(
        tf.data.Dataset.range(count),
        count=count,
        skip=start * batch,
        buffer=count,
        seed=seed,
    )
    names = list(arrays)

    def gather(indices):
        return tuple(arrays[name][indices] for name in names)

    def lookup(indices):
        # NumPy holds the arrays once; a tensor of them inside the graph would be a second copy.
        values = tf.numpy_function(gather, [indices], [arrays[name].dtype for name in names])
        for name, value in zip(names, values, strict=True):
            value.set_shape((batch, *arrays[name].shape[1:]))
        return dict(zip(names, values, strict=True))

    return rows.batch(batch, drop_remainder=True).map(lookup, num_parallel_calls=2).prefetch(2)


def _check_batch(batch: int, count: int, what: str) -> None:
    if batch > count:
        raise UserError(
            f"{what} has {count} pictures, fewer than a batch of {batch}: lower train.batch "
            f"(in protect mode a batch of public pictures is train.decoder_steps times as large)"
        )


def _open(config: Data) -> tfds.core.DatasetBuilder:
    name = "synthetic/default" if config.dataset == "synthetic" else config.dataset
    check_dataset(config)
    if name.startswith("synthetic/"):
        _draw(name.removeprefix("synthetic/"), config.dir)
    try:
        return read_only_builder.builder_from_files(name, data_dir=config.dir)
    except ValueError:
        raise missing_dataset(config) from None


def _draw(name: str, data_dir: str) -> None:
    """Makes one of the sets that need no source."""
    from data_prep import synthetic

    if name in synthetic.Synthetic.builder_configs:
        synthetic.prepare(data_dir, name)


_FEATURES = ("image", "attributes", "identity", "name")
