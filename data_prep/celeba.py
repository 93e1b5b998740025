"""CelebA, from its official files, as TFRecords.

    python -m data_prep.celeba --source=DIR --data_dir=data [--scheme=paper] [--shares=0.7,0.2,0.1]

DIR holds the official layout, from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html:

    img_align_celeba/          Img/img_align_celeba.zip, unpacked
    list_attr_celeba.txt       Anno/
    identity_CelebA.txt        Anno/, on request from the authors; needed by --scheme=identity
    list_eval_partition.txt    Eval/; needed by --scheme=official

A set cut down to fewer images works too, if list_attr_celeba.txt is cut with it. The dataset is
`celeba/SCHEME`, or `celeba/SCHEME_70_20_10` with shares other than the paper's.
`tfds build data_prep/celeba.py --manual_dir=DIR` builds the three schemes with the paper's shares
(TFDS's own command needs `pip install apache-beam mlcroissant`: tensorflow/datasets#5463).
"""

import re
from collections.abc import Sequence

import numpy as np
from absl import flags
from etils import epath

from data_prep import builder, command, images, spec
from tfadv.config.errors import UserError
from tfadv.data.labels import UNKNOWN_IDENTITY

WEB_PAGE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
IMAGES = "img_align_celeba"
ATTRIBUTES = "list_attr_celeba.txt"
IDENTITIES = "identity_CelebA.txt"
PARTITION = "list_eval_partition.txt"
WEB_FOLDERS = {
    IMAGES: "Img/img_align_celeba.zip",
    ATTRIBUTES: f"Anno/{ATTRIBUTES}",
    IDENTITIES: f"Anno/{IDENTITIES}, given by its authors on request",
    PARTITION: f"Eval/{PARTITION}",
}
NUMBER = re.compile("[0-9]{1,18}")  # others have no place in int64
ATTRIBUTE_NAMES = tuple(
    """5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose
    Black_Hair Blond_Hair Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee
    Gray_Hair Heavy_Makeup High_Cheekbones Male Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard
    Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair
    Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace Wearing_Necktie
    Young""".split()  # noqa: SIM905
)


class Celeba(builder.ImageBuilder):
    """Aligned CelebA faces (178x218) with 40 attributes (Liu et al., ICCV 2015)."""

    BUILDER_CONFIGS = [  # noqa: RUF012
        builder.SplitConfig(name=scheme, scheme=scheme) for scheme in spec.SCHEMES
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = __doc__
    description = f"Aligned CelebA faces with 40 attributes: {WEB_PAGE}"
    attribute_names = ATTRIBUTE_NAMES

    def read_source(self, folder: epath.Path) -> spec.Source:
        """Reads the official layout; see `read_source` of this module."""
        return read_source(folder, self.builder_config.scheme, skip=self.skip)


def read_source(folder: epath.Path, scheme: str, *, skip: bool = False) -> spec.Source:
    """Reads CelebA's official layout and checks that its lists and images agree.

    Args:
        folder: holds `img_align_celeba/` and the lists.
        scheme: says which lists are needed: `identity` the identities, `official` the partition.
        skip: whether images may be missing.

    Raises:
        UserError: a file that is needed is missing, or two of them disagree.
    """
    root, list_path = _require(folder, IMAGES), _require(folder, ATTRIBUTES)
    names, attributes = _read_attributes(list_path)
    there = images.list_images(root)
    images.check_listed(names, there, root, list_path, skip)
    unlisted = sorted(set(there).difference(names))
    if unlisted:
        raise UserError(
            f"{root} has {len(unlisted)} images that {ATTRIBUTES} lacks, such as {unlisted[0]}"
        )
    identities = _read_column(folder, IDENTITIES, names, needed=scheme == "identity")
    if identities is None:
        identities = np.full(len(names), UNKNOWN_IDENTITY, np.int64)
    partition = _read_column(folder, PARTITION, names, needed=scheme == "official")
    if partition is not None and partition.max() >= len(spec.SPLITS):
        raise UserError(f"{folder / PARTITION}: {partition.max()} isn't 0, 1 or 2")
    return spec.Source(root, names, attributes, identities, partition)


def _require(folder: epath.Path, name: str) -> epath.Path:
    path = folder / name
    if not path.exists():
        raise UserError(f"{path} is missing: get {WEB_FOLDERS[name]} from {WEB_PAGE}")
    return path


def _read_lines(path: epath.Path) -> list[str]:
    lines = path.read_bytes().decode("utf-8", "replace").splitlines()
    return [line for line in lines if line.strip()]


def _read_attributes(path: epath.Path) -> tuple[list[str], np.ndarray]:
    lines = _read_lines(path)
    if len(lines) < 3 or not NUMBER.fullmatch(lines[0].strip()):
        raise UserError(f"{path}: line 1 must be the number of images, line 2 the attributes")
    count = len(ATTRIBUTE_NAMES)
    if tuple(lines[1].split()) != ATTRIBUTE_NAMES:
        raise UserError(f"{path}: line 2 isn't CelebA's {count} attribute names")
    if int(lines[0]) != len(lines) - 2:
        raise UserError(f"{path}: line 1 says {lines[0].strip()} images, {len(lines) - 2} follow")
    values: dict[str, list[bool]] = {}
    twice, wrong = [], []
    for line in lines[2:]:
        name, *row = line.split()
        if name in values:
            twice.append(name)
        if len(row) != count or not {"1", "-1"}.issuperset(row):
            wrong.append(name)
        values[name] = [value == "1" for value in row]
    if twice:
        raise UserError(f"{path}: {len(twice)} images are listed twice, such as {twice[0]}")
    if wrong:
        raise UserError(
            f"{path}: {len(wrong)} rows aren't {count} values of 1 or -1, "
            f"such as that of {wrong[0]}"
        )
    return list(values), np.array(list(values.values()), np.uint8)


def _read_column(
    folder: epath.Path, name: str, names: Sequence[str], *, needed: bool
) -> np.ndarray | None:
    """Reads a list of `image number` lines; None where it is missing and not needed."""
    if not needed and not (folder / name).exists():
        return None
    path = _require(folder, name)
    rows = [line.split() for line in _read_lines(path)]
    wrong = next((row for row in rows if len(row) != 2 or not NUMBER.fullmatch(row[1])), None)
    if wrong:
        raise UserError(f"{path}: {' '.join(wrong)!r} isn't an image's name and a number")
    numbers = dict(rows)
    absent = [image for image in names if image not in numbers]
    if absent:
        raise UserError(f"{path} lacks {len(absent)} images of {ATTRIBUTES}, such as {absent[0]}")
    return np.array([int(numbers[image]) for image in names], np.int64)


def define_flags() -> flags.FlagValues:
    """Returns the flags of this command."""
    values = command.common_flags(source="folder with CelebA's official files")
    flags.DEFINE_enum(
        "scheme", "identity", spec.SCHEMES, "how images are dealt to splits", flag_values=values
    )
    return values


def main(values: flags.FlagValues) -> None:
    """Prepares CelebA as the flags say."""
    source = command.source_folder(values)
    command.prepare(
        Celeba(
            config=_config(values),
            data_dir=values.data_dir,
            on_error=values.on_error,
        ),
        source,
        command.beam_options(values),
    )


def _config(values: flags.FlagValues) -> builder.SplitConfig:
    if values.shares and values.scheme == "official":
        raise UserError("--shares: scheme official takes CelebA's own partition, not shares")
    shares = command.shares(values, spec.PAPER_SHARES)
    name = spec.config_name(values.scheme, shares)
    return Celeba.builder_configs.get(name) or builder.SplitConfig(
        name=name, scheme=values.scheme, shares=shares
    )


if __name__ == "__main__":
    command.run(main, define_flags())
