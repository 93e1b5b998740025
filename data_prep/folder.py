"""Any folder of JPEG and PNG images as TFRecords.

    python -m data_prep.folder --source=DIR --data_dir=data [--name=NAME] [--shares=0.7,0.2,0.1]

With a CSV in DIR (or `--csv=FILE`): a header, a column of file names relative to DIR (the first, or
`--name_column`), 0/1 or -1/1 columns with the attributes, and perhaps `--identity_column`.
Images that the CSV doesn't list are left out. Without a CSV there are no attributes, and each
subfolder that holds images is an identity, as in LFW.

No identity is in two splits; `--split=extra` puts all images in one split of that name instead.
The dataset is `folder/NAME`, NAME by default that of DIR. `tfds build data_prep/folder.py
--manual_dir=DIR` builds `folder/default`; there a CSV needs its attributes named in the config:
`--config='{"name": "mine", "attributes": ["Smiling", "Male"]}'`. See `data_prep.celeba` for what
`tfds build` needs.
"""

import csv
import dataclasses
import io
import re
from collections.abc import Iterator, Sequence

import numpy as np
from absl import flags
from etils import epath

from data_prep import builder, command, images, spec
from tfadv.config.errors import UserError
from tfadv.data.labels import UNKNOWN_IDENTITY

VALUES = {"-1": -1, "0": 0, "1": 1}
DEFAULT_CONFIG = "default"
SHARES = (0.6, 0.2, 0.2)  # the paper's would leave 13 test images of 1,000


@dataclasses.dataclass(eq=False)
class FolderConfig(builder.SplitConfig):
    """How a folder is read.

    Attributes:
        shares: of private, public and test images.
        attributes: names of the CSV's 0/1 columns.
        csv: file with the attributes; by default the only `.csv` file in the folder, if any.
        name_column: column of the file names, by default the first.
        identity_column: column with the identity; by default identities are unknown.
    """

    shares: tuple[float, ...] = SHARES
    attributes: tuple[str, ...] = ()
    csv: str = ""
    name_column: str = ""
    identity_column: str = ""


class Folder(builder.ImageBuilder):
    """A folder of images, with a CSV of attributes or a subfolder per identity."""

    BUILDER_CONFIGS = [FolderConfig(name=DEFAULT_CONFIG)]  # noqa: RUF012
    MANUAL_DOWNLOAD_INSTRUCTIONS = __doc__
    description = "Images of a folder."

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """Names of the CSV's 0/1 columns."""
        return tuple(self.builder_config.attributes)

    def read_source(self, folder: epath.Path) -> spec.Source:
        """Reads the folder, and its CSV if it has one; see `read_source` of this module."""
        found = read_attribute_names(folder, self.builder_config)
        if found != self.attribute_names:
            raise UserError(
                f"{folder}: the attributes are {', '.join(found)}, "
                f"but the config names {', '.join(self.attribute_names) or 'none'}"
            )
        return read_source(folder, self.builder_config, skip=self.skip)


def read_attribute_names(folder: epath.Path, config: FolderConfig) -> tuple[str, ...]:
    """Returns the names of the CSV's attribute columns; none without a CSV.

    Raises:
        UserError: the CSV is missing, empty, or lacks a column that the config names.
    """
    path = _find_csv(folder, config)
    if path is None:
        return ()
    header, _ = _read_header(path)
    roles = {_name_column(path, header, config), config.identity_column}
    return tuple(column for column in header if column not in roles)


def read_source(folder: epath.Path, config: FolderConfig, *, skip: bool = False) -> spec.Source:
    """Reads a folder of images and checks that its CSV, if it has one, agrees with them.

    Args:
        folder: holds the images.
        config: says how it is read.
        skip: whether images may be missing.

    Raises:
        UserError: the folder holds no image, or the CSV is wrong.
    """
    there = images.list_images(folder)
    path = _find_csv(folder, config)
    if path is None:
        people = [name.rpartition("/")[0] for name in there]
        return spec.Source(folder, there, np.zeros((len(there), 0), np.uint8), _number(people))
    names, people, attributes = _read_rows(path, config)
    images.check_listed(names, there, folder, path, skip)
    return spec.Source(folder, names, attributes, _number(people))


def _find_csv(folder: epath.Path, config: FolderConfig) -> epath.Path | None:
    if config.csv:
        path = epath.Path(config.csv).expanduser()
        if not path.is_file():
            raise UserError(f"--csv={path}: no such file")
        return path
    found = sorted(folder.glob("*.csv"))
    if len(found) > 1:
        raise UserError(f"{folder} holds {len(found)} CSV files: say which with --csv=FILE")
    if not found and (config.name_column or config.identity_column):
        raise UserError(f"{folder} holds no CSV file to look for a column in: give --csv=FILE")
    return found[0] if found else None


def _read_header(path: epath.Path) -> tuple[list[str], Iterator[list[str]]]:
    rows = _rows(path)
    header = [column.strip() for column in next(rows, [])]
    if not any(header):
        raise UserError(f"{path}: the file is empty")
    if len(set(header)) != len(header):
        raise UserError(f"{path}: two columns have the same name")
    return header, rows


def _rows(path: epath.Path) -> Iterator[list[str]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text: save it as UTF-8") from error
    # The csv module knows which line breaks are inside quotes.
    rows = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        yield from rows
    except csv.Error as error:
        raise UserError(f"{path}: line {rows.line_num}: {error}; is a quote left open?") from error


def _name_column(path: epath.Path, header: Sequence[str], config: FolderConfig) -> str:
    for flag in ("name_column", "identity_column"):
        column = getattr(config, flag)
        if column and column not in header:
            raise UserError(
                f"{path}: no column {column!r} (--{flag}); there are {', '.join(header)}"
            )
    return config.name_column or header[0]


def _read_rows(path: epath.Path, config: FolderConfig) -> tuple[list[str], list[str], np.ndarray]:
    """Returns each image's file name, its person ("" unknown) and its attributes."""
    header, rows = _read_header(path)
    name_at = header.index(_name_column(path, header, config))
    person_at = header.index(config.identity_column) if config.identity_column else None
    columns = [i for i in range(len(header)) if i not in (name_at, person_at)]
    lines: dict[str, int] = {}
    people, values = [], []
    for line, row in enumerate(rows, start=2):
        if not row:
            continue
        if len(row) != len(header):
            raise UserError(f"{path}: row {line} has {len(row)} cells, not {len(header)}")
        name = row[name_at].strip()
        if name in lines:
            raise UserError(f"{path}: {name} is listed twice, in rows {lines[name]} and {line}")
        lines[name] = line
        people.append("" if person_at is None else row[person_at].strip())
        values.append([_value(path, line, header[i], row[i]) for i in columns])
    if not lines:
        raise UserError(f"{path}: the file lists no image")
    table = np.array(values, np.int8).reshape(len(lines), len(columns))
    mixed = np.flatnonzero((table == -1).any(axis=0) & (table == 0).any(axis=0))
    if len(mixed):
        raise UserError(
            f"{path}: column {header[columns[mixed[0]]]!r} holds both 0 and -1: which one means no?"
        )
    return list(lines), people, (table > 0).astype(np.uint8)


def _value(path: epath.Path, line: int, column: str, cell: str) -> int:
    value = VALUES.get(cell.strip())
    if value is None:
        raise UserError(
            f"{path}: row {line}, column {column!r}: {cell!r} is neither 0 nor 1 (if it holds "
            f"identities: --identity_column={column})"
        )
    return value


def _number(people: Sequence[str]) -> np.ndarray:
    """Numbers people in sorted order (of value, where all are whole numbers); "" gets -1."""
    known = {person for person in people if person}
    whole = all(re.fullmatch("-?[0-9]{1,18}", person) for person in known)
    numbers = {person: i for i, person in enumerate(sorted(known, key=int if whole else str))}
    return np.array([numbers.get(person, UNKNOWN_IDENTITY) for person in people], np.int64)


def define_flags() -> flags.FlagValues:
    """Returns the flags of this command."""
    values = command.common_flags(source="folder of images")
    for name, text in (
        ("name", "the dataset becomes folder/NAME; by default that of the source folder"),
        ("csv", "file with the attributes; by default the CSV file in the source folder"),
        ("name_column", "column of the file names; by default the first"),
        ("identity_column", "column with the identity"),
        ("split", "put all images in one split of this name"),
    ):
        flags.DEFINE_string(name, "", text, flag_values=values)
    return values


def main(values: flags.FlagValues) -> None:
    """Prepares a folder as the flags say."""
    source = command.source_folder(values)
    config = _config(values, source)
    config.attributes = read_attribute_names(source, config)
    command.prepare(
        Folder(config=config, data_dir=values.data_dir, on_error=values.on_error),
        source,
        command.beam_options(values),
    )


def _config(values: flags.FlagValues, source: epath.Path) -> FolderConfig:
    name = values.name or re.sub(r"\W+", "_", source.resolve().name.lower())
    if name == DEFAULT_CONFIG or not re.fullmatch(r"\w[\w.-]*", name):
        raise UserError(f"--name={name}: give another name, of letters, digits and underscores")
    if values.split and values.shares:
        raise UserError("--shares and --split exclude each other: one split has no shares")
    if values.split and (values.split == "all" or not re.fullmatch(r"[a-zA-Z]\w*", values.split)):
        raise UserError(f"--split={values.split}: not a split's name; try extra")
    return FolderConfig(
        name=name,
        shares=command.shares(values, SHARES),
        csv=values.csv,
        name_column=values.name_column,
        identity_column=values.identity_column,
        split=values.split,
    )


if __name__ == "__main__":
    command.run(main, define_flags())
