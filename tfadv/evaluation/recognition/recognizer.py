"""Face recognizers, with which identity is measured.

A recognizer turns images into embeddings that are close where the person is the same. It also gives
the output of an inner layer. It is a file that OpenCV reads (OpenFace's Torch file, Caffe, ONNX) or
a SavedModel that `--mode=recognizer` made. Only the latter imports TensorFlow.
"""

import contextlib
import difflib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from tfadv.config.errors import UserError
from tfadv.config.run_folder import digest
from tfadv.evaluation.recognition.alignment import INTERPOLATION, align
from tfadv.evaluation.recognition.files import (
    KINDS,
    RecognizerCard,
    check_recognizer,
    read_card,
    read_description,
)

_LINEAR = ("InnerProduct", "Gemm", "MatMul")


class Embeddings(NamedTuple):
    """The output of a recognizer for N images."""

    embedding: np.ndarray  # float32 [N, E], of length 1
    inner: np.ndarray  # float32 [N, I], the flattened output of the inner layer


class Recognizer:
    """A callable from images to `Embeddings`.

    Attributes:
        name: of its file or folder, without the suffix.
        layer: name of the inner layer.
        alignment: celeba if faces are moved to its template, whole if they are not.
        digest: SHA-256 of its files.
        description: its facts, for a report.
    """

    def __init__(
        self,
        path: Path,
        kind: str,
        network: "_OpenCv | _SavedModel",
        *,
        size: int,
        layer: str,
        template: tuple[tuple[float, ...], ...],
    ):
        self.name = path.stem if path.is_file() else path.resolve().name
        self.layer = layer
        self.alignment = "celeba" if template else "whole"
        self.digest = digest(path)
        self._path, self._network = path, network
        self._size, self._template = size, template
        black = self(np.zeros((1, size, size, 3), np.float32))
        self.description = {
            "name": self.name,
            "kind": kind,
            "input_size": size,
            "alignment": self.alignment,
            "interpolation": INTERPOLATION,
            "embedding": black.embedding.shape[1],
            "layer": layer,
            "inner": black.inner.shape[1],
            "sha256": self.digest,
        }

    def __call__(self, images: np.ndarray) -> Embeddings:
        """Embeds images, a few at a time.

        Args:
            images: float32 [N, S, S, 3], RGB in [-1, 1], N at least 1.

        Raises:
            UserError: the network's output is not one finite vector per image.
        """
        batch = self._network.batch
        starts = range(0, len(images), batch)
        parts = [self._embed(images[start : start + batch]) for start in starts]
        return Embeddings(*map(np.concatenate, zip(*parts, strict=True)))

    def differentiable(self) -> "FaceFeatures | None":
        """Returns the embedding as a TensorFlow function; None for files that OpenCV reads."""
        if not isinstance(self._network, _SavedModel):
            return None
        return FaceFeatures(self._network.embed, self._size)

    def _embed(self, images: np.ndarray) -> Embeddings:
        embedding, inner = self._network(align(images, self._size, self._template))
        if embedding.ndim != 2 or len(embedding) != len(images):
            raise UserError(
                f"recognizer {self._path} gives {list(embedding.shape)} for {len(images)} "
                f"image(s); an embedding must be [N, E]: name another output in its card"
            )
        if not (np.isfinite(embedding).all() and np.isfinite(inner).all()):
            raise UserError(f"recognizer {self._path} gives embeddings that are not finite")
        embedding = embedding.astype(np.float32)
        length = np.linalg.norm(embedding, axis=1, keepdims=True)
        embedding = embedding / np.maximum(length, np.finfo(np.float32).tiny)
        return Embeddings(embedding, inner.reshape(len(images), -1).astype(np.float32))


def load_recognizer(path: str, alignment: str, layer: str, dataset_name: str) -> Recognizer:
    """Reads a recognizer.

    Args:
        path: a .t7, .caffemodel or .onnx file, or a folder that `--mode=recognizer` made.
        alignment: `celeba` moves faces to the recognizer's template, by the fixed transform that
            fits CelebA's mean landmarks; a recognizer without template (OpenFace, ours) takes the
            whole image all the same. `whole` takes the whole image. `auto` is `celeba` for data
            sets whose name says that they are CelebA, else `whole`.
        layer: the inner layer. Empty: the card's, else the input of the last fully connected layer
            (the paper's "e.g. layer 3" names no layer of nn4.small2): 512 numbers in MobileFaceNet,
            736 in OpenFace, `avgpool` in ours. Maps before it say far less about identity.
        dataset_name: as in `data.dataset`.

    Raises:
        UserError: it cannot be read, or has no such layer.
    """
    check_recognizer(path)
    is_celeba = dataset_name.startswith(("celeba", "celeb_a"))
    aligned = alignment == "celeba" or (alignment == "auto" and is_celeba)
    file = Path(path)
    if file.is_dir():
        description = read_description(file)
        network = _SavedModel(file, description["inner"], layer)
        kind, size, template = "SavedModel", description["size"], ()
    else:
        card = read_card(file)
        network = _OpenCv(file, card, layer or card.layer)
        kind, size = f"{KINDS[file.suffix]}, read by OpenCV", card.size
        template = card.template if aligned else ()
    return Recognizer(file, kind, network, size=size, layer=network.layer, template=template)


class FaceFeatures:
    """The embedding of a face as features that a loss compares, like those of VGG19's layers.

    `embed` maps images in [-1, 1], float32 [N, size, size, 3], to a dict with `embedding`, [N, E].
    """

    layers = ("embedding",)

    def __init__(self, embed: Callable, size: int):
        self._embed, self._size = embed, size

    def __call__(self, images):
        """Returns the embeddings, of length 1, of images [N, S, S, 3]: one map [N, 1, 1, E]."""
        import tensorflow as tf

        resized = tf.image.resize(tf.cast(images, tf.float32), (self._size, self._size))
        embedding = tf.math.l2_normalize(self._embed(resized)["embedding"], axis=1)
        return [embedding[:, None, None, :]]


class _OpenCv:
    """A network that OpenCV runs: aligned images to the embedding layer and the inner layer."""

    def __init__(self, path: Path, card: RecognizerCard, layer: str):
        self._path, self._card = path, card
        with _opencv_errors(path):
            prototxt = str(path.with_suffix(".prototxt")) if path.suffix == ".caffemodel" else ""
            self._network = cv2.dnn.readNet(str(path), prototxt)
            layers = list(self._network.getLayerNames())
            outputs = list(self._network.getUnconnectedOutLayersNames())
        if not layers or not outputs:
            raise UserError(f"recognizer {path} has no layers")
        output = card.output or outputs[-1]
        self.layer = layer or self._default_layer(layers)
        for name in (output, self.layer):
            _check_layer(path, name, layers)
        self._names = [output, self.layer]
        # MobileFaceNet is 8% faster at 8 images at a time than at 32.
        self.batch = 8 if self._takes_batches() else 1

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        pixels = (images + 1.0) * 127.5
        blob = (pixels - np.float32(self._card.mean)) * np.float32(self._card.scale)
        if self._card.channels == "BGR":
            blob = blob[..., ::-1]
        return self._forward(blob.transpose(0, 3, 1, 2))

    def _forward(self, blob: np.ndarray) -> list[np.ndarray]:
        size = self._card.size
        hint = f" at {size} x {size} pixels ({self._path.name}.json may name another size)"
        with _opencv_errors(self._path, hint):
            self._network.setInput(np.ascontiguousarray(blob))
            return list(self._network.forward(self._names))

    def _default_layer(self, layers: list[str]) -> str:
        """The input of the last fully connected layer; without one, the last layer but one."""
        types = [self._network.getLayer(name).type for name in layers]
        linear = [index for index, kind in enumerate(types) if kind in _LINEAR and index]
        return layers[linear[-1] - 1 if linear else max(0, len(layers) - 2)]

    def _takes_batches(self) -> bool:
        """Whether the outputs for a batch are those for its images one by one.

        They are not where a reshape has no batch dimension, like Torch's View(736) in OpenFace.
        """
        shape = (2, 3, self._card.size, self._card.size)
        blob = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
        single = [self._forward(blob[i : i + 1]) for i in range(2)]
        try:
            together = self._forward(blob)
        except UserError:
            return False
        return all(
            output.shape[0] == 2 and np.allclose(output, np.concatenate(alone), 1e-2, 1e-3)
            for output, alone in zip(together, zip(*single, strict=True), strict=True)
        )


@contextlib.contextmanager
def _opencv_errors(path: Path, hint: str = "") -> Iterator[None]:
    """Turns OpenCV's errors into a UserError, and keeps OpenCV from writing to the terminal."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    except (cv2.error, MemoryError) as error:
        reason = getattr(error, "err", "") or str(error) or type(error).__name__
        raise UserError(
            f"recognizer {path} can't be run by OpenCV{hint}: {' '.join(reason.split())[:300]}"
        ) from None
    finally:
        cv2.utils.logging.setLogLevel(level)


class _SavedModel:
    """A network that `--mode=recognizer` made."""

    batch = 32

    def __init__(self, folder: Path, inner: str, layer: str):
        import tensorflow as tf

        from tfadv.training.distribution import over_devices
        from tfadv.training.tf_errors import error_line

        _check_layer(folder, layer or inner, [inner])
        self.layer, self._folder = inner, folder
        try:
            self._model = tf.saved_model.load(str(folder))  # it dies with its last reference
        except Exception as error:  # a damaged file raises nearly anything, IndexError too
            raise UserError(f"recognizer {folder} does not load: {error_line(error)}") from None
        embed = self._model.signatures.get("embed")
        outputs = embed.structured_outputs if embed else ()
        if not {"embedding", "inner"} <= set(outputs):
            raise UserError(
                f"recognizer {folder} has no signature embed that returns embedding and inner; "
                f"make it with --mode=recognizer"
            )
        self.embed = lambda images: embed(images=images)
        self._embed = over_devices(self.embed)

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        try:
            outputs = self._embed(images)
        except (ValueError, TypeError) as error:  # its message holds the images
            raise UserError(
                f"recognizer {self._folder} does not take images {list(images.shape)}, the size in "
                f"its recognizer.json: {type(error).__name__}"
            ) from None
        return outputs["embedding"], outputs["inner"]


def _check_layer(path: Path, name: str, layers: list[str]) -> None:
    if name not in layers:
        near = difflib.get_close_matches(name, layers, n=4, cutoff=0.4) or layers[-4:]
        raise UserError(f"recognizer {path} has no layer {name}; it has {', '.join(near)}")
