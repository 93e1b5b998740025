"""What lies on disk of a face recogniser: its kind, and how it wants its pictures."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from tfadv.config.errors import UserError

# Where MobileFaceNet and the ArcFace family want eyes, nose and corners of the mouth, in 112 x 112.
ARCFACE_TEMPLATE = (
    (38.29, 51.70),
    (73.53, 51.50),
    (56.03, 71.74),
    (41.55, 92.37),
    (70.73, 92.20),
)

# As the OpenFace project's own models/get-models.sh has it.
OPENFACE_ADDRESS = "https://storage.cmusatyalab.org/openface-models/nn4.small2.v1.t7"
OPENFACE_MD5 = "c95bfd8cc1adf05210e979ff623013b6"

KINDS = {".t7": "Torch7", ".caffemodel": "Caffe", ".onnx": "ONNX"}


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
            hint = f"; OpenFace's is {OPENFACE_ADDRESS} (MD5 {OPENFACE_MD5})"
        raise UserError(f"recognizer {path} does not exist{hint}")
    if file.is_dir():
        read_description(file)
    elif file.suffix in KINDS:
        read_card(file)
    else:
        raise UserError(
            f"recognizer {path} is of no known kind; it must be a {', '.join(KINDS)} file or a "
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


def read_description(folder: Path) -> dict[str, Any]:
    """Returns what `recognizer.json` says of a SavedModel.

    Raises:
        UserError: the folder isn't whole, or the file says nothing usable.
    """
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
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} can't be read: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must be a JSON object")
    return content


def _card_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= sys.float_info.max


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
