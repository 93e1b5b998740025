"""MXNet's RecordIO: the record at an offset of a file, and the image packed in a record.

A record is a chain of parts. A part is a magic word, a word of which the upper 3 bits say where in
the chain it is and the lower 29 how long it is, and its bytes, padded to a multiple of 4. A chain
has more than one part where the magic word occurs in the bytes, at a multiple of 4 from their
start: the record is cut there and the word left out (dmlc-core, src/recordio.cc). A packed image
is a header, then labels if the header says how many, then its encoded bytes (MXNet,
python/mxnet/recordio.py). All numbers are little-endian.
"""

import struct
from typing import BinaryIO

from tfadv.config.errors import UserError

MAGIC = struct.pack("<I", 0xCED7230A)
WORDS = struct.Struct("<4sI")
LENGTH_BITS = 29
WHOLE, FIRST, MIDDLE, LAST = range(4)
HEADER = struct.Struct("<IfQQ")  # how many labels follow, the label if none does, two numbers


def read_record(file: BinaryIO, offset: int) -> bytes:
    """Returns the record that starts at an offset; the file is then at the end of it.

    Raises:
        UserError: no record starts there, or the file ends within it.
    """
    file.seek(offset)
    parts: list[bytes] = []
    while True:
        place, part = _read_part(file)
        if place not in ((MIDDLE, LAST) if parts else (WHOLE, FIRST)):
            raise UserError("the parts of the record are out of order")
        parts.append(part)
        if place in (WHOLE, LAST):
            return MAGIC.join(parts)


def unpack(record: bytes) -> tuple[tuple[float, ...], bytes]:
    """Returns the labels, at least one, and the encoded image of a record.

    Raises:
        UserError: the record is too short for its header.
    """
    count, label = HEADER.unpack_from(record)[:2] if len(record) >= HEADER.size else (0, 0.0)
    start = HEADER.size + 4 * count
    if len(record) < start:
        raise UserError(f"{len(record)} bytes are too few for an image's header")
    labels = struct.unpack_from(f"<{count}f", record, HEADER.size) if count else (label,)
    return labels, record[start:]


def _read_part(file: BinaryIO) -> tuple[int, bytes]:
    words = file.read(WORDS.size)
    if words[: len(MAGIC)] != MAGIC[: len(words)]:
        raise UserError("no RecordIO record starts here")
    if len(words) == WORDS.size:
        place, length = divmod(WORDS.unpack(words)[1], 1 << LENGTH_BITS)
        padded = file.read(length + -length % 4)
        if len(padded) == length + -length % 4:
            return place, padded[:length]
    raise UserError("the file ends within the record: it is cut short")
