"""--mode=attack: turns attackers loose on encoders they can only call, and reports."""

import json
from collections import Counter
from pathlib import Path

import numpy as np

from tfadv import training
from tfadv.config import Config, UserError
from tfadv.data import PUBLIC, WHOLE, Dataset, normalise
from tfadv.encoders import SavedEncoder
from tfadv.metrics.identity import chance
from tfadv.modes import attack_page, pages
from tfadv.modes.battery import Battery, Leak
from tfadv.modes.leakage import Finding, TestSplit
from tfadv.recognition import Recognizer, load_recognizer
from tfadv.workdir import Workdir

UNPROTECTED = "unprotected"


def run(workdir: Workdir) -> None:
    """Attacks each encoder, compares with what needs no features, and reports."""
    config = workdir.config
    precision = training.set_up(config.runtime)
    dataset = Dataset(config.data)
    encoders = named_encoders(config.encoder)
    # All are called once now, so that a mistake about the last one shows before any attack.
    black_boxes = {
        name: SavedEncoder(path, config.black_box, dataset.size) for name, path in encoders.items()
    }
    recognizers = load_recognizers(config, dataset)
    workdir.begin(
        dataset=dataset.description,
        precision=precision,
        encoders=encoders,
        recognizers={recognizer.name: recognizer.description for recognizer in recognizers},
    )
    pages.print_start(dataset, precision)
    test = TestSplit(dataset, recognizers, config, cache_folder(workdir))
    leaks = {}
    for name, black_box in black_boxes.items():
        folder = workdir.path / name if leaks else workdir.path
        battery = Battery(black_box, dataset, test, recognizers, config, folder, name)
        leaks[name] = battery.run(cache_folder(workdir))
    references = measure_references(dataset, test)
    table = attack_page.write(workdir, dataset, leaks, references, test, recognizers)
    workdir.finish(flat_metrics(leaks, references))
    pages.print_result(workdir, table)


def named_encoders(paths: tuple[str, ...]) -> dict[str, str]:
    """Names the encoders for tables; adds the baseline trained beside the first, if any."""
    names = {}
    for path in map(Path, paths):
        name = _name(path)
        names[name if name not in names else f"{name}_{len(names) + 1}"] = str(path)
    baseline = Path(paths[0]).parent / UNPROTECTED / "encoder"
    if baseline.exists() and str(baseline) not in names.values():
        names[UNPROTECTED] = str(baseline)
    return names


def _name(path: Path) -> str:
    """What an encoder of ours was trained as; the folder's name of any other."""
    record = path.parent / "config.json"
    if not (path / "encoder.json").exists() or not record.exists():
        return path.resolve().name
    loss = json.loads(record.read_text())["config"]["loss"]
    return "protected" if loss["lambda1"] or loss.get("lambda2") else UNPROTECTED


def load_recognizers(config: Config, dataset: Dataset) -> list[Recognizer]:
    """Returns the recognisers that a config names, the one that M learns from first.

    Raises:
        UserError: one of them can't be read, or two have the same name.
    """
    fields = config.recognizer
    paths = [path for path in (fields.path, *fields.others) if path]
    recognizers = [
        load_recognizer(path, fields.alignment, fields.layer, config.data.dataset) for path in paths
    ]
    for name, times in Counter(recognizer.name for recognizer in recognizers).items():
        if times > 1:
            raise UserError(f"two recognisers are called {name}: rename the file or folder of one")
    return recognizers


def cache_folder(workdir: Workdir) -> Path:
    """Where the embeddings of real pictures are kept: beside the data, for the next run too."""
    data_dir = workdir.config.data.dir
    return workdir.path / "embeddings" if "://" in data_dir else Path(data_dir) / "embeddings"


def measure_references(dataset: Dataset, test: TestSplit) -> dict[str, Finding]:
    """Returns what needs no features: chance, the mean public face, the real picture."""
    mean = mean_face(dataset)
    references = {
        "mean_face": test.of_pictures(
            test.batches(), lambda batch: np.stack([mean] * len(batch["images"]))
        )
    }
    if known := chance(test.identities):
        references["chance"] = Finding(known)
    if test.embeddings:
        references["real_picture"] = test.of_real_pictures()
    return references


def mean_face(dataset: Dataset) -> np.ndarray:
    """Returns the mean public picture, float32 [S, S, 3] in [-1, 1]."""
    total = np.zeros((dataset.size, dataset.size, 3))
    for batch in dataset.batches(PUBLIC, WHOLE):
        total += normalise(batch["images"]).numpy().sum(0)
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
