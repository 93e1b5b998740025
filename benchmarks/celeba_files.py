"""Writes files in CelebA's layout: synthetic faces of CelebA's size, or part of a source."""

import itertools
from pathlib import Path

import cv2
import numpy as np

from data_prep import celeba, faces

HEIGHT, WIDTH = 218, 178
DISTINCT_FACES = 256  # the files repeat these faces
IMAGES_PER_PERSON = 5
NOISE = 4.0  # standard deviation, of 255 levels
QUALITY = 79  # with this noise a file has about 7 KB, as in CelebA


def write_synthetic(folder: Path, count: int) -> None:
    """Writes `count` images and CelebA's lists for them."""
    (folder / celeba.IMAGES).mkdir(parents=True)
    names = [f"{number + 1:06d}.jpg" for number in range(count)]
    distinct = [_encode(number) for number in range(min(count, DISTINCT_FACES))]
    for name, encoded in zip(names, itertools.cycle(distinct), strict=False):
        (folder / celeba.IMAGES / name).write_bytes(encoded)
    values = np.random.default_rng(0).choice([-1, 1], (count, len(celeba.ATTRIBUTE_NAMES)))
    rows = [" ".join([name, *map(str, row)]) for name, row in zip(names, values, strict=True)]
    header = [str(count), " ".join(celeba.ATTRIBUTE_NAMES)]
    (folder / celeba.ATTRIBUTES).write_text("\n".join(header + rows) + "\n")
    people = [f"{name} {i // IMAGES_PER_PERSON}\n" for i, name in enumerate(names)]
    (folder / celeba.IDENTITIES).write_text("".join(people))


def link_share(source: Path, folder: Path, share: float) -> None:
    """Makes a source that links to the first images of another source."""
    folder.mkdir()
    count_line, attributes, *rows = (source / celeba.ATTRIBUTES).read_text().splitlines()
    rows = rows[: int(share * int(count_line))]
    (folder / celeba.IMAGES).mkdir()
    for name in (row.split()[0] for row in rows):
        (folder / celeba.IMAGES / name).symlink_to(source.resolve() / celeba.IMAGES / name)
    (folder / celeba.ATTRIBUTES).write_text("\n".join([str(len(rows)), attributes, *rows]) + "\n")
    (folder / celeba.IDENTITIES).symlink_to(source.resolve() / celeba.IDENTITIES)


def _encode(number: int) -> bytes:
    identity, image = divmod(number, IMAGES_PER_PERSON)
    face = faces.render_face(identity, image, size=HEIGHT).image
    left = (HEIGHT - WIDTH) // 2
    noise = np.random.default_rng(number).normal(0, NOISE, (HEIGHT, WIDTH, 3))
    noisy = np.clip(face[:, left : left + WIDTH] + noise, 0, 255).astype(np.uint8)
    _, encoded = cv2.imencode(".jpg", noisy[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return encoded.tobytes()
