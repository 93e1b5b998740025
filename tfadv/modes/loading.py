"""What an attack and an audit have in common: encoders, recognizers and the attack suite."""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tfadv.attacks.attack import Attack
from tfadv.attacks.black_box import SavedClassifier, SavedEncoder, load_classifier
from tfadv.attacks.feature_map import check_size
from tfadv.attacks.suite import Suite
from tfadv.config import schema
from tfadv.config.errors import UserError
from tfadv.config.fields import defences
from tfadv.config.run_folder import RunFolder
from tfadv.data.dataset import TEST, WHOLE, Dataset
from tfadv.evaluation.leakage_measures import UNPROTECTED
from tfadv.evaluation.recognition.embedding_cache import cache_folder
from tfadv.evaluation.recognition.recognizer import Recognizer, load_recognizer
from tfadv.models import build
from tfadv.reporting import common

PROTECTED = "protected"
_TRIED = 64  # images


def load_encoders(
    paths: dict[str, str], settings: schema.BlackBox, dataset: Dataset
) -> tuple[dict[str, SavedEncoder], dict[str, SavedClassifier]]:
    """Returns encoders by name, and the classifiers of those that have one beside them.

    Every encoder is called once, so that a mistake about the last one shows before any attack. The
    input range of encoders that are not ours is printed.

    Args:
        paths: name -> SavedModel.
        settings: how to call encoders that are not ours.
        dataset: where the images come from; the encoders are tried on test images.

    Raises:
        UserError: an encoder does not work.
    """
    images = next(iter(dataset.batches(TEST, WHOLE, _TRIED)))["images"].numpy()
    encoders = {}
    for name, path in paths.items():
        encoders[name] = SavedEncoder(path, settings, dataset.size, images)
        if not encoders[name].split:
            print(f"{name}: called with {encoders[name].range}", flush=True)
    classifiers = {name: load_classifier(path) for name, path in paths.items()}
    return encoders, {name: each for name, each in classifiers.items() if each is not None}


def load_recognizers(settings: schema.Recognizer, dataset_name: str) -> list[Recognizer]:
    """Returns the recognizers that are named; attacks learn from the first.

    Raises:
        UserError: one of them cannot be read, or two are the same or have the same name.
    """
    if not settings.path:
        return []
    recognizers = [
        load_recognizer(settings.path, settings.alignment, settings.layer, dataset_name),
        *(load_recognizer(path, settings.alignment, "", dataset_name) for path in settings.others),
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


def start(
    run: RunFolder,
    dataset: Dataset,
    precision: str,
    encoders: Mapping[str, SavedEncoder],
    recognizers: Sequence[Recognizer],
    attacks: Mapping[str, Attack],
) -> Suite:
    """Begins a run, prints what it works on, and returns its attack suite.

    Args:
        run: the run's folder, with its config.
        dataset: where the images come from.
        precision: of the networks that are trained.
        encoders: name -> encoder.
        recognizers: C; attacks learn from the first.
        attacks: name -> attack.

    Raises:
        UserError: M would be too large, or VGG19's weights cannot be read.
    """
    config = run.config
    if recognizers:
        for name, encoder in encoders.items():
            check_size(config.feature_map, name, encoder.feature_shape)
    g = build.load_vgg(config, run.mode)
    run.begin(
        dataset=dataset.description,
        precision=precision,
        encoders={name: encoder.path for name, encoder in encoders.items()},
        recognizers={recognizer.name: recognizer.description for recognizer in recognizers},
    )
    common.print_dataset(dataset, precision)
    if not recognizers:
        print(common.NO_RECOGNIZER, flush=True)
    return Suite(
        dataset,
        recognizers,
        cache_folder(config.data.dir, run.path),
        attacks,
        g=g,
        memory_mb=config.attack.cache_mb,
        replicates=config.metrics.replicates,
        seed=config.runtime.seed,
        examples=config.report.examples if config.report.pictures else 0,
    )


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
        if title == PROTECTED and titles.count(PROTECTED) > 1:  # lambda5/protect/encoder: lambda5
            parts = Path(path).absolute().parts
            title = [part for part in parts if part not in ("encoder", "protect")][-1]
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


def _free(name: str, taken: set[str]) -> str:
    """The name, with a number appended if it is taken."""
    numbered = (f"{name}_{i}" for i in itertools.count(2))
    return next(each for each in itertools.chain([name], numbered) if each not in taken)
