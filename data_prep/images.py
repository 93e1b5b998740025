"""Image files: lists them, and says whether one is whole."""

import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

import cv2
import numpy as np
from etils import epath

from tfadv.config.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png")
JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8\xff", b"\xff\xda", b"\xff\xd9"
# A marker that a length follows (ITU-T T.81, table B.1): not TEM, RSTn, SOI, EOI nor filling.
JPEG_SEGMENT = re.compile(rb"\xff[^\x00\x01\xd0-\xd9\xff]")
# Start of frame, which holds height and width: SOF0 to SOF15 without DHT, JPG and DAC.
JPEG_FRAME = re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]")
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
MAX_PIXELS = 2**28 // 3  # as `tfadv.data.images` decodes


def list_images(root: epath.Path) -> list[str]:
    """Returns the sorted names, relative to root, of the images in it and in its subfolders.

    Args:
        root: local, or in object storage.

    Raises:
        UserError: root is no folder or holds no image.
    """
    root = epath.Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    names = sorted(_walk(root))
    if not names:
        raise UserError(f"{root}: no image ({', '.join(SUFFIXES)}) in this folder")
    return names


def check_listed(
    names: Iterable[str], there: Iterable[str], root: epath.Path, listed_by: epath.Path, skip: bool
) -> None:
    """Checks the images that a list names against those of its folder.

    Args:
        names: of the images in the list.
        there: names of the images in the folder, from `list_images`.
        root: the folder.
        listed_by: file that holds the list.
        skip: whether images may be missing.

    Raises:
        UserError: an image is outside the folder, or is missing.
    """
    absent = sorted(set(names).difference(there))
    for name in absent:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name:
            raise UserError(f"{listed_by} lists {name!r}, which can't be in its folder")
    if absent and not skip:
        raise UserError(
            f"{listed_by} lists {len(absent)} images that {root} lacks, such as {absent[0]}"
        )


def read_image(path: epath.Path) -> bytes:
    """Returns the bytes of a file that is a whole JPEG or PNG and decodes.

    Raises:
        UserError: names the file and what is wrong with it.
    """
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror or error}") from error
    return check_image(encoded, str(path))


def check_image(encoded: bytes, name: str) -> bytes:
    """Returns the bytes of an image that is a whole JPEG or PNG and decodes.

    It decodes at an eighth of the size. Decoders fill an image that is cut short with grey; a
    missing end marker shows it.

    Raises:
        UserError: names the image and what is wrong with it.
    """
    if fault := _fault(encoded):
        raise UserError(f"{name}: {fault}")
    return encoded


def _walk(root: epath.Path) -> Iterator[str]:
    for folder, _, names in root.walk():
        inside = folder.relative_to(root).as_posix()
        prefix = "" if inside == "." else f"{inside}/"
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield prefix + name


def _fault(encoded: bytes) -> str | None:
    if encoded.startswith(JPEG_START):
        scan, height, width = _jpeg_header(encoded)
        whole = scan is not None and JPEG_END in encoded[scan:]
    elif encoded.startswith(PNG_START):
        width, height = struct.unpack(">II", encoded[16:24].rjust(8, b"\0"))
        whole = PNG_END in encoded
    else:
        return "is neither a JPEG nor a PNG image"
    if not whole:
        return "is cut short"
    # A file of a few kB can hold an image that fills the memory.
    if height * width > MAX_PIXELS:
        return f"has {width:,} x {height:,} pixels; at most {MAX_PIXELS:,} are read"
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8)
    return "doesn't decode" if image is None else None


def _jpeg_header(encoded: bytes) -> tuple[int | None, int, int]:
    """Returns where a JPEG's first scan starts, None where it has none, and height and width.

    The segments before it are stepped over, as one may hold a thumbnail with an end marker of its
    own. Bytes after the image's own end marker (a phone's film, a second image) are not read.
    """
    at, height, width = len(JPEG_START) - 1, 0, 0
    while segment := JPEG_SEGMENT.search(encoded, at):
        if segment[0] == JPEG_SCAN:
            return segment.start(), height, width
        content = encoded[segment.end() : segment.end() + 7]
        if JPEG_FRAME.match(segment[0]) and len(content) == 7:
            height, width = struct.unpack_from(">HH", content, 3)
        at = segment.end() + int.from_bytes(content[:2], "big")
    return None, height, width
