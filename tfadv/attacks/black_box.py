"""The encoder as attacks see it, a black box, and the classifier that lies beside it."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import tensorflow as tf

from tfadv.config import schema
from tfadv.config.errors import UserError
from tfadv.config.validation import check_field
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
        images: for the first call, uint8 [N, S, S, 3]: images of the data set, because some
            encoders divide by an image's deviation. If None, two images of random pixels.

    Attributes:
        first: the images of the first call, and their features.

    Raises:
        UserError: it is no SavedModel, or has no signature from one batch of images to features; or
            it is not ours and gives different images the same feature.
    """

    def __init__(
        self, path: str, config: schema.BlackBox, size: int, images: np.ndarray | None = None
    ):
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
        self._check_size(size)
        self._encode = over_devices(self._to_features)
        self.feature_shape = None
        is_real = images is not None
        if not is_real:
            images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
        features = self(images)
        self.feature_shape = features.shape[1:]
        self.first = images, features
        if is_real and not self.split:
            self._check_range(images, features)

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

    @property
    def range(self) -> str:
        """The values of black and of white that an encoder that is not ours is called with."""
        low, high = self._range
        changed = " (--config.black_box.low, .high)" if self._spec.dtype.is_floating else ""
        return f"{self._spec.dtype.name} from {low:g}, black, to {high:g}, white{changed}"

    def in_new_process(self, batches: Sequence[np.ndarray], times: int = 1) -> np.ndarray:
        """Returns features, float32 [times, N, ...], of a new process that loads the encoder.

        The process calls the encoder on the batches, from its first call on, `times` times. It
        uses no GPU, whose memory this process may have taken.

        Raises:
            UserError: the encoder does not work there.
        """
        package = str(Path(__file__).parents[2])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {name: os.environ[name] for name in os.environ if name != "TF_CONFIG"}
        environment |= {"CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": os.pathsep.join(paths)}
        with tempfile.TemporaryDirectory() as folder:
            asked, found = Path(folder, "images.npz"), Path(folder, "features.npy")
            np.savez(asked, *batches)
            task = [str(Path(self.path).absolute()), json.dumps(dataclasses.asdict(self._config))]
            done = subprocess.run(
                [sys.executable, "-m", "tfadv.attacks.new_process", *task, str(times), folder],
                env=environment,
                capture_output=True,
                text=True,
                errors="replace",
            )
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
                raise UserError(f"encoder {self.path} does not work in a new process: {last}")
            return np.load(found, allow_pickle=False)

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
        """Calls the signature on images in [-1, 1]."""
        return tf.cast(self._features_of((images + 1.0) / 2.0), tf.float32)

    def _to_features(self, images: tf.Tensor) -> tf.Tensor:
        """Calls the signature on uint8 images, brought to its range."""
        if self._spec.dtype.is_floating:
            images = tf.cast(images, tf.float32) / 255.0
        return self._features_of(images)

    def _features_of(self, images: tf.Tensor) -> tf.Tensor:
        """Calls the signature on images; in [0, 1] if it takes floats."""
        if self._spec.dtype.is_floating:
            low, high = self._range
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

    @property
    def _range(self) -> tuple[float, float]:
        if self._spec.dtype.is_floating:
            return self._config.low, self._config.high
        return 0, 255

    def _check_size(self, size: int) -> None:
        """Raises a UserError if the input has another size: resized images would leak less."""
        sides = self._spec.shape[1:3]
        if all(side in (None, size) for side in sides):
            return
        height, width = (side or "any" for side in sides)
        fitting = {side for side in sides if side}
        way = "export it with a resize inside, for images [N, None, None, 3]"
        if len(fitting) == 1:
            wanted = fitting.pop()
            try:
                check_field("data.size", wanted)
                way = f"set --config.data.size={wanted}"
            except UserError:
                way += f", since data.size cannot be {wanted}"
        raise UserError(
            f"encoder {self.path} takes images of {height} x {width} pixels and data.size is "
            f"{size}: {way}"
        )

    def _check_range(self, images: np.ndarray, features: np.ndarray) -> None:
        """Raises a UserError if different images have one feature: nothing could be measured."""
        are_different = (images != images[:1]).any()
        spread = np.ptp(features, axis=0)
        if not are_different or (spread > 1e-6 * np.abs(features).max(axis=0)).any():
            return
        advice = ""
        if self._spec.dtype.is_floating:
            others = ((-1, 1), (0, 1), (0, 255))
            advice = "; try the range that it was made for: " + ", or ".join(
                f"--config.black_box.low={low} --config.black_box.high={high}"
                for low, high in others
                if (low, high) != self._range
            )
        raise UserError(
            f"encoder {self.path} gives the same feature for {len(images)} different images, "
            f"called with {self.range}{advice}"
        )

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
