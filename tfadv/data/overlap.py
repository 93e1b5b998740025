"""Checks that no image is in two places where it must be in one."""

import itertools

import numpy as np
from tensorflow_datasets.core.utils.shard_utils import FileInstruction

from tfadv.config.errors import UserError
from tfadv.data.records import Records
from tfadv.data.split import Split


def check_split(split: Split, field: str) -> None:
    """Raises a UserError if a split, set in this field of `data`, has an image twice."""
    if any(itertools.starmap(_overlap, itertools.combinations(split.files, 2))):
        raise UserError(f"data.{field}, {split.name}, has images of dataset {split.dataset} twice")


def check_splits(splits: dict[str, Split]) -> None:
    """Raises a UserError if two splits, by the field of `data` that sets them, share an image."""
    for (field, split), (other_field, other) in itertools.combinations(splits.items(), 2):
        if any(itertools.starmap(_overlap, itertools.product(split.files, other.files))):
            raise UserError(
                f"data.{field}, {split.name}, and data.{other_field}, {other.name}, share images "
                f"of dataset {split.dataset}: name splits or parts that share none"
            )


def check_source(own: Records, extra: Records) -> None:
    """Raises a UserError if a data set of `data.extra` has the same source as `data.dataset`."""
    sources = [records.metadata.get("source") for records in (own, extra)]
    # TFDS spells CelebA celeb_a, and its celeb_a_hq holds the same images.
    names = {
        records.info.name.replace("celeb_a", "celeba").removesuffix("_hq")
        for records in (own, extra)
    }
    # Each `folder` data set has its own source.
    if len(names) == 1 and (own.info.name != "folder" or len({*sources}) == 1):
        raise UserError(
            f"data.extra names {extra.name}, which is made from the same source as data.dataset, "
            f"{own.name}: attackers would learn from test images"
        )


def check_test_images(test: Split, extra: Split) -> None:
    """Raises a UserError if a data set of `data.extra` has images of the test split."""
    shared = np.count_nonzero(np.isin(test.image_hashes(), extra.image_hashes()))
    if shared:
        raise UserError(
            f"data.extra names {extra.dataset}, which has {shared:,} of the {test.count:,} "
            f"images in split {test.name} of data.dataset, {test.dataset}: attackers would "
            f"learn from them; leave it out, or make it from other images"
        )


def _overlap(one: FileInstruction, other: FileInstruction) -> bool:
    starts, ends = (one.skip, other.skip), (one.skip + one.take, other.skip + other.take)
    return one.filename == other.filename and max(starts) < min(ends)
