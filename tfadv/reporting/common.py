"""Texts that several pages share, and what every run prints on the terminal."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from tfadv.config import run_folder
from tfadv.config.run_folder import RunFolder
from tfadv.config.validation import dataset_folder
from tfadv.data.dataset import Dataset
from tfadv.reporting.page import Table, format_table
from tfadv.reporting.text import printable

NO_RECOGNIZER = (
    "No face recognizer was given. Attacks that guess faces from features are not measured, and "
    "neither is whether a reconstruction shows the right person. Name a recognizer with "
    "--config.recognizer.path, or train one with --mode=recognizer."
)


def seen_in_training_note(dataset: Dataset) -> str:
    """Returns sentences that say whether the people in test images may be in the training data."""
    if dataset.shares_no_identity:
        note = "The people in the test images are in no other split."
    else:
        note = "The test images are in no other split, but other images of the same people may be."
    if dataset.extra:
        note += f" It is not known whether {', '.join(dataset.extra)} shows the same people."
    return note


def details(run: RunFolder, dataset: Dataset) -> dict[str, str]:
    """Returns what was run, for the end of a page."""
    config = run.config
    encoders = config.encoder or (str(run.path / "encoder"),)
    paths = {f"encoder {path}": path for path in encoders}
    paths["dataset"] = str(dataset_folder(config.data.dir, config.data.dataset))
    if config.recognizer.path:
        paths["recognizer"] = config.recognizer.path
    digests = {n: run_folder.digest(Path(path)) for n, path in paths.items() if Path(path).exists()}
    return run_folder.summary(run.mode, config, dataset.description, digests)


def print_dataset(dataset: Dataset, precision: str) -> None:
    """Prints the data set, its split sizes, the precision, and how many records were left out."""
    splits = ", ".join(f"{size:,} {name}" for name, size in dataset.sizes.items())
    extra = "".join(f", {n:,} of the public ones from {name}" for name, n in dataset.extra.items())
    print(f"{dataset.description['name']}: {splits} images{extra}; {precision}", flush=True)
    if damaged := dataset.description["damaged"]["records"]:
        example = dataset.faults[0]
        print(f"left out {damaged:,} damaged records (see config.json): {example}", flush=True)


def print_results(run: RunFolder, table: Table, sentences: Sequence[str] = ()) -> None:
    """Prints the table, what it means, and the paths of the files that the run wrote."""
    print(f"\n{format_table(table)}\n")
    for sentence in filter(None, sentences):
        print(textwrap.fill(printable(sentence), 100, break_on_hyphens=False) + "\n")
    files = {"encoder": "encoder", "report": "report.html", "images": "reconstructions.png"}
    for title, name in files.items():
        if (run.path / name).exists():
            print(f"{title:<12} {run.path / name}")
    # In the usual folders, TensorBoard then shows all modes of a config.
    folder = run.path.parent if run.path.name == run.mode else run.path
    print(f"{'TensorBoard':<12} tensorboard --logdir {folder}")
