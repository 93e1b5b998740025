"""The TFDS builder that every dataset here derives from: from a source to TFRecords.

It writes shard by shard, not through TFDS's shuffle buffer (1 GB), so that the memory does not
depend on the size of the source. The order in a split is a seeded shuffle made beforehand.
"""

import abc
import collections
import dataclasses
import json
from collections.abc import Iterable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import writer

from data_prep import spec
from tfadv.config.errors import UserError
from tfadv.config.files import owner_only
from tfadv.data.labels import UNKNOWN_IDENTITY

SEED = 0
IMAGES_PER_SHARD = 2048
SKIPPED_NAMES_KEPT = 20
SKIPPED_FILE = "skipped.tsv"
THREADS = 2  # that read and check images; more threads would wait for Python's lock
IMAGES_PER_TASK = 8  # of a thread
TASKS_AHEAD = 3  # that are started before their images are written


@dataclasses.dataclass(eq=False)
class SplitConfig(tfds.core.BuilderConfig):
    """A variant of a dataset: how its images are assigned to splits.

    Attributes:
        scheme: one of `spec.SCHEMES`.
        shares: of private, public and test images; they sum to 1. `official` ignores them.
        split: name of the only split, if there is to be one; scheme and shares are then ignored.
    """

    scheme: str = "identity"
    shares: tuple[float, ...] = spec.PAPER_SHARES
    split: str = ""


class ImageBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Writes the images of a source, unmodified, with attributes, identity and name.

    Subclasses name the attributes and read the source. `info.metadata` holds `attributes` (their
    names), `scheme`, `shares`, `seed`, `source` (its digest), `identities` (the number of known
    identities in each split) and `skipped` (`count`, and the first `names`). `skipped.tsv`, in the
    folder of the records, lists all skipped images with the reason.
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "The folder of images goes to --manual_dir."
    # TFDS infers this from the module's name, which fails for `python -m data_prep.celeba`.
    pkg_dir_path: ClassVar[Path] = Path(__file__).parent
    description = "Images with attributes and identities."

    def __init__(self, *, on_error: str = "stop", **kwargs: Any):
        """Creates the builder.

        Args:
            on_error: `stop` at an image that is missing or doesn't decode, or `skip` it.
            **kwargs: as for any TFDS builder: `data_dir`, `config`, ...
        """
        self.skip = on_error == "skip"
        super().__init__(**kwargs)

    @property
    @abc.abstractmethod
    def attribute_names(self) -> tuple[str, ...]:
        """Names of the attributes, in the order of the `attributes` feature."""

    @abc.abstractmethod
    def read_source(self, folder: epath.Path | None) -> spec.Source:
        """Reads and checks the lists of a source.

        Args:
            folder: holds the source; None for a builder without `MANUAL_DOWNLOAD_INSTRUCTIONS`.

        Raises:
            UserError: the source is wrong.
        """

    def split(self, source: spec.Source) -> dict[str, np.ndarray]:
        """Returns the positions of each split's images."""
        config = self.builder_config
        if config.split:
            return {config.split: np.arange(len(source.names))}
        return spec.split_images(source, config.scheme, config.shares, SEED)

    def metadata(self) -> dict[str, Any]:
        """Returns the settings that a prepared dataset of this name must have."""
        config = self.builder_config
        unshared = config.split or config.scheme == "official"
        return {
            "attributes": list(self.attribute_names),
            "scheme": f"all in {config.split}" if config.split else config.scheme,
            "shares": None if unshared else list(config.shares),
            "seed": SEED,
        }

    def digest(self, source: spec.Source) -> str:
        """Returns a digest of the source's lists that the scheme uses."""
        return spec.digest(source, with_partition=self.builder_config.scheme == "official")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.description,
            features=spec.features(len(self.attribute_names)),
            metadata=tfds.core.MetadataDict(
                self.metadata(), identities={}, skipped={"count": 0, "names": []}
            ),
        )

    def download_and_prepare(self, **kwargs: Any) -> None:
        """Prepares the dataset as TFDS does, with files that only their owner can read."""
        with owner_only():
            super().download_and_prepare(**kwargs)

    def _download_and_prepare(
        self,
        dl_manager: tfds.download.DownloadManager,
        download_config: tfds.download.DownloadConfig | None = None,
    ) -> None:
        has_source = self.MANUAL_DOWNLOAD_INSTRUCTIONS is not None
        source = self.read_source(epath.Path(dl_manager.manual_dir) if has_source else None)
        self.info.metadata["source"] = self.digest(source)
        splits = self.split(source)
        total = sum(map(len, splits.values()))
        done, order = [], np.random.default_rng(SEED)
        with tfds.core.utils.tqdm(
            total=total,
            unit=" images",
            leave=False,
            mininterval=1,
            disable=bool(download_config and download_config.beam_runner),  # it has its own
        ) as progress:
            for split, positions in splits.items():
                progress.set_description(split)
                shuffled = order.permutation(positions)
                self._pending = {split: self._shards(split, source, shuffled, progress)}
                try:
                    # One split at a time: with Beam, TFDS 4.9.10 would run the first ones again.
                    super()._download_and_prepare(dl_manager, download_config)
                except Exception:
                    for notes in self._notes(split):
                        if notes.fault:
                            raise UserError(notes.fault) from None
                    raise
                lengths = self._gather(split)
                # With Beam, TFDS 4.9.10 has them in the order 0, 1, 10, 11, ..., 2, ...
                (info,) = self.info.splits.values()
                done.append(dataclasses.replace(info, shard_lengths=lengths))
        self.info.set_splits(tfds.core.splits.SplitDict(done))

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, list["Shard"]]:
        return self._pending

    def _shards(
        self, split: str, source: spec.Source, positions: np.ndarray, progress: Any
    ) -> list["Shard"]:
        parts = np.array_split(positions, -(-len(positions) // IMAGES_PER_SHARD))
        return [
            Shard(
                source.take(part),
                self.skip,
                self.data_path / _NOTES.format(split, f"{i:08}"),
                progress,
            )
            for i, part in enumerate(parts)
        ]

    def _example_writer(self) -> "OrderedWriter":
        return OrderedWriter(file_format=self.info.file_format)

    def _gather(self, split: str) -> list[int]:
        """Moves the notes of a split's shards to the metadata; returns the shards' lengths."""
        identities, skipped = set(), self.info.metadata["skipped"]
        lines, lengths = [], []
        for notes in self._notes(split):
            lengths.append(notes.count)
            identities.update(notes.identities)
            lines += [f"{name}\t{reason}\n" for name, reason in notes.skipped]
            skipped["count"] += len(notes.skipped)
            skipped["names"] += [name for name, _ in notes.skipped]
        del skipped["names"][SKIPPED_NAMES_KEPT:]
        self.info.metadata["identities"][split] = len(identities - {UNKNOWN_IDENTITY})
        if lines:
            listed = self.data_path / SKIPPED_FILE
            before = listed.read_text() if listed.exists() else ""
            listed.write_text(before + "".join(lines))
        for pattern in (_NOTES.format(split, "*"), "*.shard_infos.json"):  # TFDS' own with Beam
            for path in self.data_path.glob(pattern):
                path.unlink()
        return lengths

    def _notes(self, split: str) -> Iterator["Notes"]:
        for path in sorted(self.data_path.glob(_NOTES.format(split, "*"))):
            yield Notes(**json.loads(path.read_text()))


_NOTES = "{}-{}.notes.json"


@dataclasses.dataclass
class Notes:
    """The facts about a shard that was written.

    Attributes:
        count: number of examples.
        identities: each identity once.
        skipped: name of each skipped image, and the reason.
        fault: the error that stopped the shard, or empty.
    """

    count: int = 0
    identities: list[int] = dataclasses.field(default_factory=list)
    skipped: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    fault: str = ""


class OrderedWriter(writer.ExampleWriter):
    """Writes the features of each example in a fixed order, so that files are reproducible.

    Protobuf's own order differs from process to process.
    """

    def write(self, path: epath.Path, examples: Iterable[tuple[str, bytes]]) -> Any:
        """Writes one file of serialized examples."""
        from tensorflow import train  # slow to import; wrong lists are found before

        ordered = (
            (key, train.Example.FromString(example).SerializeToString(deterministic=True))
            for key, example in examples
        )
        return super().write(path, ordered)


@dataclasses.dataclass
class Shard:
    """The examples of one record file; with Beam, another process may make them.

    Attributes:
        source: the images of the shard, in order.
        skip: whether to skip broken images.
        notes: file for the `Notes`.
        progress: counts the images; not sent to another process.
    """

    source: spec.Source
    skip: bool
    notes: epath.Path
    progress: Any

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"progress": None}

    def __call__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields names and examples, then writes the notes."""
        identities, notes = set(), Notes()
        for name, example in zip(self.source.names, self._examples(), strict=True):
            if self.progress:
                self.progress.update()
            if isinstance(example, UserError):
                if not self.skip:
                    notes.fault = str(example)
                    self._leave(notes)
                    raise example
                notes.skipped.append((name, str(example)))
                continue
            identities.add(int(example["identity"]))
            notes.count += 1
            yield name, example
            example.clear()  # written by now; TFDS holds on to it until the shard is done
        notes.identities = sorted(identities)
        self._leave(notes)

    def _leave(self, notes: Notes) -> None:
        self.notes.write_text(json.dumps(dataclasses.asdict(notes)))

    def _examples(self) -> Iterator[dict[str, Any] | UserError]:
        """Yields examples in order, or their errors; reads a few images ahead."""

        def examples(few: np.ndarray) -> list[dict[str, Any] | UserError]:
            return [self._try_example(index) for index in few]

        count = len(self.source.names)
        starts = range(IMAGES_PER_TASK, count, IMAGES_PER_TASK)
        with futures.ThreadPoolExecutor(THREADS) as pool:
            pending: collections.deque[futures.Future] = collections.deque()
            for few in np.split(np.arange(count), starts):
                pending.append(pool.submit(examples, few))
                if len(pending) > TASKS_AHEAD:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()

    def _try_example(self, index: int) -> dict[str, Any] | UserError:
        try:
            return self.source.example(index)
        except UserError as error:
            return error
