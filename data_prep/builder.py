"""The TFDS builder that every dataset here derives from: sources in, TFRecords out.

Written shard by shard rather than through TFDS's shuffle buffer (1 GB), so that memory stays flat
whatever the size of the source; the order within a split is a seeded shuffle made beforehand.
"""

import abc
import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from data_prep import pictures, spec

SEED = 0
PICTURES_PER_SHARD = 2048
SKIPPED_NAMES_KEPT = 20
THREADS = 2  # that read and check; more of them wait for Python's lock
PICTURES_AT_A_TIME = 8  # of a thread
TASKS_AHEAD = 3  # of so many pictures, before what is written


@dataclasses.dataclass(eq=False)
class SplitConfig(tfds.core.BuilderConfig):
    """A variant of a dataset: how its pictures are dealt to the splits.

    Attributes:
        scheme: One of `spec.SCHEMES`.
        shares: Of private, public and test pictures; they sum to 1. `official` has no use for them.
        split: Name of the only split, where there is to be one; it needs no scheme and no shares.
    """

    scheme: str = "identity"
    shares: tuple[float, ...] = spec.PAPER_SHARES
    split: str = ""


class PictureBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """Writes a source's pictures, unmodified, with attributes, identity and name.

    Subclasses say what the attributes are called and how a source is read. `info.metadata` holds
    `attributes` (their names), `scheme`, `shares`, `seed`, `source` (its digest), `identities`
    (how many known ones each split has) and `skipped` (`count`, and the first `names`).
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "The folder of pictures goes to --manual_dir."
    # TFDS infers this from the module's name, which fails for `python -m data_prep.celeba`.
    pkg_dir_path: ClassVar[Path] = Path(__file__).parent
    description = "Pictures with attributes and identities."

    def __init__(self, *, on_error: str = "stop", **kwargs: Any):
        """Creates the builder.

        Args:
            on_error: What to do about a picture that doesn't decode: `stop` or `skip` it.
            **kwargs: As for any TFDS builder: `data_dir`, `config`, ...
        """
        self._skip = on_error == "skip"
        super().__init__(**kwargs)

    @property
    @abc.abstractmethod
    def attribute_names(self) -> tuple[str, ...]:
        """Names of the attributes, in the order of the `attributes` feature."""

    @abc.abstractmethod
    def read_source(self, folder: Path | None) -> spec.Source:
        """Reads and checks the lists of a source.

        Args:
            folder: Holds the source; None for a builder without `MANUAL_DOWNLOAD_INSTRUCTIONS`.

        Raises:
            DataError: If the source is at fault.
        """

    def split(self, source: spec.Source) -> dict[str, np.ndarray]:
        """Returns the positions of each split's pictures."""
        config = self.builder_config
        if config.split:
            return {config.split: np.arange(len(source.names))}
        return spec.split_pictures(source, config.scheme, config.shares, SEED)

    def metadata(self) -> dict[str, Any]:
        """Returns what is known before any picture is read; a prepared set must agree with it."""
        config = self.builder_config
        unshared = config.split or config.scheme == "official"
        return {
            "attributes": list(self.attribute_names),
            "scheme": f"all in {config.split}" if config.split else config.scheme,
            "shares": None if unshared else list(config.shares),
            "seed": SEED,
        }

    def digest(self, source: spec.Source) -> str:
        """Returns what tells this source's lists from others, as far as the scheme reads them."""
        return spec.digest(source, with_partition=self.builder_config.scheme == "official")

    def encoded_picture(self, source: spec.Source, index: int) -> bytes:
        """Returns a picture as the source has it; raises `spec.DataError` if it doesn't decode."""
        return pictures.read_picture(source.root / source.names[index])

    def example(self, source: spec.Source, index: int) -> dict[str, Any]:
        """Returns one example; raises `spec.DataError` if its picture doesn't decode.

        Several threads call it at the same time.
        """
        return {
            "image": self.encoded_picture(source, index),
            "attributes": source.attributes[index],
            "identity": source.identities[index],
            "name": source.names[index],
        }

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.description,
            features=spec.features(len(self.attribute_names)),
            metadata=tfds.core.MetadataDict(
                self.metadata(), identities={}, skipped={"count": 0, "names": []}
            ),
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, list[Callable[[], Iterator[tuple[str, dict]]]]]:
        drawn = self.MANUAL_DOWNLOAD_INSTRUCTIONS is None
        source = self.read_source(None if drawn else Path(dl_manager.manual_dir))
        self.info.metadata["source"] = self.digest(source)
        splits = self.split(source)
        progress = tfds.core.utils.tqdm(
            total=sum(map(len, splits.values())), unit=" pictures", leave=False, mininterval=1
        )
        order = np.random.default_rng(SEED)
        return {
            split: self._shards(split, source, order.permutation(positions), progress)
            for split, positions in splits.items()
        }

    def _shards(
        self, split: str, source: spec.Source, positions: np.ndarray, progress: Any
    ) -> list[Callable[[], Iterator[tuple[str, dict]]]]:
        identities: set[int] = set()
        count = -(-len(positions) // PICTURES_PER_SHARD)
        return [
            functools.partial(self._write_shard, split, source, shard, identities, progress)
            for shard in np.array_split(positions, count)
        ]

    def _write_shard(
        self,
        split: str,
        source: spec.Source,
        positions: np.ndarray,
        identities: set[int],
        progress: Any,
    ) -> Iterator[tuple[str, dict]]:
        progress.set_description(split)
        for index, example in zip(positions, self._examples(source, positions), strict=True):
            progress.update()
            if isinstance(example, spec.DataError):
                if not self._skip:
                    progress.close()
                    raise example
                self._note_skipped(source.names[index])
                continue
            identities.add(int(example["identity"]))
            yield source.names[index], example
            example.clear()  # written by now; TFDS holds on to it until the shard is done
        known = len(identities - {spec.UNKNOWN_IDENTITY})
        self.info.metadata["identities"][split] = known

    def _examples(
        self, source: spec.Source, positions: np.ndarray
    ) -> Iterator[dict[str, Any] | spec.DataError]:
        """The examples of a shard in its order, or what is wrong with them; a little ahead."""

        def examples(few: np.ndarray) -> list[dict[str, Any] | spec.DataError]:
            return [self._try_example(source, index) for index in few]

        starts = range(PICTURES_AT_A_TIME, len(positions), PICTURES_AT_A_TIME)
        with futures.ThreadPoolExecutor(THREADS) as pool:
            pending: collections.deque[futures.Future] = collections.deque()
            for few in np.split(positions, starts):
                pending.append(pool.submit(examples, few))
                if len(pending) > TASKS_AHEAD:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()

    def _try_example(self, source: spec.Source, index: int) -> dict[str, Any] | spec.DataError:
        try:
            return self.example(source, index)
        except spec.DataError as error:
            return error

    def _note_skipped(self, name: str) -> None:
        skipped = self.info.metadata["skipped"]
        skipped["count"] += 1
        if len(skipped["names"]) < SKIPPED_NAMES_KEPT:
            skipped["names"].append(name)
