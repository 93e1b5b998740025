"""Which features of a TFDS dataset hold the picture, its labels, who is in it, and its name."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow_datasets import features as tfds_features

from tfadv.config.errors import UserError

INVALID = 254  # a label other than 0 and 1

_NAMES = (tf.int64, tf.string)  # of people: their numbers, or texts, whose hashes count


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where a record holds what.

    Attributes:
        spec: what is read, by the names under which a record holds it.
        image: the name of the picture.
        labels: the names of the labels: of one vector, or of numbers, one by one; maybe none.
        are_numbers: whether labels are whole numbers, which only the records show to be 0 or 1.
        identity: the name of who is in the picture, or empty.
        name: the name of what tells the picture from others, or empty.
    """

    spec: dict[str, tf.io.FixedLenFeature]
    image: str
    labels: tuple[str, ...]
    are_numbers: bool
    identity: str
    name: str

    @property
    def is_vector(self) -> bool:
        """Whether the labels are one vector, which doesn't tell its columns' names."""
        return len(self.labels) == 1 and bool(self.spec[self.labels[0]].shape)

    def attributes(self, known: Sequence[str]) -> tuple[str, ...]:
        """Returns the names of the columns of labels; of a vector those known, if they fit it."""
        if self.is_vector:
            (width,) = self.spec[self.labels[0]].shape
            numbered = [f"{self.labels[0]}_{column}" for column in range(width)]
            return tuple(known if len(known) == width else numbered)
        return tuple(label.rpartition("/")[2] for label in self.labels)

    def parse(self, records: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns what serialized records hold; see `records.Records.parse`."""
        found = tf.io.parse_example(records, self.spec)
        count = tf.size(records)
        columns = [found[label] for label in self.labels]
        if not columns:
            labels = tf.zeros((count, 0), tf.int64)
        elif len(columns[0].shape) == 2:
            (labels,) = columns
        else:
            labels = tf.stack(columns, axis=1)
        # Before they are cast: 256 would pass for 0.
        labels = tf.where((labels == 0) | (labels == 1), labels, INVALID)
        identity = found[self.identity] if self.identity else tf.fill([count], np.int64(-1))
        if identity.dtype == tf.string:
            number = tf.strings.to_hash_bucket_fast(identity, np.iinfo(np.int64).max)
            identity = tf.where(identity == "", np.int64(-1), number)
        examples = {
            "image": found[self.image],
            "labels": tf.cast(labels, tf.uint8),
            "identity": identity,
        }
        return examples | ({"name": found[self.name]} if self.name else {})


def find_layout(
    features: tfds_features.FeaturesDict, labels: str, place: str, *, with_labels: bool
) -> Layout:
    """Returns where a dataset holds what.

    Args:
        features: of the dataset.
        labels: the feature of its labels.
        place: which dataset it is, for errors.
        with_labels: whether there must be labels; else there may be none.

    Raises:
        UserError: there is no picture, or not one alone; or there are no labels.
    """
    spec = features.tf_example_spec
    image = _find_image(features, place)
    try:
        columns, are_numbers = _find_labels(features, labels, place)
    except UserError:
        if with_labels:
            raise
        columns, are_numbers = (), False
    # A dict of one number is one: TFDS keeps the people of celeb_a so.
    people = [key for key in spec if key == "identity" or key.startswith("identity/")]
    is_one = len(people) == 1 and any(_is_fixed(spec[people[0]], 0, kind) for kind in _NAMES)
    identity = people[0] if is_one else ""
    name = "name" if _is_fixed(spec.get("name"), 0, tf.string) else ""
    read = filter(None, (image, *columns, identity, name))
    return Layout({key: spec[key] for key in read}, image, columns, are_numbers, identity, name)


def _find_image(features: tfds_features.FeaturesDict, place: str) -> str:
    images = sorted(key for key, each in features.items() if isinstance(each, tfds_features.Image))
    if not images:
        raise UserError(f"{place} has no image feature; it has {', '.join(sorted(features))}")
    if len(images) > 1 and "image" not in images:
        raise UserError(
            f"{place} has several image features, none called image: {', '.join(images)}"
        )
    image = "image" if "image" in images else images[0]
    if np.dtype(features[image].np_dtype).kind == "f":  # TFDS stores their bits as a PNG's colours
        raise UserError(f"{place} has pictures of fractions in {image}; they must be uint8")
    return image


def _find_labels(
    features: tfds_features.FeaturesDict, labels: str, place: str
) -> tuple[tuple[str, ...], bool]:
    """The names under which a record holds 0/1 labels, and whether they are whole numbers."""
    if labels not in features:
        listed = ", ".join(sorted(features))
        raise UserError(f"{place} has no feature {labels}; set data.labels to one of {listed}")
    feature, columns = features[labels], {labels: features[labels]}
    if is_dict := isinstance(feature, tfds_features.FeaturesDict):
        columns = {f"{labels}/{key}": feature[key] for key in sorted(feature.keys())}
    spec = features.tf_example_spec
    for key, column in columns.items():
        if not _is_binary(column) or not _is_fixed(spec.get(key), 0 if is_dict else 1):
            raise UserError(
                f"{place} holds {column!r} in {key}; data.labels must name 0/1 labels: a vector, a "
                f"dict of booleans or one of two classes"
            )
    return tuple(columns), any(np.dtype(c.np_dtype).kind in "iu" for c in columns.values())


def _is_binary(feature: tfds_features.FeatureConnector) -> bool:
    """Whether a feature can be 0 or 1; of whole numbers only the records tell."""
    if isinstance(feature, tfds_features.ClassLabel):
        return feature.num_classes == 2
    is_tensor = isinstance(feature, tfds_features.Tensor)
    return is_tensor and np.dtype(feature.np_dtype).kind in "biu"


def _is_fixed(stored, rank: int, dtype: tf.DType = tf.int64) -> bool:
    """Whether a record holds as many values of a type as any other, in so many axes at most."""
    is_fixed = isinstance(stored, tf.io.FixedLenFeature) and len(stored.shape) <= rank
    return is_fixed and stored.dtype == dtype
