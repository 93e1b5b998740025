"""TFRecord splits to batches of pictures.

A batch is a dict: `images` uint8 [N, S, S, 3] RGB; `labels` uint8 [N, A], 0 or 1, and
`mixture.UNKNOWN` in pictures of further datasets; `identity` int64 [N], -1 where it is not known;
`index` int64 [N], the picture's place in its part of the split.
Models bring the pictures to [-1, 1] themselves, on their device (`normalize`).
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfadv.config.errors import UserError
from tfadv.config.schema import Data
from tfadv.config.validation import check_dataset
from tfadv.data import pipeline
from tfadv.data.corruption import damaged
from tfadv.data.images import decode_pictures
from tfadv.data.records import Records, check_apart
from tfadv.data.streams import check_batch, endless
from tfadv.training.distribution import worker, workers

PRIVATE, PUBLIC, TEST = "private", "public", "test"
TRAIN, HELD_OUT, WHOLE = "train", "held_out", "whole"

_SHUFFLE_BYTES = 512 * 2**20
_DECODED_BYTES = 64 * 2**20  # of encoded pictures that are taken from the disk for decoding
_RECORDS = 64  # at a time where their pictures aren't wanted


class Dataset:
    """A prepared TFDS dataset of pictures with 0/1 labels: one of `data_prep`, or any other.

    Who is in a picture (-1) and what it is called (its place) may be unknown. Each split can be
    read whole, or as two parts that share no identity: `train`, and `held_out` for thresholds and
    for stopping.

    All pictures of the datasets of `data.extra` come after the public ones, in the parts `whole`
    and `train`: who is held out stays a question of the dataset itself. Their labels are UNKNOWN
    but where they have an attribute of the same name, and their identities are numbered apart: that
    somebody is in two datasets can't be told, be it the test split.

    Attributes:
        attributes: the names of the columns of `labels`.
        size: S, the pixels a side of a picture.
        shares_no_identity: whether it is known that nobody is in two splits of the dataset itself.
        sizes: pictures in each split.
        extra: pictures of each further dataset, by its full name; they count as public.
        faults: damaged records, which `data.on_error=skip` left out.
    """

    def __init__(self, config: Data):
        self._config = config
        self._hashes_of: dict[str, np.ndarray] = {}
        self.size = config.size
        check_dataset(config)
        own = Records(config, config.dataset)
        others = [Records(config, name, with_labels=False) for name in config.extra]
        self.attributes = own.attributes
        for other in others:
            pipeline.check_source(own, other)
        extra = [other.whole(own.attributes) for other in others]
        slices = {
            split: own.split(getattr(config, split), split) for split in (PRIVATE, PUBLIC, TEST)
        }
        check_apart(slices)
        for each in extra:
            pipeline.check_pictures(slices[TEST], each)
        # The dataset's own records come first.
        self._slices = {split: [found] for split, found in slices.items()}
        self._slices[PUBLIC] += extra
        self.faults = [fault for records in (own, *others) for fault in records.faults]
        self.sizes = {split: sum(s.count for s in found) for split, found in self._slices.items()}
        self.extra = {each.records.info.full_name: each.count for each in extra}
        # Said only where it is known: a picture of nobody known counts as a person of its own.
        known = own.metadata.get("identities", {})
        self.shares_no_identity = own.metadata.get("scheme") == "identity" and all(
            known.get(found.split) for found in slices.values()
        )
        self.description = {
            "name": own.info.full_name,
            "splits": self.sizes,
            "extra": self.extra,
            "damaged": {
                "records": sum(fault.count for fault in self.faults),
                "left_out": [*map(str, self.faults)],
            },
            "metadata": {key: value for key, value in own.metadata.items() if key != "attributes"},
        }

    def columns(self, attributes: Sequence[str], source: str = "task.attributes") -> np.ndarray:
        """Returns the columns of `labels` that hold these attributes; all of them if none is named.

        Args:
            attributes: their names.
            source: what names them, for an error.

        Raises:
            UserError: the dataset has no such attribute.
        """
        for name in attributes:
            if name not in self.attributes:
                known = ", ".join(self.attributes) or "none at all"
                raise UserError(
                    f"{source} names {name}, which dataset {self._config.dataset} lacks; "
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
        return sum(map(np.count_nonzero, self._is_in(split, part)))

    def annotations(self, split: str, part: str = WHOLE) -> tuple[np.ndarray, np.ndarray]:
        """Returns who is in each picture of a part and its labels, in its order.

        Returns:
            int64 [N], -1 where it is not known, and uint8 [N, A], UNKNOWN where it is not known.
        """
        parse = self._parser(split, part)
        records = self._records(split, part).batch(_RECORDS).map(parse)
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
        own, *extra = self._slices[split]
        read = [own] if part == HELD_OUT else [own, *extra]
        names = [(each.records.info.full_name, each.split) for each in read]
        digest = hashlib.sha256(json.dumps([names, self.size, split, part, held_out]).encode())
        for each in read:
            if each.sound is not None:  # the rest may not even be there
                digest.update(np.concatenate(each.sound).tobytes())
                continue
            for name in dict.fromkeys(file.filename for file in each.files):
                with tf.io.gfile.GFile(name, "rb") as file:
                    while chunk := file.read(2**20):
                        digest.update(chunk)
        return digest.hexdigest()

    def batches(self, split: str, part: str, batch: int = 0) -> tf.data.Dataset:
        """Returns a part of a split once, in its order, the last batch as small as it comes.

        Without `batch`, the batches have as many pixels as 256 pictures of 64 x 64 have.
        """
        return self._pictures(
            self._records(split, part), split, part, batch or self.evaluation_batch
        )

    @property
    def evaluation_batch(self) -> int:
        """Pictures at a time where nothing is trained: fewer, the larger they are."""
        return max(1, 256 * 64**2 // self.size**2)

    def training_batches(
        self, split: str, part: str, batch: int, *, seed: int, start: int = 0
    ) -> tf.data.Dataset:
        """Returns shuffled full batches without end; of several workers, this one's share of them.

        The order depends on `seed` alone: what starts at batch `start` is what an uninterrupted run
        would have seen there. A worker reads record files of its own, where there are enough.

        Raises:
            UserError: there are fewer pictures than a batch takes.
        """
        slices, is_in, share = self._slices[split], self._is_in(split, part), batch // workers()
        of_each = [pipeline.parts_of(slices, is_in, i, workers()) for i in range(workers())]
        counts = [sum(np.count_nonzero(each.is_in) for each in parts) for parts in of_each]
        what = f"the {part} part of split {split}"
        if workers() > 1:
            what += f", shared among {workers()} workers,"
        check_batch(share, min(counts), what)  # alike in all workers
        parts, count = of_each[worker()], counts[worker()]
        stream = endless(
            pipeline.read(parts, mixed=True),
            count=count,
            skip=start * share,
            buffer=self._shuffle_buffer(split),
            seed=seed,
        )
        return self._pictures(stream, split, part, share, drop_remainder=True)

    def _shuffle_buffer(self, split: str) -> int:
        """Pictures to shuffle among: photographs of several MB each must fit the memory too."""
        return min(self._config.shuffle_buffer, self._within(_SHUFFLE_BYTES, split))

    def _within(self, limit: int, split: str) -> int:
        """How many encoded pictures of a split fit into so many bytes, at least one."""
        return 1 + limit // max(each.bytes_each for each in self._slices[split])

    def _records(self, split: str, part: str) -> tf.data.Dataset:
        """The records of a part of a split, serialized, each with its place in the part."""
        return pipeline.read(pipeline.parts_of(self._slices[split], self._is_in(split, part)))

    def _parser(self, split: str, part: str) -> pipeline.Parse:
        """What gives the features of a batch of these records, pictures still encoded."""
        return pipeline.parser(self._slices[split], self._is_in(split, part), self.attributes)

    def _is_in(self, split: str, part: str) -> list[np.ndarray]:
        """Whether each picture is in a part of a split, bool [N] for each dataset it comes from."""
        own, *extra = self._slices[split]
        others = [np.full(each.count, part != HELD_OUT) for each in extra]
        if part == WHOLE:
            return [np.ones(own.count, bool), *others]
        is_held_out = self._hashes(split) <= self._threshold(split)
        return [is_held_out if part == HELD_OUT else ~is_held_out, *others]

    def _hashes(self, split: str) -> np.ndarray:
        """The hash of who is in each of the dataset's own pictures of a split, int64 [N].

        It takes one pass over their records.
        """
        if split not in self._hashes_of:
            own = self._slices[split][0]
            records = self._records(split, WHOLE).take(own.count).batch(_RECORDS)
            hashes = records.map(lambda r: _hash(own.records.parse(r["record"]) | r))
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
        self,
        records: tf.data.Dataset,
        split: str,
        part: str,
        batch: int,
        drop_remainder: bool = False,
    ) -> tf.data.Dataset:
        """Batches as `batches` returns them."""
        at_once = min(batch, self._within(_DECODED_BYTES, split))
        parse = self._parser(split, part)

        def decode(records):
            examples = parse(records)
            return {
                "images": decode_pictures(examples["image"], self.size),
                "labels": examples["labels"],
                "identity": examples["identity"],
                "index": records["index"],
            }

        # In each call up to ten pictures are decoded at the same time.
        calls = max(2, (os.cpu_count() or 1) // 8)
        decoded = records.batch(at_once).map(decode, num_parallel_calls=calls)
        if at_once < batch:
            decoded = decoded.rebatch(batch, drop_remainder)
        return decoded.prefetch(2)


def explain(config: Data) -> None:
    """Raises a UserError if damaged records can be why reading failed; takes a pass over all."""
    if config.on_error == "stop":
        found = Dataset(dataclasses.replace(config, on_error="skip", skip_at_most=1.0))
        if found.faults:
            count = sum(found.sizes.values()) + sum(fault.count for fault in found.faults)
            raise damaged(found.faults, count, config)


def _hash(record: dict[str, tf.Tensor]) -> tf.Tensor:
    """A number for who is in a picture; for the picture itself, where that is not known."""
    person = tf.strings.as_string(record["identity"])
    place = tf.strings.join(["place ", tf.strings.as_string(record["index"])])
    name = record.get("name", place)
    name = tf.where(name == "", place, name)
    group = tf.where(record["identity"] < 0, name, person)
    return tf.strings.to_hash_bucket_fast(group, np.iinfo(np.int64).max)
