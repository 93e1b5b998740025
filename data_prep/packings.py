"""Files that pack many images: which images there are, in one pass, and any one of them.

`TsvFile` is MS-Celeb-1M's own packing, `RecordFile` InsightFace's; such files are larger than
memory.
"""

import abc
import base64
import binascii
import contextlib
import io
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import tensorflow_datasets as tfds
from etils import epath

from data_prep import images, recordio
from tfadv.config.errors import UserError

# Columns of the TSV: MID, ImageSearchRank, ImageURL, PageURL, FaceID, FaceRectangle, FaceData.
COLUMNS = 7
MID, RANK, FACE, DATA = 0, 1, 4, 6
REMOTE_BUFFER = 1 << 20  # bytes
LONGEST_LINE = 1 << 26  # in bytes; a file without line breaks must not fill the memory


class Place(NamedTuple):
    """Where in a file an image is.

    Attributes:
        offset: of its line or record, in bytes.
        number: of its line, from 1, or of its record.
        key: its name in the file, or the number of a line that has no name.
    """

    offset: int
    number: int
    key: bytes


class PackedFile(abc.ABC):
    """A file of images with identities.

    Attributes:
        path: of the file.
        unit: the word for the part of the file that holds an image.
    """

    unit: str

    def __init__(self, path: epath.Path):
        """Keeps the path; does not open the file."""
        self.path = epath.Path(path)

    @abc.abstractmethod
    def places(self, *, skip: bool = False) -> Iterator[Place]:
        """Yields the place of every image; shows how far it is.

        Args:
            skip: whether to accept damaged lines and records. They have places, at which no image
                can be read.

        Raises:
            UserError: the file is wrong.
        """

    @abc.abstractmethod
    def person_and_name(self, place: Place) -> tuple[str | int, str]:
        """Returns the identity and the name of the image at a place.

        Raises:
            UserError: the file does not say.
        """

    @abc.abstractmethod
    def encoded(self, place: Place) -> bytes:
        """Returns the bytes of the image at a place, whatever they are.

        Raises:
            UserError: they can't be read, or the file gives no identity.
        """

    def image(self, place: Place) -> bytes:
        """Returns the bytes of the image at a place, a whole JPEG or PNG that decodes.

        Raises:
            UserError: they can't be read or don't decode.
        """
        return images.check_image(self.encoded(place), self.where(place))

    def where(self, place: Place) -> str:
        """Returns a place as text for an error: file, number and byte."""
        return f"{self.path}: {self.unit} {place.number}, at byte {place.offset}"


class TsvFile(PackedFile):
    """A line for each face: `FaceImageCroppedWithAlignment.tsv`."""

    unit = "line"

    def places(self, *, skip: bool = False) -> Iterator[Place]:
        """Yields every line's place; its key is the MID, ImageSearchRank and FaceID in it."""
        place, line = None, b""
        for number, offset, line in _lines(self.path):
            place = Place(offset, number, b"%d" % number)
            with _suppressed(skip):
                columns = self._columns(place, line)
                place = place._replace(key=b"\t".join(columns[i] for i in (MID, RANK, FACE)))
            yield place
        if place and not line.endswith(b"\n") and not skip:
            self.image(place)  # a copy that was broken off ends within one

    def person_and_name(self, place: Place) -> tuple[str, str]:
        """Returns the MID, and `MID/RANK-FACE.jpg`."""
        if b"\t" not in place.key:
            raise UserError(f"{self.where(place)}, has too few columns to hold an identity")
        mid, rank, face = place.key.decode("utf-8", "backslashreplace").split("\t")
        return mid, f"{mid}/{rank}-{face}.jpg"

    def encoded(self, place: Place) -> bytes:
        """Returns the bytes that the last column holds in base64."""
        with _open(self.path) as file:
            file.seek(place.offset)
            columns = self._columns(place, file.readline(LONGEST_LINE))
        try:
            return base64.b64decode(columns[DATA].rstrip(), validate=True)
        except binascii.Error as error:
            raise UserError(
                f"{self.where(place)}: the image is cut short or isn't base64: {error}"
            ) from error

    def _columns(self, place: Place, line: bytes) -> list[bytes]:
        columns = line.split(b"\t")
        if len(columns) < COLUMNS:
            raise UserError(
                f"{self.where(place)}, has {len(columns)} columns, not {COLUMNS}: "
                "is the file whole?"
            )
        return columns


class RecordFile(PackedFile):
    """MXNet's RecordIO as InsightFace fills it: `train.rec`, with `train.idx` beside it.

    Where record 0 has two labels and no image, images are numbered from 1 to below its first
    label; other records give each person's range of them. Otherwise all records are images.
    InsightFace's tool (src/data/face2rec2.py) writes record 0 after all images. An image's first
    label is its person's number. Faults of the `.idx` are never skipped.
    """

    unit = "record"

    def places(self, *, skip: bool = False) -> Iterator[Place]:
        """Yields the place of every image that the `.idx` file lists; its key is its number.

        With `skip`, all records count as images where record 0 is damaged.
        """
        index = self.path.with_suffix(".idx")
        if not index.exists():
            raise UserError(
                f"{index} is missing: it holds the places of the images in {self.path.name}"
            )
        size = self.path.stat().length
        head = next((place for place in self._listed(index, size) if place.number == 0), None)
        end = None
        with _suppressed(skip):
            end = self._end_of_images(head) if head else None
        last = Place(0, 0, b"")
        for place in self._listed(index, size):
            last = max(last, place)
            if end is None or 0 < place.number < end:
                yield place
        after = size
        with _suppressed(skip):
            _, _, after = self._read(last)
        if after != size:
            raise UserError(
                f"{index}: its last record ends at byte {after}, but {self.path.name} has {size}: "
                "the two are of different sets"
            )

    def person_and_name(self, place: Place) -> tuple[int, str]:
        """Returns the person's number, and `PERSON/RECORD`."""
        person, _ = self._person_and_image(place)
        return person, f"{person}/{place.number}"

    def encoded(self, place: Place) -> bytes:
        """Returns the bytes after the labels."""
        _, encoded = self._person_and_image(place)
        return encoded

    def _person_and_image(self, place: Place) -> tuple[int, bytes]:
        (person, *_), encoded, _ = self._read(place)
        if not person.is_integer():
            raise UserError(f"{self.where(place)}: {person} is no person's number")
        return int(person), encoded

    def _listed(self, index: epath.Path, size: int) -> Iterator[Place]:
        """Yields the place of every record that an index lists, in a file of so many bytes."""
        for line, _, row in _lines(index):
            try:
                number, offset = map(int, row.split(b"\t"))
            except ValueError as error:
                raise UserError(
                    f"{index}: line {line} isn't the number of a record, a tab and its offset"
                ) from error
            if not 0 <= offset < size:
                raise UserError(
                    f"{index}: line {line} says byte {offset}, but {self.path.name} has {size}: "
                    "it is cut short, or the two are of different sets"
                )
            yield Place(offset, number, b"%d" % number)

    def _end_of_images(self, head: Place) -> int | None:
        """Returns the number after the last image's, which record 0 may say; else None."""
        labels, encoded, _ = self._read(head)
        listed = not encoded and len(labels) == 2 and labels[0].is_integer()
        return int(labels[0]) if listed else None

    def _read(self, place: Place) -> tuple[tuple[float, ...], bytes, int]:
        """Returns the labels and image of a record, and where the next record would start."""
        with _open(self.path) as file:
            try:
                labels, encoded = recordio.unpack(recordio.read_record(file, place.offset))
            except UserError as error:
                raise UserError(f"{self.where(place)}: {error}") from error
            return labels, encoded, file.tell()


def _suppressed(skip: bool) -> contextlib.suppress:
    """Returns a context that ignores a UserError if damage is skipped."""
    return contextlib.suppress(*[UserError] if skip else [])


@contextlib.contextmanager
def _open(path: epath.Path) -> Iterator[BinaryIO]:
    """Opens a file to read from anywhere in it, a buffer at a time."""
    with path.open("rb") as file:
        is_local = isinstance(file, io.IOBase)
        yield file if is_local else io.BufferedReader(_Remote(file), REMOTE_BUFFER)


class _Remote(io.RawIOBase):
    """TensorFlow's file as one of Python's; its own reads lines one byte after another."""

    def __init__(self, file: Any):
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        read = self._file.read(len(buffer))
        buffer[: len(read)] = read
        return len(read)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._file.seek(offset, whence)
        return self._file.tell()


def _lines(path: epath.Path) -> Iterator[tuple[int, int, bytes]]:
    """Yields the number, from 1, the offset and the bytes of each line; shows how far it is."""
    progress = tfds.core.utils.tqdm(
        desc=path.name, total=path.stat().length, unit="B", unit_scale=True, leave=False, delay=1
    )
    number = offset = 0
    with progress, _open(path) as file:
        while line := file.readline(LONGEST_LINE):
            number += 1
            if len(line) == LONGEST_LINE:
                raise UserError(f"{path}: line {number} is longer than {LONGEST_LINE:,} bytes")
            yield number, offset, line
            offset += len(line)
            progress.update(len(line))
