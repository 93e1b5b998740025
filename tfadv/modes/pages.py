"""What the pages and the terminal's tables of the modes say."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfadv import figures, report, workdir
from tfadv.data import Dataset
from tfadv.report import Card, Column, Figure, Section, Table, describe
from tfadv.text import format_value
from tfadv.training import History

NAMES = {"mean_face": "mean face"}

_UTILITY = "Measured with the exported SavedModels on test pictures, {}."
_ATTACKER = (
    "Dec^a is trained on public pictures and their features (Eq. 1), then given the features of "
    "test pictures, {}. The mean face is what an attacker without any feature would answer."
)
_READING = "The nearer SSIM and PSNR come to those of the mean face, the less the features leak."
_CONVERGED = (
    "An attacker who stops early flatters the defence. Dec^a went on until held-out public "
    "pictures no longer improved, and then at lower rates from its best point until that no "
    "longer helped; the best point counts. With more public pictures an attacker would do better."
)
_CAPPED = (
    "An attacker who stops early flatters the defence, and the attack on {} did: train.steps ended "
    "it while held-out public pictures may still have improved. Give it more steps."
)
_SIMULATED = (
    "The losses while Enc and f learned (Eq. 6, 7) and Dec tried to follow (Eq. 1). The Dec "
    "trained along is fooled more than a fresh attacker is: it says little about privacy. Run "
    "--mode=attack for that."
)


def write_protect_page(
    run: workdir.Workdir,
    dataset: Dataset,
    metrics: Mapping[str, Mapping[str, float]],
    history: History,
) -> Table:
    """Writes report.html of a protect run; returns its table for the terminal.

    Args:
        run: the run's folder.
        dataset: what it was trained and measured on.
        metrics: of this encoder first, then of the baseline if there is one; by name.
        history: of this encoder's training.
    """
    table = _comparison("Test split", "encoder", metrics, ("mcc", "mcc_tuned", "images_per_s"))
    bars = {
        name: {
            attribute.removeprefix("mcc/"): value
            for attribute, value in values.items()
            if attribute.startswith("mcc/")
        }
        for name, values in metrics.items()
    }
    names = ("utility", "public_reconstruction", "private_reconstruction")
    curves = {name.replace("_", " "): history.series(name) for name in names}
    curves = {name: points for name, points in curves.items() if points[0]}
    defended = bool(run.config.loss.lambda1)
    report.write_page(
        run.path / "report.html",
        f"Encoder trained with λ₁ = {run.config.loss.lambda1:g}",
        "How well the exported encoder and classifier do their task. What the features leak is "
        "measured by an attack.",
        [
            Section("Utility", [table], _UTILITY.format(_strangers(dataset))),
            Section(
                "Attribute by attribute",
                [Figure("MCC of each attribute", figures.bar_figure(bars, "Matthews correlation"))],
            ),
            Section(
                "Training",
                [Figure("Losses", figures.curve_figure(curves, "steps", "loss"))],
                _SIMULATED if defended else "The loss while Enc and f learned (Eq. 6).",
            ),
        ],
        workdir.summary(run.mode, run.config, dataset.description),
        _cards(metrics, ("mcc", "mcc_tuned")),
    )
    return table


def write_attack_page(
    run: workdir.Workdir, dataset: Dataset, findings: Mapping[str, Any], pictures: np.ndarray
) -> Table:
    """Writes report.html and reconstructions.png of an attack; returns its table.

    Args:
        run: the run's folder.
        dataset: what the attack was trained and measured on.
        findings: `attack.Finding` of each encoder and of the mean face, by name.
        pictures: the first test pictures, uint8 [N, S, S, 3].
    """
    findings = {NAMES.get(name, name): finding for name, finding in findings.items()}
    metrics = {name: finding.metrics for name, finding in findings.items()}
    curves = {name: finding.curve for name, finding in findings.items() if finding.curve[0]}
    curve = figures.curve_figure(curves, "steps of the attack", "mean squared error")
    capped = [name for name in curves if not metrics[name]["attack_converged"]]
    effort = _CAPPED.format(" and ".join(capped)) if capped else ""
    table = _comparison(
        "Utility and leakage",
        "features",
        metrics,
        ("mcc", "ssim", "psnr", "attack_steps"),
        note=effort or _READING,
    )
    sections = [
        Section("What the attacker recovered", [table], _ATTACKER.format(_strangers(dataset))),
        Section(
            "Did it try hard enough?",
            [Figure("Loss on held-out public pictures", curve)],
            effort or _CONVERGED,
        ),
    ]
    if run.config.report.pictures:
        rows = [("input", pictures)] + [(name, found.pictures) for name, found in findings.items()]
        png = figures.picture_grid(rows, run.path / "reconstructions.png")
        caption = f"Test pictures, {_strangers(dataset)}, and what was rebuilt from their features."
        grid = Figure("Input and reconstructions", png, caption)
        sections.insert(0, Section("Pictures", [grid]))
    subject = next(iter(findings))
    psnr = {name: format_value(values["psnr"], ".2f") for name, values in metrics.items()}
    report.write_page(
        run.path / "report.html",
        f"Model inversion attack on the {subject} encoder",
        f"An attacker with {dataset.sizes['public']:,} public pictures, who can call the encoder "
        f"but not look inside, rebuilt test pictures at {psnr[subject]} dB; guessing the mean "
        f"face gives {psnr['mean face']} dB.",
        sections,
        workdir.summary(run.mode, run.config, dataset.description),
        _cards(metrics, [name for name in ("mcc", "ssim", "psnr") if name in metrics[subject]]),
    )
    return table


def _strangers(dataset: Dataset) -> str:
    if dataset.shares_no_identity:
        return "of people in no other split"
    return "not seen in training, though people may be in several splits"


def _comparison(
    title: str,
    heading: str,
    metrics: Mapping[str, Mapping[str, float]],
    columns: Sequence[str],
    note: str = "",
) -> Table:
    """A row for each encoder, a column for each metric that any of them has."""
    columns = [name for name in columns if any(name in values for values in metrics.values())]
    rows = [[name, *(values.get(c) for c in columns)] for name, values in metrics.items()]
    return Table(title, [Column(heading), *map(describe, columns)], rows, note)


def _cards(metrics: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> list[Card]:
    """The first encoder's key numbers, each beside the others'."""
    (_, subject), *others = metrics.items()
    cards = []
    for name in names:
        column = describe(name)
        beside = [
            f"{other}: {format_value(values[name], column.format)}"
            for other, values in others
            if name in values
        ]
        cards.append(Card(column, subject[name], ", ".join(beside)))
    return cards


def print_start(dataset: Dataset, precision: str) -> None:
    """Prints what a run works on, and in which precision."""
    splits = ", ".join(f"{size:,} {name}" for name, size in dataset.sizes.items())
    print(f"{dataset.description['name']}: {splits} pictures; {precision}", flush=True)


def print_result(run: workdir.Workdir, table: Table) -> None:
    """Prints the table and where to look."""
    print(f"\n{report.format_table(table)}\n")
    for title, name in (
        ("encoder", "encoder"),
        ("report", "report.html"),
        ("pictures", "reconstructions.png"),
    ):
        if (run.path / name).exists():
            print(f"{title:<12} {run.path / name}")
    # Both modes of a config side by side, where they are in their usual places.
    folder = run.path.parent if run.path.name == run.mode else run.path
    print(f"{'TensorBoard':<12} tensorboard --logdir {folder}")
