"""The files of a face recognizer: their format, and the card that says how to prepare an image."""

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

# From the OpenFace project's own models/get-models.sh.
OPENFACE_ADDRESS = "https://storage.cmusatyalab.org/openface-models/nn4.small2.v1.t7"
OPENFACE_MD5 = "c95bfd8cc1adf05210e979ff623013b6"

KINDS = {".t7": "Torch7", ".caffemodel": "Caffe", ".onnx": "ONNX"}


@dataclasses.dataclass(frozen=True)
class RecognizerCard:
    """How a network wants its images. `FILE.json` next to the network's file overrides any field.

    The defaults are those of MobileFaceNet and the ArcFace family.
    """

    size: int = 112  # pixels per side
    mean: tuple[float, ...] = (127.5, 127.5, 127.5)  # of R, G, B in 0..255, subtracted
    scale: float = 1 / 128  # then multiplied by this
    channels: str = "RGB"  # or BGR, the order that the network wants
    output: str = ""  # the layer that gives the embedding; empty: the last
    layer: str = ""  # the inner layer; empty: the input of the last fully connected layer
    template: tuple[tuple[float, ...], ...] = ()  # x, y of eyes, nose, corners of the mouth


# OpenFace aligns by other landmarks (Dlib's), which our images do not have.
_DEFAULTS = {
    ".t7": RecognizerCard(size=96, mean=(0.0, 0.0, 0.0), scale=1 / 255),
    ".caffemodel": RecognizerCard(template=ARCFACE_TEMPLATE),
    ".onnx": RecognizerCard(template=ARCFACE_TEMPLATE),
}


def check_recognizer(path: str) -> None:
    """Checks a recognizer's files without reading its network.

    Raises:
        UserError: it does not exist, is of no known kind, or lacks a file, or its card is wrong.
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
        raise UserError(f"recognizer {path} needs {file.with_suffix('.prototxt').name} next to it")


def read_card(file: Path) -> RecognizerCard:
    """Returns how a network wants its images: the defaults of its kind, changed by `FILE.json`.

    Raises:
        UserError: the card has an unknown key or a wrong value.
    """
    default, path = _DEFAULTS[file.suffix], file.with_name(f"{file.name}.json")
    card = _read_json(path) if path.exists() else {}
    for name, value in card.items():
        if name not in _RULES:
            raise UserError(f"{path} has an unknown key {name}; it may have {', '.join(_RULES)}")
        _check(path, name, value, _RULES[name])
    if isinstance(card.get("mean"), int | float):
        card["mean"] = [card["mean"]] * 3
    if "size" in card and "template" not in card:
        scale = card["size"] / default.size
        card["template"] = [[scale * x, scale * y] for x, y in default.template]
    if "mean" in card:
        card["mean"] = tuple(card["mean"])
    if "template" in card:
        card["template"] = tuple(map(tuple, card["template"]))
    return dataclasses.replace(default, **card)


def read_description(folder: Path) -> dict[str, Any]:
    """Returns `recognizer.json` of a SavedModel, in which `size` and `inner` are valid.

    Raises:
        UserError: the folder lacks a file, or the description is wrong.
    """
    for name in ("saved_model.pb", "recognizer.json"):
        if not (folder / name).is_file():
            raise UserError(
                f"recognizer {folder} has no {name}; a folder must be one that --mode=recognizer "
                f"made"
            )
    path = folder / "recognizer.json"
    description = _read_json(path)
    _check(path, "size", description.get("size"), _RULES["size"])
    _check(path, "inner", description.get("inner"), _RULES["layer"])
    return description


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} can't be read: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must be a JSON object")
    return content


def _check(path: Path, name: str, value: Any, rule: tuple) -> None:
    is_valid, meaning = rule
    if not is_valid(value):
        raise UserError(f"{path}: {name} is {value!r}; it must be {meaning}")


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= sys.float_info.max


def _are_numbers(values: Any, count: int) -> bool:
    return isinstance(values, list) and len(values) == count and all(map(_is_number, values))


# Key of a card -> whether a value is valid, and what it must be.
_RULES = {
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
