"""Where a TFDS dataset holds the image, the labels, the identity and the image's name."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow_datasets import features as tfds_features

from tfadv.config.errors import UserError
from tfadv.data.labels import INVALID, UNKNOWN_IDENTITY

_IDENTITY_TYPES = (tf.int64, tf.string)  # a string is hashed to a number


@dataclasses.dataclass(frozen=True)
class Schema:
    """The features of a record that are read.

    Attributes:
        spec: the features, by their names in a record.
        image: name of the image feature.
        labels: names of the label features: one vector, or several scalars; may be empty.
        are_integers: whether the labels are integers, so that only the records show their values.
        identity: name of the identity feature, or empty.
        name: name of the feature that names the image, or empty.
    """

    spec: dict[str, tf.io.FixedLenFeature]
    image: str
    labels: tuple[str, ...]
    are_integers: bool
    identity: str
    name: str

    @property
    def is_vector(self) -> bool:
        """Whether the labels are one vector, whose columns have no names in the schema."""
        return len(self.labels) == 1 and bool(self.spec[self.labels[0]].shape)

    def attributes(self, vector_names: Sequence[str]) -> tuple[str, ...]:
        """Returns the names of the label columns.

        Args:
            vector_names: the columns of a vector; numbers are used where the count differs.
        """
        if self.is_vector:
            (width,) = self.spec[self.labels[0]].shape
            numbered = [f"{self.labels[0]}_{column}" for column in range(width)]
            return tuple(vector_names if len(vector_names) == width else numbered)
        return tuple(label.rpartition("/")[2] for label in self.labels)

    def parse(self, records: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the features of serialized records, string [N].

        Returns:
            `image`, encoded, string [N]; `labels` uint8 [N, A], 0, 1 or INVALID; `identity` int64
            [N], UNKNOWN_IDENTITY where it is not known; `name` string [N], if images have names.
        """
        features = tf.io.parse_example(records, self.spec)
        count = tf.size(records)
        columns = [features[label] for label in self.labels]
        if not columns:
            labels = tf.zeros((count, 0), tf.int64)
        elif self.is_vector:
            (labels,) = columns
        else:
            labels = tf.stack(columns, axis=1)
        # Before the cast: 256 would become 0.
        labels = tf.where((labels == 0) | (labels == 1), labels, INVALID)
        if self.identity:
            identity = features[self.identity]
        else:
            identity = tf.fill([count], np.int64(UNKNOWN_IDENTITY))
        if identity.dtype == tf.string:
            number = tf.strings.to_hash_bucket_fast(identity, np.iinfo(np.int64).max)
            identity = tf.where(identity == "", np.int64(UNKNOWN_IDENTITY), number)
        examples = {
            "image": features[self.image],
            "labels": tf.cast(labels, tf.uint8),
            "identity": identity,
        }
        return examples | ({"name": features[self.name]} if self.name else {})


def find_schema(
    features: tfds_features.FeaturesDict, labels: str, dataset: str, *, with_labels: bool
) -> Schema:
    """Returns which features of a dataset are read.

    Args:
        features: all features of the dataset.
        labels: name of the feature with the labels.
        dataset: the dataset's name and folder, for errors.
        with_labels: whether the dataset must have labels.

    Raises:
        UserError: there is no image feature, or several without one called image; the labels are
            missing or not 0/1.
    """
    spec = features.tf_example_spec
    image = _find_image(features, dataset)
    try:
        columns, are_integers = _find_labels(features, labels, dataset)
    except UserError:
        if with_labels:
            raise
        columns, are_integers = (), False
    # TFDS keeps the identities of celeb_a in a dict of one number.
    keys = [key for key in spec if key == "identity" or key.startswith("identity/")]
    is_one = len(keys) == 1 and any(_is_fixed(spec[keys[0]], 0, kind) for kind in _IDENTITY_TYPES)
    identity = keys[0] if is_one else ""
    name = "name" if _is_fixed(spec.get("name"), 0, tf.string) else ""
    read = filter(None, (image, *columns, identity, name))
    return Schema({key: spec[key] for key in read}, image, columns, are_integers, identity, name)


def _find_image(features: tfds_features.FeaturesDict, dataset: str) -> str:
    images = sorted(key for key, each in features.items() if isinstance(each, tfds_features.Image))
    if not images:
        raise UserError(f"{dataset} has no image feature; it has {', '.join(sorted(features))}")
    if len(images) > 1 and "image" not in images:
        raise UserError(
            f"{dataset} has several image features, none called image: {', '.join(images)}"
        )
    image = "image" if "image" in images else images[0]
    if np.dtype(features[image].np_dtype).kind == "f":  # TFDS stores the bits of a float as a PNG
        raise UserError(f"{dataset} has floating-point images in {image}; they must be uint8")
    return image


def _find_labels(
    features: tfds_features.FeaturesDict, labels: str, dataset: str
) -> tuple[tuple[str, ...], bool]:
    """The names of the label features in a record, and whether the labels are integers."""
    if labels not in features:
        listed = ", ".join(sorted(features))
        raise UserError(f"{dataset} has no feature {labels}; set data.labels to one of {listed}")
    feature, columns = features[labels], {labels: features[labels]}
    if is_dict := isinstance(feature, tfds_features.FeaturesDict):
        columns = {f"{labels}/{key}": feature[key] for key in sorted(feature.keys())}
    spec = features.tf_example_spec
    for key, column in columns.items():
        if not _can_be_binary(column) or not _is_fixed(spec.get(key), 0 if is_dict else 1):
            raise UserError(
                f"{dataset} holds {column!r} in {key}; data.labels must name 0/1 labels: a vector, "
                f"a dict of booleans or one of two classes"
            )
    return tuple(columns), any(np.dtype(c.np_dtype).kind in "iu" for c in columns.values())


def _can_be_binary(feature: tfds_features.FeatureConnector) -> bool:
    if isinstance(feature, tfds_features.ClassLabel):
        return feature.num_classes == 2
    is_tensor = isinstance(feature, tfds_features.Tensor)
    return is_tensor and np.dtype(feature.np_dtype).kind in "biu"


def _is_fixed(stored, max_rank: int, dtype: tf.DType = tf.int64) -> bool:
    """Whether each record holds the same number of values of a type, in so many axes at most."""
    is_fixed = isinstance(stored, tf.io.FixedLenFeature) and len(stored.shape) <= max_rank
    return is_fixed and stored.dtype == dtype
