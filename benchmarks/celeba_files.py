"""Files in CelebA's layout: drawn faces of 178 x 218 pixels and some 7 KB, or part of a source."""

import itertools
from pathlib import Path

import cv2
import numpy as np

from data_prep import celeba, faces

HEIGHT, WIDTH = 218, 178
DIFFERENT = 256  # faces that are drawn; the files repeat them
PICTURES_OF_A_PERSON = 5
NOISE = 4.0  # levels, standard deviation
QUALITY = 79  # with this noise a file has about as many bytes as one of CelebA


def draw(folder: Path, count: int) -> None:
    """Writes `count` pictures and the lists of CelebA that go with them."""
    (folder / celeba.PICTURES).mkdir(parents=True)
    names = [f"{number + 1:06d}.jpg" for number in range(count)]
    drawn = [_encode(number) for number in range(min(count, DIFFERENT))]
    for name, encoded in zip(names, itertools.cycle(drawn), strict=False):
        (folder / celeba.PICTURES / name).write_bytes(encoded)
    values = np.random.default_rng(0).choice([-1, 1], (count, len(celeba.ATTRIBUTE_NAMES)))
    rows = [" ".join([name, *map(str, row)]) for name, row in zip(names, values, strict=True)]
    header = [str(count), " ".join(celeba.ATTRIBUTE_NAMES)]
    (folder / celeba.ATTRIBUTES).write_text("\n".join(header + rows) + "\n")
    people = [f"{name} {i // PICTURES_OF_A_PERSON}\n" for i, name in enumerate(names)]
    (folder / celeba.IDENTITIES).write_text("".join(people))


def cut(source: Path, folder: Path, share: float) -> None:
    """Makes a source of links to the first pictures of another."""
    folder.mkdir()
    count_line, attributes, *rows = (source / celeba.ATTRIBUTES).read_text().splitlines()
    rows = rows[: int(share * int(count_line))]
    (folder / celeba.PICTURES).mkdir()
    for name in (row.split()[0] for row in rows):
        (folder / celeba.PICTURES / name).symlink_to(source.resolve() / celeba.PICTURES / name)
    (folder / celeba.ATTRIBUTES).write_text("\n".join([str(len(rows)), attributes, *rows]) + "\n")
    (folder / celeba.IDENTITIES).symlink_to(source.resolve() / celeba.IDENTITIES)


def _encode(number: int) -> bytes:
    identity, picture = divmod(number, PICTURES_OF_A_PERSON)
    face = faces.draw_face(identity, picture, size=HEIGHT).image
    left = (HEIGHT - WIDTH) // 2
    noise = np.random.default_rng(number).normal(0, NOISE, (HEIGHT, WIDTH, 3))
    noisy = np.clip(face[:, left : left + WIDTH] + noise, 0, 255).astype(np.uint8)
    _, encoded = cv2.imencode(".jpg", noisy[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return encoded.tobytes()
