"""Loads the encoders and recognizers of an attack or an audit, and names them for tables."""

import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from tfadv.attacks.black_box import SavedClassifier, SavedEncoder, load_classifier
from tfadv.attacks.feature_map import check_size
from tfadv.config import schema
from tfadv.config.errors import UserError
from tfadv.config.schema import defences
from tfadv.evaluation.leakage_measures import UNPROTECTED
from tfadv.evaluation.recognition.recognizer import Recognizer, load_recognizer

PROTECTED = "protected"


def load_encoders(
    paths: dict[str, str], settings: schema.BlackBox, size: int
) -> tuple[dict[str, SavedEncoder], dict[str, SavedClassifier]]:
    """Returns encoders by name, and the classifiers of those that have one beside them.

    Every encoder is called once, so that a mistake about the last one shows before any attack.

    Args:
        paths: name -> SavedModel.
        settings: how to call encoders that are not ours.
        size: pixels per side of the images.

    Raises:
        UserError: an encoder does not work.
    """
    encoders = {name: SavedEncoder(path, settings, size) for name, path in paths.items()}
    classifiers = {name: load_classifier(path) for name, path in paths.items()}
    return encoders, {name: each for name, each in classifiers.items() if each is not None}


def load_recognizers(settings: schema.Recognizer, dataset_name: str) -> list[Recognizer]:
    """Returns the recognizers that are named; attacks learn from the first.

    Raises:
        UserError: one of them cannot be read, or two are the same or have the same name.
    """
    if not settings.path:
        return []
    layers = {settings.path: settings.layer}
    recognizers = [
        load_recognizer(path, settings.alignment, layers.get(path, ""), dataset_name)
        for path in (settings.path, *settings.others)
    ]
    for one, other in itertools.combinations(recognizers, 2):
        if one.name == other.name:
            raise UserError(
                f"two recognizers are called {one.name}: rename the file or folder of one"
            )
        if one.digest == other.digest:
            raise UserError(
                f"recognizers {one.name} and {other.name} are the same: remove one from "
                f"recognizer.others"
            )
    return recognizers


def check_feature_maps(
    settings: schema.FeatureMap,
    encoders: dict[str, SavedEncoder],
    recognizers: Sequence[Recognizer],
) -> None:
    """Raises a UserError if M would be too large for the features of an encoder."""
    if recognizers:
        for name, encoder in encoders.items():
            check_size(settings, name, encoder.feature_shape)


def name_encoders(
    paths: Sequence[str], reserved: Iterable[str] = (), *, with_baseline: bool = False
) -> dict[str, str]:
    """Returns a name for each encoder, in order.

    Args:
        paths: SavedModels.
        reserved: names that no encoder may get.
        with_baseline: whether to add the unprotected encoder that was trained beside the first.
    """
    reserved, names = set(reserved), {}
    titles = [trained_as(path) for path in paths]
    for path, title in zip(paths, titles, strict=True):
        if title == PROTECTED and titles.count(PROTECTED) > 1:
            title = _run_name(Path(path))
        names[_free(title, {*names, *reserved})] = path
    if with_baseline:
        baseline = baseline_of(paths[0])
        if baseline is not None and baseline not in paths:
            names[_free(UNPROTECTED, {*names, *reserved})] = baseline
    return names


def baseline_of(path: str) -> str | None:
    """Returns the unprotected encoder that was trained beside an encoder, if there is one."""
    baseline = Path(path).parent / UNPROTECTED / "encoder"
    return str(baseline) if baseline.exists() else None


def trained_as(path: str) -> str:
    """Returns "protected" or "unprotected" for an encoder of ours, else its folder's name."""
    folder = Path(path)
    try:
        if not (folder / "encoder.json").exists():
            return folder.resolve().name
        config = json.loads((folder.parent / "config.json").read_text())["config"]
        groups = {name: config.get(name, {}) for name in ("loss", "bottleneck")}
        values = {f"{name}.{leaf}": group[leaf] for name, group in groups.items() for leaf in group}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return folder.resolve().name  # there is no config.json, or another program wrote it
    return PROTECTED if defences(values) else UNPROTECTED


def _run_name(path: Path) -> str:
    """The name of an encoder's run: lambda5 for runs/lambda5/protect/encoder."""
    parts = [part for part in path.absolute().parts if part not in ("encoder", "protect")]
    return parts[-1]


def _free(name: str, taken: set[str]) -> str:
    """The name, with a number appended if it is taken."""
    numbered = (f"{name}_{i}" for i in itertools.count(2))
    return next(each for each in itertools.chain([name], numbered) if each not in taken)
