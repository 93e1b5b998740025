"""A prepared dataset as batches of images.

A batch is a dict: `images` uint8 [N, S, S, 3] RGB; `labels` uint8 [N, A], 0, 1 or UNKNOWN;
`identity` int64 [N], UNKNOWN_IDENTITY for an unknown person; `index` int64 [N], the position in the
part of the split. Models convert the images to [-1, 1] on their device (`normalize`).
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfadv.config.errors import UserError
from tfadv.config.schema import Data
from tfadv.config.validation import check_dataset
from tfadv.data import overlap, pipeline
from tfadv.data.corruption import damage_error
from tfadv.data.records import Records
from tfadv.data.split import Split
from tfadv.training.distribution import worker, workers

PRIVATE, PUBLIC, TEST = "private", "public", "test"
TRAIN, HELD_OUT, WHOLE = "train", "held_out", "whole"

_SHUFFLE_BYTES = 512 * 2**20
_DECODED_BYTES = 64 * 2**20  # of encoded images that are read to be decoded


class Dataset:
    """A prepared TFDS dataset of images with 0/1 labels: one of `data_prep`, or any other.

    Each split can be read whole, or as two parts that share no identity: `train`, and `held_out`
    to choose thresholds and the best step. Identities and names may be unknown.

    The images of the datasets of `data.extra` follow the public images, in the parts `whole` and
    `train`. Their labels are UNKNOWN except for attributes of the same name. Their identities get
    other numbers, because a person who is in two datasets cannot be recognized.

    Args:
        data: the settings.

    Attributes:
        attributes: the names of the columns of `labels`.
        size: S, pixels a side of an image.
        shares_no_identity: whether the splits of `data.dataset` are known to share no identity.
        sizes: number of images in each split.
        extra: number of images of each dataset of `data.extra`, by its full name.
        faults: the damaged records that `data.on_error=skip` left out.
        description: what is recorded with a run.

    Raises:
        UserError: a dataset is missing or cannot be used, or the same image is in two splits.
    """

    def __init__(self, data: Data):
        check_dataset(data)
        self._data = data
        self._person_hashes: dict[str, np.ndarray] = {}
        self.size = data.size
        own = Records(data, data.dataset)
        others = [Records(data, name, with_labels=False) for name in data.extra]
        self.attributes = own.attributes
        for other in others:
            overlap.check_source(own, other)
        extra = [other.as_extra(own.attributes, i) for i, other in enumerate(others, start=1)]
        fields = {split: getattr(data, split) for split in (PRIVATE, PUBLIC, TEST)}
        splits = {field: own.split(name, field) for field, name in fields.items()}
        for field, split in splits.items():
            overlap.check_split(split, field)
        overlap.check_splits(splits)
        for each in extra:
            overlap.check_test_images(splits[TEST], each)
        # The records of `data.dataset` come first.
        self._sources = {split: [records] for split, records in splits.items()}
        self._sources[PUBLIC] += extra
        self.faults = [fault for records in (own, *others) for fault in records.faults]
        self.sizes = {name: sum(s.count for s in each) for name, each in self._sources.items()}
        self.extra = {each.info.full_name: each.count for each in extra}
        # Each image of an unknown person counts as a person of its own, which may be wrong.
        known = own.metadata.get("identities", {})
        self.shares_no_identity = own.metadata.get("scheme") == "identity" and all(
            known.get(split.name) for split in splits.values()
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
        """Returns the columns of `labels` for some attributes; all columns if there are no names.

        Args:
            attributes: their names.
            source: the setting that holds the names, for an error.

        Raises:
            UserError: the dataset has no such attribute.
        """
        for name in attributes:
            if name not in self.attributes:
                known = ", ".join(self.attributes) or "none at all"
                raise UserError(
                    f"{source} names {name}, which dataset {self._data.dataset} lacks; "
                    f"it has {known}"
                )
        if not self.attributes:
            raise UserError(f"dataset {self._data.dataset} has no attributes to learn")
        return np.array([self.attributes.index(name) for name in attributes or self.attributes])

    def count(self, split: str, part: str = WHOLE) -> int:
        """Returns the number of images in a part of a split.

        Raises:
            UserError: the whole split shows one person, so that it has no two parts.
        """
        return sum(int((indices >= 0).sum()) for _, indices in self._shares(split, part))

    def annotations(self, split: str, part: str = WHOLE) -> tuple[np.ndarray, np.ndarray]:
        """Returns the identities and labels of a part, in the order of `batches`.

        Returns:
            int64 [N], UNKNOWN_IDENTITY for an unknown person, and uint8 [N, A], 0, 1 or UNKNOWN.
        """
        identities, labels = [], []
        for source, indices in self._shares(split, part):
            annotations = source.parsed(indices).map(lambda e: (e["identity"], e["labels"]))
            for some_identities, some_labels in annotations.as_numpy_iterator():
                identities.append(some_identities)
                labels.append(some_labels)
        return np.concatenate(identities), np.concatenate(labels)

    def digest(self, split: str, part: str) -> str:
        """Returns a SHA-256, in hexadecimal, that identifies the images of `batches`.

        It changes with the content of the record files, and with every setting that decides which
        records are read and how.
        """
        # The share that is held out does not matter where the whole split is read.
        held_out = None if part == WHOLE else self._data.held_out
        own, *extra = self._sources[split]
        sources = [own] if part == HELD_OUT else [own, *extra]
        names = [(each.info.full_name, each.name) for each in sources]
        digest = hashlib.sha256(json.dumps([names, self.size, split, part, held_out]).encode())
        for each in sources:
            if not each.is_sound.all():
                digest.update(each.is_sound.tobytes())
            for name in dict.fromkeys(file.filename for file in each.files):
                with tf.io.gfile.GFile(name, "rb") as file:
                    while chunk := file.read(2**20):
                        digest.update(chunk)
        return digest.hexdigest()

    def batches(self, split: str, part: str, batch: int = 0) -> tf.data.Dataset:
        """Returns one epoch of a part of a split, in a fixed order; the last batch may be smaller.

        Without `batch`, a batch has as many pixels as 256 images of 64 x 64.
        """
        examples = pipeline.concatenate(self._examples(self._shares(split, part)))
        return pipeline.decoded_batches(
            examples,
            size=self.size,
            batch=batch or self.evaluation_batch,
            at_once=self._images_within(_DECODED_BYTES, split),
        )

    @property
    def evaluation_batch(self) -> int:
        """The number of images in a batch where nothing is trained; fewer for larger images."""
        return max(1, 256 * 64**2 // self.size**2)

    def training_batches(
        self, split: str, part: str, batch: int, *, seed: int, start: int = 0
    ) -> tf.data.Dataset:
        """Returns shuffled full batches without end; with several workers, this worker's share.

        The order depends on `seed` only: batch `start` is the one that an uninterrupted run reads
        there. Each worker reads record files of its own, where there are enough files.

        Args:
            split: name of the split.
            part: name of the part.
            batch: number of images in a batch, over all workers.
            seed: decides the order.
            start: number of batches to leave out at the start.

        Raises:
            UserError: there are fewer images than in a batch.
        """
        shares = [self._shares(split, part, i, workers()) for i in range(workers())]
        counts = [[int((i >= 0).sum()) for _, i in sources] for sources in shares]
        what = f"the {part} part of split {split}"
        if workers() > 1:
            what += f", shared among {workers()} workers,"
        own_batch = batch // workers()
        # On the smallest share, so that all workers raise the error.
        pipeline.check_batch(own_batch, min(map(sum, counts)), what)
        own_counts = [count for count in counts[worker()] if count]
        examples = pipeline.endless(
            pipeline.mix(self._examples(shares[worker()]), own_counts),
            count=sum(own_counts),
            skip=start * own_batch,
            # Several hundred images of several MB each must fit into memory.
            buffer=min(self._data.shuffle_buffer, self._images_within(_SHUFFLE_BYTES, split)),
            seed=seed,
        )
        return pipeline.decoded_batches(
            examples,
            size=self.size,
            batch=own_batch,
            at_once=self._images_within(_DECODED_BYTES, split),
            drop_remainder=True,
        )

    def _images_within(self, limit: int, split: str) -> int:
        """How many encoded images of a split take at most `limit` bytes, at least one."""
        return 1 + limit // max(source.bytes_per_record for source in self._sources[split])

    def _shares(
        self, split: str, part: str, worker: int = 0, workers: int = 1
    ) -> list[tuple[Split, np.ndarray]]:
        """The records of a part that a worker reads, and their indices in the part.

        Returns:
            For each dataset, its records and the index of each, -1 where it is not in the part.
        """
        is_in = [None] * len(self._sources[split])  # all
        if part != WHOLE:
            is_held_out = self._is_held_out(split)
            is_in[0] = is_held_out if part == HELD_OUT else ~is_held_out
        if part == HELD_OUT:
            is_in[1:] = [np.zeros(extra.count, bool) for extra in self._sources[split][1:]]
        shares, start = [], 0
        for source, mask in zip(self._sources[split], is_in, strict=True):
            indices = source.indices(mask, start)
            start += np.count_nonzero(indices >= 0)
            share, positions = source.share(worker, workers)
            shares.append((share, indices[positions]))
        return shares

    def _examples(self, shares: Sequence[tuple[Split, np.ndarray]]) -> list[tf.data.Dataset]:
        """The examples of each dataset that has any."""
        return [source.examples(indices) for source, indices in shares if (indices >= 0).any()]

    def _is_held_out(self, split: str) -> np.ndarray:
        """Whether each image of a split of `data.dataset` is held out, bool [N].

        The persons with the smallest hashes are held out. The first call reads all records.
        """
        if split not in self._person_hashes:
            self._person_hashes[split] = self._sources[split][0].person_hashes()
        hashes = self._person_hashes[split]
        persons = np.unique(hashes)
        if len(persons) < 2:
            raise UserError(
                f"split {split} of dataset {self._data.dataset} shows one person only: some "
                f"persons have to be held out from training"
            )
        held_out = max(1, round(self._data.held_out * len(persons)))
        return hashes <= persons[held_out - 1]


def explain(data: Data, left_out: Sequence[str] | None) -> None:
    """Raises a UserError if damaged records can be why reading failed; reads all records.

    Args:
        data: the settings of the dataset.
        left_out: the damaged records that the run left out, as in `Dataset.description`, or None if
            the run has left out none yet.
    """
    if data.on_error == "skip" and left_out is None:
        return
    dataset = Dataset(dataclasses.replace(data, on_error="skip", skip_at_most=1.0))
    if data.on_error == "skip":
        for fault in dataset.faults:
            if str(fault) not in left_out:
                raise UserError(f"{fault}; the file has changed since the run began")
    elif dataset.faults:
        count = sum(dataset.sizes.values()) + sum(fault.count for fault in dataset.faults)
        raise damage_error(dataset.faults, count, data)
