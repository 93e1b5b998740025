"""Small files of the two packings of MS-Celeb-1M, written for the tests."""

import base64
import struct

import cv2
import numpy as np

MAGIC = struct.pack("<I", 0xCED7230A)


def face(person, image):
    """A JPEG unlike every other."""
    noise = np.random.default_rng((person, image)).integers(0, 256, (16, 12, 3), np.uint8)
    return cv2.imencode(".jpg", noise)[1].tobytes()


def row(mid, rank, encoded, face_id="FaceId-0"):
    """A line of the release's TSV, without its end."""
    data, rectangle = base64.b64encode(encoded), base64.b64encode(bytes(16))
    words = [mid, str(rank), "http://a.b/c.jpg", "http://a.b/", face_id]
    return b"\t".join([*(word.encode() for word in words), rectangle, data])


def write_tsv(path, rows):
    path.write_bytes(b"".join(line + b"\n" for line in rows))


def packed(labels, encoded, number):
    """What a record holds: header, labels if there are several, image."""
    if len(labels) == 1:
        return struct.pack("<IfQQ", 0, labels[0], number, 0) + encoded
    count = len(labels)
    return struct.pack(f"<IfQQ{count}f", count, 0, number, 0, *labels) + encoded


def record(content):
    """A record, cut where the magic word occurs in it at a multiple of 4."""
    parts, start = [], 0
    for at in range(0, len(content) - 3, 4):
        if content[at : at + 4] == MAGIC:
            parts.append(content[start:at])
            start = at + 4
    parts.append(content[start:])
    places = [1, *[2] * (len(parts) - 2), 3] if len(parts) > 1 else [0]
    return b"".join(
        MAGIC + struct.pack("<I", place << 29 | len(part)) + part + bytes(-len(part) % 4)
        for place, part in zip(places, parts, strict=True)
    )


def write_records(path, contents, order=None):
    """Writes the records, numbered from 0, in an order, by default this one; and the `.idx`."""
    lines, offset = [], 0
    with path.open("wb") as file:
        for number in order or range(len(contents)):
            lines.append(f"{number}\t{offset}\n")
            offset += file.write(record(contents[number]))
    path.with_suffix(".idx").write_text("".join(lines))


def insightface(people):
    """What InsightFace's records hold.

    Args:
        people: for each person, the encoded images.
    """
    faces = [(who, encoded) for who, images in enumerate(people) for encoded in images]
    end = len(faces) + 1
    contents = [packed((end, end + len(people)), b"", 0)]
    contents += [packed((who,), encoded, i) for i, (who, encoded) in enumerate(faces, start=1)]
    start = 1
    for i, images in enumerate(people):
        contents.append(packed((start, start + len(images)), b"", end + i))
        start += len(images)
    return contents
