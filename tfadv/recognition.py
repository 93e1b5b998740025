"""C, the face recognisers that identity is measured with.

A recogniser turns pictures into embeddings that are close where the person is the same, and gives
an inner layer's output beside them. It is a file that OpenCV reads (OpenFace's Torch file, Caffe,
ONNX) or a SavedModel that `--mode=recognizer` made. TensorFlow is imported for the latter only.
"""

import contextlib
import dataclasses
import difflib
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from tfadv.config import UserError

# Eyes, nose and corners of the mouth: where they lie on average in CelebA's aligned pictures of
# 178 x 218 pixels, and where MobileFaceNet and the ArcFace family want them in 112 x 112.
CELEBA_LANDMARKS = ((69.5, 111.3), (107.9, 111.3), (88.2, 134.6), (72.7, 152.3), (105.6, 152.2))
ARCFACE_TEMPLATE = (
    (38.29, 51.70),
    (73.53, 51.50),
    (56.03, 71.74),
    (41.55, 92.37),
    (70.73, 92.20),
)
# Ours are the centred squares of CelebA's pictures.
_CELEBA_SIDE, _CELEBA_TOP = 178, 20

# On 2,000 public CelebA pictures at 64 pixels MobileFaceNet's verification AUC is 0.9776 with
# cubic and 0.9763 with linear interpolation, its rank-1 0.918 and 0.902.
INTERPOLATION = "cubic"

_BATCH = 32
_KINDS = {".t7": "Torch7", ".caffemodel": "Caffe", ".onnx": "ONNX"}
_LINEAR = ("InnerProduct", "Gemm", "MatMul")

Network = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Embeddings(NamedTuple):
    """What a recogniser says of N pictures."""

    embedding: np.ndarray  # float32 [N, E], of length 1
    inner: np.ndarray  # float32 [N, I], the flattened output of the inner layer


@dataclasses.dataclass(frozen=True)
class Card:
    """How a network wants its pictures; `FILE.json` beside the file overrides any of it.

    The defaults are those of MobileFaceNet and of the ArcFace family.
    """

    size: int = 112  # pixels a side
    mean: tuple[float, ...] = (127.5, 127.5, 127.5)  # of R, G, B in 0..255, subtracted
    scale: float = 1 / 128  # then multiplied by this
    channels: str = "RGB"  # or BGR, the order that the network wants
    output: str = ""  # the layer that gives the embedding; empty: the last
    layer: str = ""  # the inner layer; empty: what the last fully connected layer is fed
    template: tuple[tuple[float, ...], ...] = ()  # x, y of eyes, nose, corners of the mouth


# OpenFace aligns by other landmarks (Dlib's), which our pictures don't come with.
_DEFAULTS = {
    ".t7": Card(size=96, mean=(0.0, 0.0, 0.0), scale=1 / 255),
    ".caffemodel": Card(template=ARCFACE_TEMPLATE),
    ".onnx": Card(template=ARCFACE_TEMPLATE),
}


class Recognizer:
    """A callable from pictures to `Embeddings`.

    Attributes:
        name: of its file or folder, without the suffix.
        layer: the inner layer's name.
        alignment: celeba or whole, what is done to the pictures.
        digest: the SHA-256 of its files, which tells it from any other.
        description: what it is, for a report.
    """

    def __init__(
        self,
        path: Path,
        kind: str,
        network: Network,
        *,
        size: int,
        layer: str,
        template: tuple[tuple[float, ...], ...],
    ):
        self.name = path.stem if path.is_file() else path.resolve().name
        self.layer = layer
        self.alignment = "celeba" if template else "whole"
        self.digest = _digest(path)
        self._path, self._network = path, network
        self._size, self._template = size, template
        probe = self(np.zeros((1, size, size, 3), np.float32))
        self.description = {
            "name": self.name,
            "kind": kind,
            "input_size": size,
            "alignment": self.alignment,
            "interpolation": INTERPOLATION,
            "embedding": probe.embedding.shape[1],
            "layer": layer,
            "inner": probe.inner.shape[1],
            "sha256": self.digest,
        }

    def __call__(self, pictures: np.ndarray) -> Embeddings:
        """Embeds pictures, a few at a time.

        Args:
            pictures: float32 [N, S, S, 3], RGB in [-1, 1], N at least 1.

        Raises:
            UserError: the network's output isn't one finite vector a picture.
        """
        starts = range(0, len(pictures), _BATCH)
        parts = [self._embed(pictures[start : start + _BATCH]) for start in starts]
        return Embeddings(*map(np.concatenate, zip(*parts, strict=True)))

    def _embed(self, pictures: np.ndarray) -> Embeddings:
        embedding, inner = self._network(align(pictures, self._size, self._template))
        if embedding.ndim != 2 or len(embedding) != len(pictures):
            raise UserError(
                f"recognizer {self._path} gives {list(embedding.shape)} for {len(pictures)} "
                f"picture(s); an embedding must be [N, E]: name another output in its card"
            )
        if not (np.isfinite(embedding).all() and np.isfinite(inner).all()):
            raise UserError(f"recognizer {self._path} gives embeddings that are not finite")
        embedding = embedding.astype(np.float32)
        length = np.linalg.norm(embedding, axis=1, keepdims=True)
        embedding = embedding / np.maximum(length, np.finfo(np.float32).tiny)
        return Embeddings(embedding, inner.reshape(len(pictures), -1).astype(np.float32))


def load_recognizer(path: str, alignment: str, layer: str, dataset_name: str) -> Recognizer:
    """Reads a recogniser.

    Args:
        path: a .t7, .caffemodel or .onnx file, or a folder that `--mode=recognizer` made.
        alignment: `celeba` moves the face to where the recogniser wants it, by the fixed transform
            that fits CelebA's mean landmarks; a recogniser that has no template (OpenFace, ours)
            takes the whole picture all the same. `whole`: the whole picture. `auto`: `celeba` for
            datasets whose name says that they are CelebA.
        layer: of the inner layer. Empty: the card's, else what the last fully connected layer is
            fed (the paper's "e.g. layer 3" names no layer of nn4.small2). It is small in every
            kind, 512 numbers in MobileFaceNet and 736 in OpenFace, and the same thing as `avgpool`
            in ours; the maps before it say far less about who it is.
        dataset_name: as in `data.dataset`.

    Raises:
        UserError: it can't be read, or has no such layer.
    """
    check_recognizer(path)
    is_celeba = dataset_name.startswith(("celeba", "celeb_a"))
    aligned = alignment == "celeba" or (alignment == "auto" and is_celeba)
    file = Path(path)
    if file.is_dir():
        description = _description(file)
        network = _SavedModel(file, description["inner"], layer)
        kind, size, template = "SavedModel", description["size"], ()
    else:
        card = read_card(file)
        network = _OpenCv(file, card, layer or card.layer)
        kind, size = f"{_KINDS[file.suffix]}, read by OpenCV", card.size
        template = card.template if aligned else ()
    return Recognizer(file, kind, network, size=size, layer=network.layer, template=template)


def check_recognizer(path: str) -> None:
    """Checks what can be told of a recogniser without reading its network.

    Raises:
        UserError: it doesn't exist, is of no known kind, lacks a file that belongs to it, or its
            card is wrong.
    """
    file = Path(path)
    if not file.exists():
        hint = ""
        if file.suffix == ".t7":
            hint = (
                "; OpenFace's is nn4.small2.v1.t7 (Amos et al. 2016, from the OpenFace project's "
                "models), which OpenCV 4 reads"
            )
        raise UserError(f"recognizer {path} does not exist{hint}")
    if file.is_dir():
        _description(file)
    elif file.suffix in _KINDS:
        read_card(file)
    else:
        raise UserError(
            f"recognizer {path} is of no known kind; it must be a {', '.join(_KINDS)} file or a "
            f"folder that --mode=recognizer made"
        )
    if file.suffix == ".caffemodel" and not file.with_suffix(".prototxt").is_file():
        raise UserError(f"recognizer {path} needs {file.with_suffix('.prototxt').name} beside it")


def read_card(file: Path) -> Card:
    """Returns how a network wants its pictures: its kind's defaults and `FILE.json`.

    Raises:
        UserError: the card has a key or a value that it can't have.
    """
    default, path = _DEFAULTS[file.suffix], _card_of(file)
    given = _json(path) if path.exists() else {}
    for name, value in given.items():
        if name not in _VALID:
            raise UserError(f"{path} has an unknown key {name}; it may have {', '.join(_VALID)}")
        check, meaning = _VALID[name]
        if not check(value):
            raise UserError(f"{path}: {name} is {value!r}; it must be {meaning}")
    if isinstance(given.get("mean"), int | float):
        given["mean"] = [given["mean"]] * 3
    if "size" in given and "template" not in given:
        scale = given["size"] / default.size
        given["template"] = [[scale * x, scale * y] for x, y in default.template]
    for name in set(given) & {"mean", "template"}:
        given[name] = tuple(tuple(v) if isinstance(v, list) else v for v in given[name])
    return dataclasses.replace(default, **given)


def align(
    pictures: np.ndarray, size: int, template: tuple[tuple[float, ...], ...] = ()
) -> np.ndarray:
    """Returns pictures as a recogniser wants them.

    Args:
        pictures: float32 [N, S, S, 3] in [-1, 1].
        size: pixels a side of the result.
        template: where CelebA's mean landmarks go, x and y of five points in pixels of the result;
            empty: the whole picture is resized.

    Returns:
        float32 [N, size, size, 3] in [-1, 1].
    """
    if not template:
        return np.stack([_resize(picture, size) for picture in pictures])
    # CelebA's pictures hold no more: larger ones would only alias.
    side = min(pictures.shape[1], _CELEBA_SIDE)
    landmarks = np.array(CELEBA_LANDMARKS) - (0, _CELEBA_TOP)
    landmarks = (landmarks + 0.5) * side / _CELEBA_SIDE - 0.5
    transform = similarity_transform(landmarks, np.array(template))
    warped = [
        cv2.warpAffine(
            _resize(picture, side),
            transform,
            (size, size),
            flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REPLICATE,
        )
        for picture in pictures
    ]
    return np.clip(np.stack(warped), -1.0, 1.0)


def similarity_transform(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns the rotation, scale and shift that bring points nearest to others (least squares).

    As Umeyama (1991), without reflection. In the complex plane it is a regression on one number.

    Args:
        source: [K, 2], x and y.
        target: [K, 2].

    Returns:
        float64 [2, 3], for `cv2.warpAffine`.
    """
    a, b = (points @ (1, 1j) for points in (source, target))
    factor = np.vdot(a - a.mean(), b - b.mean()) / np.vdot(a - a.mean(), a - a.mean())
    shift = b.mean() - factor * a.mean()
    return np.array(
        [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    )


def _resize(picture: np.ndarray, size: int) -> np.ndarray:
    if picture.shape[:2] == (size, size):
        return picture
    method = cv2.INTER_AREA if size < len(picture) else cv2.INTER_CUBIC
    return np.clip(cv2.resize(picture, (size, size), interpolation=method), -1.0, 1.0)


class _OpenCv:
    """A network that OpenCV runs: pictures in [-1, 1] to embedding and inner layer."""

    def __init__(self, path: Path, card: Card, layer: str):
        self._path, self._card = path, card
        with _opencv(path):
            self._network = _read(path)
            layers = list(self._network.getLayerNames())
            outputs = list(self._network.getUnconnectedOutLayersNames())
        output = card.output or outputs[-1]
        self.layer = layer or self._default_layer(layers)
        for name in (output, self.layer):
            _check_layer(path, name, layers)
        self._names = [output, self.layer]
        self._batch = _BATCH if self._takes_batches() else 1

    def __call__(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pixels = (pictures + 1.0) * 127.5
        blob = (pixels - np.float32(self._card.mean)) * np.float32(self._card.scale)
        if self._card.channels == "BGR":
            blob = blob[..., ::-1]
        blob = np.ascontiguousarray(blob.transpose(0, 3, 1, 2))
        starts = range(0, len(blob), self._batch)
        parts = [self._forward(blob[start : start + self._batch]) for start in starts]
        embedding, inner = map(np.concatenate, zip(*parts, strict=True))
        return embedding, inner

    def _forward(self, blob: np.ndarray) -> list[np.ndarray]:
        with _opencv(self._path):
            self._network.setInput(blob)
            # Copies: OpenCV writes the next pictures' results into the same memory.
            return [np.array(output) for output in self._network.forward(self._names)]

    def _default_layer(self, layers: list[str]) -> str:
        """What the last fully connected layer is fed; the last layer but one if there is none."""
        types = [self._network.getLayer(name).type for name in layers]
        linear = [index for index, kind in enumerate(types) if kind in _LINEAR and index]
        return layers[linear[-1] - 1 if linear else max(0, len(layers) - 2)]

    def _takes_batches(self) -> bool:
        """Whether several pictures at once give what each gives alone.

        They don't where a reshape has no dimension for the batch, as Torch's View(736) in OpenFace.
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


def _read(path: Path) -> "cv2.dnn.Net":
    if path.suffix == ".t7":
        return cv2.dnn.readNetFromTorch(str(path))
    if path.suffix == ".caffemodel":
        return cv2.dnn.readNetFromCaffe(str(path.with_suffix(".prototxt")), str(path))
    return cv2.dnn.readNetFromONNX(str(path))


@contextlib.contextmanager
def _opencv(path: Path) -> Iterator[None]:
    """Keeps OpenCV from writing to the terminal; its errors become ours."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    except (cv2.error, MemoryError) as error:
        reason = getattr(error, "err", "") or str(error) or type(error).__name__
        raise UserError(
            f"recognizer {path} can't be run by OpenCV: {' '.join(reason.split())[:300]}"
        ) from None
    finally:
        cv2.utils.logging.setLogLevel(level)


class _SavedModel:
    """A network that `--mode=recognizer` made: pictures in [-1, 1] to embedding and inner layer."""

    def __init__(self, folder: Path, inner: str, layer: str):
        import tensorflow as tf

        _check_layer(folder, layer or inner, [inner])
        self.layer = inner
        try:
            self._model = tf.saved_model.load(str(folder))  # it dies with its last reference
        except Exception as error:  # a damaged file raises nearly anything
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"recognizer {folder} does not load: {reason}") from None
        self._embed = self._model.signatures.get("embed")
        outputs = self._embed.structured_outputs if self._embed else ()
        if not {"embedding", "inner"} <= set(outputs):
            raise UserError(
                f"recognizer {folder} has no signature embed that returns embedding and inner; "
                f"make it with --mode=recognizer"
            )

    def __call__(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        outputs = self._embed(images=pictures)
        return outputs["embedding"].numpy(), outputs["inner"].numpy()


def _check_layer(path: Path, name: str, layers: list[str]) -> None:
    if name in layers:
        return
    near = difflib.get_close_matches(name, layers, n=4, cutoff=0.4) or layers[-4:]
    raise UserError(f"recognizer {path} has no layer {name}; it has {', '.join(near)}")


def _description(folder: Path) -> dict[str, Any]:
    """What `recognizer.json` says of a SavedModel."""
    for name in ("saved_model.pb", "recognizer.json"):
        if not (folder / name).is_file():
            raise UserError(
                f"recognizer {folder} has no {name}; a folder must be one that --mode=recognizer "
                f"made"
            )
    path = folder / "recognizer.json"
    description = _json(path)
    for name in ("size", "inner"):
        check, meaning = _VALID["size" if name == "size" else "layer"]
        if not check(description.get(name)):
            raise UserError(f"{path}: {name} is {description.get(name)!r}; it must be {meaning}")
    return description


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must be a JSON object")
    return content


def _card_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def _digest(path: Path) -> str:
    files = [path, path.with_suffix(".prototxt"), _card_of(path)]
    if path.is_dir():
        files = [path / "saved_model.pb", path / "recognizer.json"]
        files += sorted(path.glob("variables/*"))
    digests = [hashlib.sha256(f.read_bytes()).hexdigest() if f.is_file() else "" for f in files]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _are_numbers(values: Any, count: int) -> bool:
    return isinstance(values, list) and len(values) == count and all(map(_is_number, values))


_VALID = {
    "size": (lambda v: type(v) is int and 1 <= v <= 1024, "a whole number from 1 to 1024"),
    "mean": (lambda v: _is_number(v) or _are_numbers(v, 3), "a number, or three for R, G, B"),
    "scale": (lambda v: _is_number(v) and v != 0, "a number other than 0"),
    "channels": (lambda v: v in ("RGB", "BGR"), "RGB or BGR"),
    "output": (lambda v: isinstance(v, str), "the name of a layer"),
    "layer": (lambda v: isinstance(v, str), "the name of a layer"),
    "template": (
        lambda v: isinstance(v, list) and len(v) == 5 and all(_are_numbers(p, 2) for p in v),
        "five points [x, y]: eyes, nose, corners of the mouth",
    ),
}
