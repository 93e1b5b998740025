"""The encoder as attacks see it, a black box, and the classifier that lies beside it."""

import contextlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import tensorflow as tf

from tfadv.config import schema
from tfadv.config.errors import UserError
from tfadv.training.distribution import over_devices
from tfadv.training.signals import time_limit
from tfadv.training.tf_errors import error_line


class BlackBox(Protocol):
    """A callable from images, uint8 [N, S, S, 3], to features, float32 [N, ...].

    Attributes:
        feature_shape: of one image's feature.
        split: the layer of our ResNet that gives the feature; None for any other encoder.
    """

    feature_shape: tuple[int, ...]
    split: str | None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns the features."""


class SavedEncoder:
    """A `BlackBox` from a SavedModel: one of ours, or any other that gives features of images.

    Args:
        path: the SavedModel's folder.
        config: how to call an encoder that is not ours.
        size: S, pixels per side of the images.

    Raises:
        UserError: it is no SavedModel, or has no signature from one batch of images to features.
    """

    def __init__(self, path: str, config: schema.BlackBox, size: int):
        self.path = path
        self._config = config
        self.split, trained_at = _described(Path(path) / "encoder.json")
        if trained_at not in (None, size):
            raise UserError(
                f"encoder {path} was trained at {trained_at} pixels and data.size is {size}: at "
                f"another size it seems to leak less; set --config.data.size={trained_at}"
            )
        try:
            with self._limited("loading"):
                self._model = tf.saved_model.load(path)
        except Exception as error:  # a damaged file raises nearly anything, IndexError too
            raise UserError(f"encoder {path} does not load: {error_line(error)}") from None
        self._signature = self._choose_signature()
        self._input, self._spec = self._choose_input()
        self._output = self._choose_output()
        self._encode = over_devices(self._to_features)
        self.feature_shape = None
        self.feature_shape = self(np.zeros((2, size, size, 3), np.uint8)).shape[1:]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns the features, float32 [N, ...], of images, uint8 [N, S, S, 3]."""
        try:
            with self._limited(f"{len(images)} images"):
                features = self._encode(images)
        except (TypeError, ValueError, tf.errors.OpError) as error:
            shape = tuple(images.shape)
            raise UserError(
                f"encoder {self.path} fails on images of shape {shape}: {error_line(error)}"
            ) from None
        return self._checked(features, len(images))

    def differentiable(self) -> Callable[[tf.Tensor], tf.Tensor] | None:
        """Returns the encoder as a function with gradients, or None.

        It maps images, float32 [N, S, S, 3] in [-1, 1], to features, float32 [N, ...]. There is
        none if the encoder takes integers only.
        """
        if self.split and "encode" in self._model.signatures:
            return self._encode_floats
        return self._floats_to_features if self._spec.dtype.is_floating else None

    def _encode_floats(self, images: tf.Tensor) -> tf.Tensor:
        """Calls the signature `encode` of an encoder of ours, which takes images in [-1, 1]."""
        return self._model.signatures["encode"](images=images)["features"]

    def _floats_to_features(self, images: tf.Tensor) -> tf.Tensor:
        """Calls the signature on images in [-1, 1]; resized images are not rounded."""
        return tf.cast(self._features_of((self._resized(images) + 1.0) / 2.0), tf.float32)

    def _to_features(self, images: tf.Tensor) -> tf.Tensor:
        """Calls the signature on uint8 images, brought to its size and range."""
        images = tf.round(self._resized(images))
        if self._spec.dtype.is_floating:
            images = tf.cast(images, tf.float32) / 255.0
        return self._features_of(images)

    def _resized(self, images: tf.Tensor) -> tf.Tensor:
        """Images at the height and width of the signature's input."""
        given = tuple(images.shape[1:3])
        wanted = self._spec.shape[1:3]
        sides = tuple(side or own for side, own in zip(wanted, given, strict=True))
        return images if sides == given else tf.image.resize(images, sides, antialias=True)

    def _features_of(self, images: tf.Tensor) -> tf.Tensor:
        """Calls the signature on images of its size; in [0, 1] if it takes floats."""
        if self._spec.dtype.is_floating:
            low, high = self._config.low, self._config.high
            images = images * (high - low) + low
        return self._signature(**{self._input: tf.cast(images, self._spec.dtype)})[self._output]

    def _checked(self, features: np.ndarray, count: int) -> np.ndarray:
        shape, dtype = tuple(features.shape), tf.as_dtype(features.dtype)
        is_feature = dtype.is_floating and len(shape) >= 2 and all(shape[1:])
        if not is_feature or shape[0] != count:
            raise UserError(
                f"encoder {self.path} gives {dtype.name} {shape} for {count} "
                f"images; features must be floating-point [{count}, ...]"
            )
        if self.feature_shape not in (None, shape[1:]):
            raise UserError(
                f"encoder {self.path} gives features of shape {shape[1:]} and, before, of shape "
                f"{self.feature_shape}; all must have one shape"
            )
        with np.errstate(over="ignore"):  # infinite values are an error below
            features = features.astype(np.float32)
        if not np.isfinite(features).all():
            raise UserError(f"encoder {self.path} gives features that are not finite")
        return features

    def _limited(self, task: str) -> contextlib.AbstractContextManager:
        """Ends the process if the block takes too long."""
        seconds = self._config.timeout
        return time_limit(
            seconds,
            f"encoder {self.path} has not returned for {seconds:g} s ({task}): it hangs, or needs "
            f"more than --config.black_box.timeout={seconds:g}",
        )

    def _choose_signature(self):
        signatures = getattr(self._model, "signatures", {})
        if "serving_default" in signatures:
            return signatures["serving_default"]
        if len(signatures) == 1:
            return next(iter(signatures.values()))
        found = ", ".join(sorted(signatures)) or "none"
        raise UserError(
            f"encoder {self.path} needs a signature called serving_default; it has {found}"
        )

    def _choose_input(self):
        specs = self._signature.structured_input_signature[1]
        if len(specs) != 1 or not all(map(_takes_images, specs.values())):
            found = [
                f"{name} {spec.dtype.name} {spec.shape}" for name, spec in sorted(specs.items())
            ]
            raise UserError(
                f"encoder {self.path} must take one input, images [N, H, W, 3] for any N; "
                f"it takes {', '.join(found) or 'none'}"
            )
        return next(iter(specs.items()))

    def _choose_output(self):
        outputs = sorted(self._signature.structured_outputs)
        chosen = "" if self.split else self._config.output
        wanted = chosen or ("features" if "features" in outputs else "")
        if wanted in outputs:
            return wanted
        if not chosen and len(outputs) == 1:
            return outputs[0]
        raise UserError(
            f"encoder {self.path} has the outputs {', '.join(outputs)}: choose one with "
            f"--config.black_box.output=NAME"
        )


class SavedClassifier:
    """The exported classifier: a callable from features, float32 [N, ...], to logits, [N, A].

    Attributes:
        attributes: the names of the A attributes.
        feature_shape: of one image's feature.
        thresholds: logits above which an attribute is predicted, float64 [A], tuned on held-out
            private images. None if they were never tuned.
        layers: features to the last hidden layer, if the classifier gives it, and the logits,
            float32 [N, K].
    """

    def __init__(self, folder: Path):
        description = json.loads((folder / "classifier.json").read_text())
        self.attributes = tuple(description["attributes"])
        self.feature_shape = tuple(description["feature_shape"])
        tuned = description.get("thresholds")
        self.thresholds = None if tuned is None else np.array(tuned, np.float64)
        self._model = tf.saved_model.load(str(folder))  # it dies with its last reference
        classify = self._model.signatures["serving_default"]
        self._classify = over_devices(lambda features: classify(features=features)["logits"])
        names = [name for name in ("hidden", "logits") if name in classify.structured_outputs]

        def layers(features):
            outputs = classify(features=features)
            return tf.concat([outputs[name] for name in names], axis=1)

        self.layers = over_devices(layers)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Returns the logits of features."""
        return self._classify(features)

    def hard_predictions(self, features: np.ndarray) -> np.ndarray:
        """Returns 1 (yes) and -1 (no), at the tuned thresholds if there are any, float32 [N, A]."""
        thresholds = 0.0 if self.thresholds is None else self.thresholds
        return np.where(self(features) > thresholds, 1, -1).astype(np.float32)


class AveragedEncoder:
    """A random encoder that is asked `repeats` times: the mean averages fresh noise away."""

    def __init__(self, encoder: BlackBox, repeats: int):
        self._encoder, self._repeats = encoder, repeats
        self.feature_shape, self.split = encoder.feature_shape, encoder.split

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns the mean feature of each image."""
        total = self._encoder(images)
        for _ in range(self._repeats - 1):
            total = total + self._encoder(images)
        return total / self._repeats


class PredictionsEncoder:
    """A service that sends the classifier's predictions and no feature.

    Args:
        encoder: the encoder behind the service.
        classify: the encoder's classifier.
        hard: whether predictions are 1 and -1, at the tuned thresholds if there are any; else they
            are logits.
    """

    def __init__(self, encoder: BlackBox, classify: SavedClassifier, *, hard: bool):
        self._encoder, self._classify, self._hard = encoder, classify, hard
        self.feature_shape = (len(classify.attributes),)
        self.split = None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns the predictions, float32 [N, A]."""
        features = self._encoder(images)
        return self._classify.hard_predictions(features) if self._hard else self._classify(features)


class PredictionsClassifier:
    """The classifier of a service that gets hard predictions: they are its logits.

    Args:
        attributes: the names of the A attributes that are predicted.
    """

    thresholds = None

    def __init__(self, attributes: Sequence[str]):
        self.attributes = tuple(attributes)
        self.feature_shape = (len(self.attributes),)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Returns the predictions, 1 and -1, float32 [N, A]."""
        return features


def load_classifier(encoder_path: str) -> SavedClassifier | None:
    """Returns the classifier that lies beside an encoder, or None."""
    folder = Path(encoder_path).parent / "classifier"
    return SavedClassifier(folder) if (folder / "classifier.json").exists() else None


def predict(
    encoder: Callable[[np.ndarray], np.ndarray],
    classify: Callable[[np.ndarray], np.ndarray],
    batches: Iterable[dict[str, tf.Tensor]],
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels of all images, uint8 [N, ...], and f(Enc(X)), float32 [N, A]."""
    labels, logits = [], []
    for batch in batches:
        logits.append(classify(encoder(batch["images"].numpy())))
        labels.append(batch["labels"].numpy())
    return np.concatenate(labels), np.concatenate(logits)


def _described(path: Path) -> tuple[str, int] | tuple[None, None]:
    """The feature layer and the image size of an encoder of ours."""
    if not path.exists():
        return None, None
    try:
        description = json.loads(path.read_text())
        split, size = description["split"], int(description["input"]["size"])
    except (ValueError, TypeError, KeyError):
        split, size = None, None
    if split not in schema.SPLITS:
        raise UserError(
            f"{path} names no layer of our ResNet: export the encoder again, or, if the encoder is "
            f"not ours, remove that file"
        )
    return split, size


def _takes_images(spec: tf.TensorSpec) -> bool:
    images = tf.TensorShape((None, None, None, 3))
    if spec.shape.rank is None or not images.is_compatible_with(spec.shape):
        return False
    batch, channels_if_first, _, _ = spec.shape
    holds_pixels = spec.dtype.is_floating or (spec.dtype.is_integer and spec.dtype.max >= 255)
    return batch is None and channels_if_first != 3 and holds_pixels
