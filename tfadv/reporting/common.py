"""Texts that several pages share, and what every run prints on the terminal."""

import argparse
import shlex
import sys
import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from tfadv.attacks.attack import Attack
from tfadv.config import run_folder
from tfadv.config.run_folder import RunFolder
from tfadv.config.schema import Config
from tfadv.config.validation import dataset_folder
from tfadv.data.dataset import Dataset
from tfadv.evaluation.leakage_measures import LABELS
from tfadv.evaluation.results import EncoderResult
from tfadv.reporting.page import Table, format_table
from tfadv.reporting.text import printable

NO_RECOGNIZER = (
    "No face recognizer was given. Attacks that guess faces from features are not measured, and "
    "neither is whether a reconstruction shows the right person. Name a recognizer with "
    "--config.recognizer.path, or train one with --mode=recognizer."
)
_NO_IDENTITIES = (
    "The data set does not say that any two test images show the same person, so that "
    "re-identification, verification and linkage are not measured."
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


def not_measured(
    encoders: Mapping[str, EncoderResult],
    attacks: Mapping[str, Attack],
    *,
    has_recognizer: bool,
    has_identities: bool,
) -> list[str]:
    """Returns sentences that say what is not measured and which attacks have no result, and why."""
    sentences = [] if has_recognizer else [NO_RECOGNIZER]
    sentences += [] if has_identities else [_NO_IDENTITIES]
    not_applicable = defaultdict(list)
    for name, result in encoders.items():
        for key, attack in result.attacks.items():
            if attack.diverged:
                sentences.append(f"{attacks[key].title} on {name} diverged: {attack.diverged}.")
            elif attack.not_applicable:
                is_probe = LABELS in attacks[key].needs
                title = "Attribute inference" if is_probe else attacks[key].title
                not_applicable[title, attack.not_applicable].append(name)
    for (title, reason), names in not_applicable.items():
        sentences.append(f"{title} does not apply to {', '.join(dict.fromkeys(names))}: {reason}.")
    return sentences


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


def next_steps(run: RunFolder) -> str:
    """Returns what to run after an attack, with commands to copy between backticks.

    The audit gets the flags of this process's command, if that is an attack or a demo.
    """
    data = run.config.data
    folder = [f"--config.data.dir={data.dir}"] if data.dir != Config().data.dir else []
    dataset = f"--config.data.dataset={data.dataset}"
    program = "tfadv" if Path(sys.argv[0]).name == "tfadv" else "python run.py"
    train = shlex.join(["protect", "--config=recommended", dataset, *folder])
    audit = _audit_arguments(run)
    command = f": `{program} {shlex.join(audit)}`" if audit else "."
    return (
        f"Next, let an audit attack harder and longer{command} Or train what our audits recommend: "
        f"`{program} {train}`"
    )


def _audit_arguments(run: RunFolder) -> list[str]:
    """This process's arguments with the mode audit and a folder next to the run's."""
    if Path(sys.argv[0]).name not in ("run.py", "tfadv"):  # a user's own script
        return []
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--mode")
    parser.add_argument("--workdir")
    values, left = parser.parse_known_args(sys.argv[1:])
    mode = values.mode or left.pop(0)
    if mode not in ("attack", "demo"):
        return []
    path = run.path.with_name("audit" if run.path.name == run.mode else f"{run.path.name}-audit")
    return ["audit", *left, *([f"--workdir={path}"] if values.workdir else [])]


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
        # A command, between backticks, gets a line of its own, to be copied.
        for i, part in enumerate(printable(sentence).split("`")):
            if i % 2:
                print(f"    {part}")
            elif part.strip():
                print(textwrap.fill(part.strip(), 100, break_on_hyphens=False))
        print()
    files = {"encoder": "encoder", "report": "report.html", "images": "reconstructions.png"}
    for title, name in files.items():
        if (run.path / name).exists():
            print(f"{title:<12} {run.path / name}")
    # In the usual folders, TensorBoard then shows all modes of a config.
    folder = run.path.parent if run.path.name == run.mode else run.path
    print(f"{'TensorBoard':<12} tensorboard --logdir {folder}")
