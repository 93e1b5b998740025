"""--mode=attack: turns attackers loose on encoders they can only call, and reports."""

import itertools
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from tfadv.attacks.battery import Battery, Leak
from tfadv.attacks.black_box import SavedEncoder
from tfadv.attacks.scoring import EvaluationSet, Finding
from tfadv.config.errors import UserError
from tfadv.config.run_folder import RunFolder
from tfadv.config.schema import Config, defences
from tfadv.data.dataset import PUBLIC, TRAIN, WHOLE, Dataset
from tfadv.data.images import normalize
from tfadv.evaluation.metrics.features import lda_chance
from tfadv.evaluation.metrics.identity import chance
from tfadv.evaluation.recognition.embedding_cache import cache_folder, embed_split
from tfadv.evaluation.recognition.recognizer import Embeddings, Recognizer, load_recognizer
from tfadv.models import build
from tfadv.modes.scope import in_scope
from tfadv.reporting import attack, attack_tables, protect
from tfadv.training import trainer

UNPROTECTED = "unprotected"
_FOLDERS = ("checkpoints", "tensorboard", "embeddings")
_MOST_WEIGHTS = 2**28  # of M's first layer: 1 GiB, five times that while it learns


@in_scope
def run(workdir: RunFolder) -> None:
    """Attacks each encoder, compares with what needs no features, and reports."""
    config = workdir.config
    precision = trainer.set_up(config.runtime)
    dataset = Dataset(config.data)
    encoders = named_encoders(config.encoder)
    # All are called once now, so that a mistake about the last one shows before any attack.
    black_boxes = {
        name: SavedEncoder(path, config.black_box, dataset.size) for name, path in encoders.items()
    }
    recognizers = load_recognizers(config, dataset)
    if recognizers:
        for name, black_box in black_boxes.items():
            check_feature_map(config, name, black_box.feature_shape)
    g = build.load_g(config, workdir.mode)
    workdir.begin(
        dataset=dataset.description,
        precision=precision,
        encoders=encoders,
        recognizers={recognizer.name: recognizer.description for recognizer in recognizers},
    )
    protect.print_start(dataset, precision)
    if not recognizers:
        print(protect.NO_RECOGNIZER, flush=True)
    cache = cache_folder(workdir)
    test = EvaluationSet(dataset, recognizers, config, cache)
    leaks = {}
    for name, black_box in black_boxes.items():
        folder = workdir.path / name if leaks else workdir.path
        battery = Battery(black_box, dataset, test, recognizers, g, config, folder, name)
        leaks[name] = battery.run(cache)
        del battery  # the next one's pictures and features want the room
    references = measure_references(dataset, test, recognizers, cache)
    table = attack.write(workdir, dataset, leaks, references, test, recognizers)
    workdir.finish(flat_metrics(leaks, references))
    protect.print_result(workdir, table)


def named_encoders(paths: Sequence[str]) -> dict[str, str]:
    """Names the encoders for tables; adds the baseline trained beside the first, if any."""
    names = name_each(paths)
    baseline = beside(paths[0])
    if baseline is not None and baseline not in names.values():
        names[_free(UNPROTECTED, names)] = baseline
    return names


def name_each(paths: Sequence[str], taken: Sequence[str] = ()) -> dict[str, str]:
    """Returns a name for each encoder, none of them taken."""
    places, names = [Path(path) for path in paths], {}
    titles = [trained_as(path) for path in places]
    for path, title in zip(places, titles, strict=True):
        if title == "protected" and titles.count(title) > 1:
            title = _run_name(path)
        names[_free(title, (*names, *taken))] = str(path)
    return names


def beside(path: str) -> str | None:
    """Returns the encoder without defence that was trained beside one, if there is any."""
    baseline = Path(path).parent / UNPROTECTED / "encoder"
    return str(baseline) if baseline.exists() else None


def trained_as(path: Path) -> str:
    """What an encoder of ours was trained as; the folder's name of any other."""
    try:
        if not (path / "encoder.json").exists():
            return path.resolve().name
        config = json.loads((path.parent / "config.json").read_text())["config"]
        groups = {name: config.get(name, {}) for name in ("loss", "bottleneck")}
        values = {f"{name}.{leaf}": group[leaf] for name, group in groups.items() for leaf in group}
        return "protected" if defences(values) else UNPROTECTED
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ):  # there is none, or another program's
        return path.resolve().name


def _run_name(path: Path) -> str:
    """What the run of an encoder is called: lambda5 for runs/lambda5/protect/encoder."""
    parts = [part for part in path.absolute().parts if part not in ("encoder", "protect")]
    return parts[-1]


def _free(name: str, taken: Iterable[str]) -> str:
    """The name, with a number behind it if it is taken, or means something in a run's folder."""
    taken = {*taken, *attack_tables.LABELS, *_FOLDERS}
    numbered = (f"{name}_{i}" for i in itertools.count(2))
    return next(each for each in itertools.chain([name], numbered) if each not in taken)


def load_recognizers(config: Config, dataset: Dataset) -> list[Recognizer]:
    """Returns the recognisers that a config names, the one that M learns from first.

    Raises:
        UserError: one of them can't be read, or two have the same name.
    """
    fields, dataset_name = config.recognizer, config.data.dataset
    if not fields.path:
        return []
    recognizers = [load_recognizer(fields.path, fields.alignment, fields.layer, dataset_name)]
    for path in fields.others:
        recognizers.append(load_recognizer(path, fields.alignment, "", dataset_name))
    for one, other in itertools.combinations(recognizers, 2):
        if one.name == other.name:
            raise UserError(
                f"two recognisers are called {one.name}: rename the file or folder of one"
            )
        if one.digest == other.digest:
            raise UserError(
                f"recognisers {one.name} and {other.name} are the same: leave one out of "
                f"recognizer.others"
            )
    return recognizers


def check_feature_map(config: Config, name: str, feature_shape: tuple[int, ...]) -> None:
    """Raises a UserError if M would be too large for the features of an encoder."""
    fields = config.feature_map
    weights = math.prod(feature_shape) * fields.hidden
    if fields.pooling == "flatten" and weights > _MOST_WEIGHTS:
        raise UserError(
            f"M would have {weights:,} weights for the features {list(feature_shape)} of {name}: "
            f"set --config.feature_map.pooling=average or a smaller feature_map.hidden"
        )


def measure_references(
    dataset: Dataset, test: EvaluationSet, recognizers: list[Recognizer], cache: Path
) -> dict[str, Finding]:
    """Returns what needs no features: chance, the mean public face, the real picture."""
    mean = mean_face(dataset)
    seen = {recognizer.name: recognizer(mean[None]) for recognizer in recognizers}
    references = {
        "mean_face": test.of_pictures(
            test.batches(),
            lambda batch: np.stack([mean] * len(batch["images"])),
            lambda recognizer, batch: Embeddings(
                *(each.repeat(len(batch["images"]), axis=0) for each in seen[recognizer.name])
            ),
        )
    }
    guess = chance(test.identities) | lda_chance(test.identities)
    if recognizers:
        public = embed_split(recognizers[0], dataset, PUBLIC, TRAIN, cache).embedding
        guess |= test.of_one_guess(public.mean(0, keepdims=True)).metrics
        references["real_picture"] = test.of_real_pictures()
    if guess:
        references["chance"] = Finding(guess)
    return references


def mean_face(dataset: Dataset) -> np.ndarray:
    """Returns the mean public picture, float32 [S, S, 3] in [-1, 1]."""
    total = np.zeros((dataset.size, dataset.size, 3))
    for batch in dataset.batches(PUBLIC, WHOLE):
        total += normalize(batch["images"]).numpy().sum(0)
    return (total / dataset.count(PUBLIC)).astype(np.float32)


def flat_metrics(
    leaks: dict[str, Leak], references: dict[str, Finding]
) -> dict[str, float | list[float]]:
    """Names the first encoder's metrics plainly, those of the others NAME/METRIC."""
    flat = {}
    for i, (name, found) in enumerate((leaks | references).items()):
        prefix = f"{name}/" if i else ""
        flat |= {prefix + metric: value for metric, value in found.metrics.items()}
    return flat
