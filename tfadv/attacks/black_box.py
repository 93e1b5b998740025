"""The black box that an attacker gets from a SavedModel, and f from the one beside it."""

import contextlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfadv.config import schema as settings
from tfadv.config.errors import UserError
from tfadv.training.distribution import over_devices
from tfadv.training.signals import time_limit
from tfadv.training.tf_errors import error_line


class SavedEncoder:
    """The black box: a callable from pictures to features, from any SavedModel that makes some.

    Args:
        path: the SavedModel's folder.
        config: how to call an encoder that is not ours.

    Attributes:
        path: the SavedModel's folder.
        feature_shape: of one picture's feature.
        split: the split point that an encoder of ours was cut at, else None.

    Raises:
        UserError: it is no SavedModel, or has no signature from one picture batch to features.
    """

    def __init__(self, path: str, config: settings.BlackBox, size: int):
        self.path = path
        self._config = config
        self.split, trained_at = _described(Path(path) / "encoder.json")
        if trained_at not in (None, size):
            raise UserError(
                f"encoder {path} was trained at {trained_at} pixels and data.size is {size}, which "
                f"would flatter it: set --config.data.size={trained_at}"
            )
        try:
            with self._answers("loading"):
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
        """Returns the features, float32 [N, ...], of pictures, uint8 [N, S, S, 3]."""
        try:
            with self._answers(f"{len(images)} pictures"):
                features = self._encode(images)
        except (TypeError, ValueError, tf.errors.OpError) as error:
            what = f"fails on pictures of shape {images.shape}"
            raise UserError(f"encoder {self.path} {what}: {error_line(error)}") from None
        return self._checked(features, len(images))

    def differentiable(self) -> Callable[[tf.Tensor], tf.Tensor] | None:
        """Returns the encoder as a function that gradients can be had through.

        From float32 [N, S, S, 3] in [-1, 1] to features, float32 [N, ...]. None where the only
        input takes whole numbers.
        """
        if self.split and "encode" in self._model.signatures:
            return self._encode_floats
        return self._floats_to_features if self._spec.dtype.is_floating else None

    def _encode_floats(self, images: tf.Tensor) -> tf.Tensor:
        """What the signature `encode` of an encoder of ours makes of pictures in [-1, 1]."""
        return self._model.signatures["encode"](images=images)["features"]

    def _floats_to_features(self, images: tf.Tensor) -> tf.Tensor:
        """What the signature makes of pictures in [-1, 1]; not rounded where they are resized."""
        sides = self._sides(images)
        if sides != tuple(images.shape[1:3]):
            images = tf.image.resize(images, sides, antialias=True)
        return tf.cast(self._features_of((images + 1.0) / 2.0), tf.float32)

    def _to_features(self, images: tf.Tensor) -> tf.Tensor:
        """What the signature makes of pictures, brought to the size and range that it wants."""
        sides = self._sides(images)
        if sides != tuple(images.shape[1:3]):
            images = tf.round(tf.image.resize(images, sides, antialias=True))
        if self._spec.dtype.is_floating:
            images = tf.cast(images, tf.float32) / 255.0
        return self._features_of(images)

    def _sides(self, images: tf.Tensor) -> tuple[int, ...]:
        """The height and width that the input wants."""
        return tuple(
            wanted or side
            for wanted, side in zip(self._spec.shape[1:3], images.shape[1:3], strict=True)
        )

    def _features_of(self, images: tf.Tensor) -> tf.Tensor:
        """Calls the signature with pictures of its size: in [0, 1] if it takes floats."""
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
                f"pictures; features must be floating-point [{count}, ...]"
            )
        if self.feature_shape not in (None, shape[1:]):
            raise UserError(
                f"encoder {self.path} gives features {shape[1:]}, and gave {self.feature_shape} "
                f"before; they must be of one shape"
            )
        with np.errstate(over="ignore"):  # told below
            features = features.astype(np.float32)
        if not np.isfinite(features).all():
            raise UserError(f"encoder {self.path} gives features that are not finite")
        return features

    def _answers(self, task: str) -> contextlib.AbstractContextManager:
        """Ends the process if what is within takes too long."""
        seconds = self._config.timeout
        return time_limit(
            seconds,
            f"encoder {self.path} has not answered for {seconds:g} s ({task}): it hangs, or needs "
            f"more than --config.black_box.timeout={seconds:g}",
        )

    def _choose_signature(self):
        signatures = getattr(self._model, "signatures", {})
        if "serving_default" in signatures:
            return signatures["serving_default"]
        if len(signatures) == 1:
            return next(iter(signatures.values()))
        found = ", ".join(sorted(signatures)) or "none"
        raise UserError(f"encoder {self.path} needs a signature serving_default; it has {found}")

    def _choose_input(self):
        specs = self._signature.structured_input_signature[1]
        if len(specs) != 1 or not all(map(_takes_pictures, specs.values())):
            found = [
                f"{name} {spec.dtype.name} {spec.shape}" for name, spec in sorted(specs.items())
            ]
            raise UserError(
                f"encoder {self.path} must take one input, pictures [N, H, W, 3] for any N; "
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
    """f as exported: a callable from features to logits, float32 [N, ...] to [N, A].

    Attributes:
        attributes: the names of the A attributes.
        feature_shape: of one picture's feature.
        thresholds: logits from which on an attribute is there, float64 [A]: those that were best on
            held-out private pictures. None if they were never tuned.
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

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Returns the logits of features."""
        return self._classify(features)


def load_classifier(encoder_path: str) -> SavedClassifier | None:
    """Returns the classifier exported beside an encoder, if there is one."""
    folder = Path(encoder_path).parent / "classifier"
    return SavedClassifier(folder) if (folder / "classifier.json").exists() else None


def predict(
    encoder: Callable[[np.ndarray], np.ndarray],
    classify: Callable[[np.ndarray], np.ndarray],
    batches: Iterable[dict[str, tf.Tensor]],
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels of all pictures, uint8 [N, ...], and f(Enc(X)), float32 [N, A]."""
    labels, logits = [], []
    for batch in batches:
        logits.append(classify(encoder(batch["images"].numpy())))
        labels.append(batch["labels"].numpy())
    return np.concatenate(labels), np.concatenate(logits)


def _described(path: Path) -> tuple[str, int] | tuple[None, None]:
    """The split point and the picture size of an encoder of ours."""
    if not path.exists():
        return None, None
    try:
        description = json.loads(path.read_text())
        split, size = description["split"], int(description["input"]["size"])
    except (ValueError, TypeError, KeyError):
        split, size = None, None
    if split not in settings.SPLITS:
        raise UserError(
            f"{path} names no split point of ours: export the encoder again, or move that file "
            f"away if the encoder is not ours"
        )
    return split, size


def _takes_pictures(spec: tf.TensorSpec) -> bool:
    pictures = tf.TensorShape((None, None, None, 3))
    if spec.shape.rank is None or not pictures.is_compatible_with(spec.shape):
        return False
    batch, channels_if_first, _, _ = spec.shape
    holds_pixels = spec.dtype.is_floating or (spec.dtype.is_integer and spec.dtype.max >= 255)
    return batch is None and channels_if_first != 3 and holds_pixels
