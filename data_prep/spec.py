"""The features of every prepared dataset, and how images are assigned to splits.

Splits: `private` (X1 of the paper, the images of the service), `public` (X2, the images that an
attacker may own) and `test` (T). Schemes:

- `identity`, the default: no identity is in two splits. A shared identity raises attack scores.
- `paper`: by position, as in the paper (160,000 / 40,000 / 2,599 of CelebA's 202,599 images).
- `official`: the partition file of CelebA (train, valid, test).
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from data_prep import images
from tfadv.config.errors import UserError
from tfadv.evaluation.identities import number_people

SPLITS = ("private", "public", "test")
SCHEMES = ("identity", "paper", "official")
PAPER_COUNTS = (160_000, 40_000, 2_599)
PAPER_SHARES = tuple(count / sum(PAPER_COUNTS) for count in PAPER_COUNTS)


@dataclasses.dataclass(frozen=True)
class Source:
    """The images of a source, in its own order, with attributes and identities.

    Attributes:
        root: folder that `names` are relative to.
        names: file name of each image, with `/` between folders.
        attributes: uint8 [N, A], 0 or 1.
        identities: int64 [N], -1 where unknown.
        partition: uint8 [N], the official split (0, 1, 2), or None if there is none.
    """

    root: epath.Path
    names: Sequence[str]
    attributes: np.ndarray
    identities: np.ndarray
    partition: np.ndarray | None = None

    def take(self, positions: np.ndarray) -> "Source":
        """Returns a source of some of the images, in the order of their positions."""
        taken = {}
        for name, values in vars(self).items():  # arrays and sequences have a value for each image
            if isinstance(values, np.ndarray):
                taken[name] = values[positions]
            elif isinstance(values, Sequence):
                taken[name] = [values[i] for i in positions]
        return dataclasses.replace(self, **taken)

    def image(self, index: int) -> bytes:
        """Returns the encoded image; raises `UserError` if it is missing or doesn't decode."""
        return images.read_image(self.root / self.names[index])

    def example(self, index: int) -> dict[str, Any]:
        """Returns one example, or raises `UserError` as in `image`; several threads call it."""
        return {
            "image": self.image(index),
            "attributes": self.attributes[index],
            "identity": self.identities[index],
            "name": self.names[index],
        }


def features(attribute_count: int) -> tfds.features.FeaturesDict:
    """Returns the features that every builder writes: `image`, `attributes`, `identity`, `name`."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "attributes": tfds.features.Tensor(shape=(attribute_count,), dtype=np.uint8),
            "identity": tfds.features.Scalar(np.int64),
            "name": tfds.features.Text(),
        }
    )


def parse_shares(text: str) -> tuple[float, ...]:
    """Returns the shares of private, public and test images from a text such as `0.7,0.2,0.1`.

    Raises:
        UserError: these are not three positive numbers that sum to 1.
    """
    try:
        shares = tuple(float(share) for share in text.split(","))
    except ValueError:
        shares = ()
    if len(shares) != 3 or min(shares) <= 0 or not abs(sum(shares) - 1) < 1e-6:
        raise UserError(
            f"--shares={text}: give three positive numbers that sum to 1 "
            "(private, public, test), such as 0.7,0.2,0.1"
        )
    return shares


def config_name(scheme: str, shares: Sequence[float]) -> str:
    """Returns the scheme's name, with the shares in percent where they are not the paper's."""
    if tuple(shares) == PAPER_SHARES:
        return scheme
    return "_".join([scheme, *(f"{100 * share:g}" for share in shares)])


def split_by_position(count: int, shares: Sequence[float]) -> dict[str, np.ndarray]:
    """Assigns the first images to `private`, the next to `public`, the rest to `test`.

    Returns:
        For each split, the positions of its images, in ascending order.
    """
    return dict(zip(SPLITS, np.split(np.arange(count), _cuts(count, shares)), strict=True))


def split_by_identity(
    identities: np.ndarray, shares: Sequence[float], seed: int = 0
) -> dict[str, np.ndarray]:
    """Assigns shuffled identities to splits, so that no identity is in two splits.

    The size of a split differs from its share by less than the images of the largest identity. Each
    image of an unknown person counts as a person of its own.

    Args:
        identities: int64 [N].
        shares: of private, public and test images; they sum to 1.
        seed: of the shuffle.

    Returns:
        For each split, the positions of its images, in ascending order.
    """
    owners = number_people(identities)
    sizes = np.bincount(owners)
    order = np.random.default_rng(seed).permutation(len(sizes))
    starts = np.cumsum(sizes[order]) - sizes[order]
    split_of_owner = np.empty_like(order)
    split_of_owner[order] = np.searchsorted(_cuts(len(owners), shares), starts, side="right")
    return _positions(split_of_owner[owners])


def split_images(
    source: Source, scheme: str, shares: Sequence[float], seed: int = 0
) -> dict[str, np.ndarray]:
    """Assigns the images of a source to `private`, `public` and `test`.

    Raises:
        UserError: a split would be empty, or the source has no partition for `official`.
    """
    if scheme == "official":
        if source.partition is None:
            raise UserError("scheme official: the source has no partition of its own")
        splits = _positions(source.partition)
    elif scheme == "paper":
        splits = split_by_position(len(source.names), shares)
    else:
        splits = split_by_identity(source.identities, shares, seed)
    known = len(np.unique(source.identities[source.identities >= 0]))
    for split, positions in splits.items():
        if not len(positions):
            raise UserError(
                f"scheme {scheme} leaves the split {split} empty: {len(source.names)} images of "
                f"{known} known identities don't fill three splits"
            )
    return splits


def digest(source: Source, *, with_partition: bool) -> str:
    """Returns the SHA-256, in hex, of a source's names, attributes and identities.

    Args:
        source: the root folder and the content of the images do not count.
        with_partition: whether the partition counts.
    """
    names = "\0".join(source.names).encode("utf-8", "surrogateescape")
    arrays = [source.attributes, source.identities]
    if with_partition and source.partition is not None:
        arrays.append(source.partition)
    return hashlib.sha256(b"\0".join([names, *(a.tobytes() for a in arrays)])).hexdigest()


def _cuts(count: int, shares: Sequence[float]) -> np.ndarray:
    return np.rint(np.cumsum(shares)[:-1] * count).astype(np.int64)


def _positions(split_of_image: np.ndarray) -> dict[str, np.ndarray]:
    return {split: np.flatnonzero(split_of_image == i) for i, split in enumerate(SPLITS)}
