"""Images of MS-Celeb-1M, sampled by seed, as TFRecords: more public data for an attacker.

    python -m data_prep.ms_celeb_1m --source=PATH --data_dir=data [--pictures=10000] [--seed=0]

PATH is one of these files, or the folder that holds it:

    FaceImageCroppedWithAlignment.tsv    the release's own aligned faces (Guo et al., ECCV 2016)
    train.rec, with train.idx beside it  InsightFace's packing of them, 112x112, such as faces_emore

The dataset is `ms_celeb_1m/n10000_seed0`. Its only split is `extra`; it has no attributes. Each
sample numbers identities anew. A sample is part of any larger one of the same seed. The TSV has
90 GB, which are read once, even to find that a set is prepared already.
`tfds build data_prep/ms_celeb_1m.py --manual_dir=DIR` builds the set above; see `data_prep.celeba`
for what `tfds build` needs.
"""

import dataclasses
import hashlib
import heapq
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from absl import flags
from etils import epath

from data_prep import builder, command, packings, spec
from tfadv.config.errors import UserError
from tfadv.data.labels import UNKNOWN_IDENTITY

PACKINGS = {
    "FaceImageCroppedWithAlignment.tsv": packings.TsvFile,
    "train.rec": packings.RecordFile,
}
PACKING_OF_SUFFIX = {PurePosixPath(name).suffix: packing for name, packing in PACKINGS.items()}
IMAGES = 10_000  # Table 1, rows 5 to 8


@dataclasses.dataclass(eq=False)
class SampleConfig(builder.SplitConfig):
    """Which images are sampled.

    Attributes:
        split: name of the only split.
        pictures: how many.
        seed: of the sample; the order of writing has its own.
    """

    split: str = "extra"
    pictures: int = IMAGES
    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampledSource(spec.Source):
    """Images sampled from a file; `root` is the file's folder, and `names` are not paths.

    Attributes:
        file: holds the images.
        places: of each image in it.
    """

    file: packings.PackedFile
    places: list[packings.Place]

    def image(self, index: int) -> bytes:
        """Returns an image as the file has it; raises `UserError` if it doesn't decode."""
        return self.file.image(self.places[index])


class MsCeleb1m(builder.ImageBuilder):
    """Faces of MS-Celeb-1M (Guo et al., ECCV 2016), in one split and without attributes."""

    name = "ms_celeb_1m"
    BUILDER_CONFIGS = [SampleConfig(name=f"n{IMAGES}_seed0")]  # noqa: RUF012
    MANUAL_DOWNLOAD_INSTRUCTIONS = __doc__
    description = "Faces of MS-Celeb-1M, sampled by seed."
    attribute_names = ()

    def __init__(self, *, file_name: str = "", **kwargs: Any):
        """Creates the builder.

        Args:
            file_name: the file in the source folder; by default one of the usual two.
            **kwargs: as for any `ImageBuilder`.
        """
        self._file_name = file_name
        self._sampled: SampledSource | None = None
        super().__init__(**kwargs)

    def read_source(self, folder: epath.Path) -> SampledSource:
        """Samples the images, once: `data_prep.command` and TFDS both call it."""
        if self._sampled is None:
            config = self.builder_config
            file = find_file(folder / self._file_name)
            self._sampled = sample(file, config.pictures, config.seed, skip=self.skip)
        return self._sampled


def find_file(source: epath.Path) -> packings.PackedFile:
    """Returns the file of images that is at a path, or in the folder there.

    Raises:
        UserError: there is no such path, none of the packings, or both.
    """
    names = " or ".join(PACKINGS)
    if not source.exists():
        raise UserError(f"--source={source}: no such file or folder")
    if source.is_dir():
        found = [source / name for name in PACKINGS if (source / name).is_file()]
        if len(found) != 1:
            says = "holds both: say which" if found else f"holds no {names}"
            raise UserError(f"--source={source}: the folder {says}")
        (source,) = found
    if source.suffix not in PACKING_OF_SUFFIX:
        raise UserError(f"--source={source}: give {names}, or the folder that holds it")
    return PACKING_OF_SUFFIX[source.suffix](source)


def sample(
    file: packings.PackedFile, count: int, seed: int, *, skip: bool = False
) -> SampledSource:
    """Samples images from a file in one pass, in constant memory.

    It takes the images whose keys have the smallest hashes. The hash includes the seed, and the
    order of the file does not matter.

    With `skip`, a damaged line or record is sampled like any other. Its identity is unknown and its
    name is its number, such as `record 7`. Reading its image then raises a UserError, as for an
    image that doesn't decode. No other image replaces it.

    Args:
        file: holds the images.
        count: how many to sample.
        seed: of the sample.
        skip: whether lines and records may be damaged.

    Returns:
        The images in the order of the file, with no attributes; people are numbered from 0.

    Raises:
        UserError: the file is wrong or holds fewer images.
    """

    def hashed(place: packings.Place) -> tuple[bytes, packings.Place]:
        return hashlib.blake2b(b"%d\t%b" % (seed, place.key), digest_size=8).digest(), place

    sampled = heapq.nsmallest(count, map(hashed, file.places(skip=skip)))
    if len(sampled) < count:
        raise UserError(f"{file.path} holds {len(sampled):,} images, fewer than --pictures={count}")
    places = sorted(place for _, place in sampled)
    people, names = [], []
    for place in places:
        try:
            person, name = file.person_and_name(place)
        except UserError:
            if not skip:
                raise
            person, name = None, f"{file.unit} {place.number}"
        people.append(person)
        names.append(name)
    known = [i for i, person in enumerate(people) if person is not None]
    identities = np.full(count, UNKNOWN_IDENTITY, np.int64)
    _, identities[known] = np.unique([people[i] for i in known], return_inverse=True)
    return SampledSource(
        root=file.path.parent,
        names=tuple(names),
        attributes=np.zeros((count, 0), np.uint8),
        identities=identities,
        file=file,
        places=places,
    )


def define_flags() -> flags.FlagValues:
    """Returns the flags of this command."""
    source = " or ".join(PACKINGS)
    values = command.common_flags(source=f"{source}, or the folder that holds it", shares=False)
    for name, default, text, low in (
        ("pictures", IMAGES, "how many images are sampled", 1),
        ("seed", 0, "of the sample", 0),
    ):
        flags.DEFINE_integer(name, default, text, lower_bound=low, flag_values=values)
    return values


def main(values: flags.FlagValues) -> None:
    """Prepares the sample that the flags ask for."""
    if not values.source:
        raise UserError(f"--source=PATH is missing: {values['source'].help}")
    path = find_file(epath.Path(values.source).expanduser()).path
    command.prepare(
        MsCeleb1m(
            file_name=path.name,
            config=_config(values),
            data_dir=values.data_dir,
            on_error=values.on_error,
        ),
        path.parent,
        command.beam_options(values),
    )


def _config(values: flags.FlagValues) -> SampleConfig:
    """Returns the registered config of these numbers, or else a new one named after them."""
    name = f"n{values.pictures}_seed{values.seed}"
    return MsCeleb1m.builder_configs.get(name) or SampleConfig(
        name=name, pictures=values.pictures, seed=values.seed
    )


if __name__ == "__main__":
    command.run(main, define_flags())
