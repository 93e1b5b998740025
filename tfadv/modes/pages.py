"""What the pages and the terminal's tables of the modes say."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfadv import figures, report, workdir
from tfadv.report import Card, Column, Figure, Section, Table, describe
from tfadv.text import format_value

NAMES = {"mean_face": "mean face"}

_ATTACKER = (
    "Dec^a is trained on public pictures and their features (Eq. 1), then given the features of "
    "test pictures. The mean face is what an attacker without any feature would answer."
)
_EFFORT = (
    "An attacker who stops early flatters the defence. Dec^a went on until held-out public "
    "pictures no longer improved, and then at lower rates from its best point until that no "
    "longer helped."
)
_CAPPED = " The cap train.steps ended the attack on {}: it may not have learned all it could."
_SIMULATED = (
    "The losses while Enc and f learned (Eq. 6, 7) and Dec tried to follow (Eq. 1). The Dec "
    "trained along is fooled more than a fresh attacker is: it says little about privacy. Run "
    "--mode=attack for that."
)


def write_protect_page(
    run: workdir.Workdir,
    dataset: Mapping[str, Any],
    metrics: Mapping[str, Mapping[str, float]],
    history: Any,
) -> Table:
    """Writes report.html of a protect run; returns its table for the terminal.

    Args:
        run: the run's folder.
        dataset: its description.
        metrics: of this encoder first, then of the baseline if there is one; by name.
        history: of this encoder's training.
    """
    table = _comparison(metrics, "encoder", ("mcc", "mcc_tuned", "mcc_task", "images_per_s"))
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
    sections = [
        Section("Utility", [table], "Measured on the test split with the exported SavedModels."),
        Section(
            "Attribute by attribute",
            [Figure("", figures.bar_figure(bars, "Matthews correlation on the test split"))],
        ),
        Section(
            "Training", [Figure("", figures.curve_figure(curves, "steps", "loss"))], _SIMULATED
        ),
    ]
    report.write_page(
        run.path / "report.html",
        f"Encoder trained with λ₁ = {run.config.loss.lambda1:g}",
        "How well the exported encoder and classifier do their task on pictures of people they "
        "never saw. What the features leak is measured by an attack.",
        sections,
        workdir.summary(run.mode, run.config, dataset),
        _cards(metrics, ("mcc", "mcc_tuned", "images_per_s")),
    )
    return table


def write_attack_page(
    run: workdir.Workdir,
    dataset: Mapping[str, Any],
    findings: Mapping[str, Any],
    pictures: np.ndarray,
) -> Table:
    """Writes report.html and reconstructions.png of an attack; returns its table."""
    findings = {NAMES.get(name, name): finding for name, finding in findings.items()}
    metrics = {name: finding.metrics for name, finding in findings.items()}
    table = _comparison(metrics, "features of", ("mcc", "ssim", "psnr", "attack_steps"))
    curves = {name: finding.curve for name, finding in findings.items() if finding.curve[0]}
    capped = [name for name in curves if not metrics[name]["attack_converged"]]
    effort = _EFFORT + (_CAPPED.format(" and ".join(capped)) if capped else "")
    label = "mean squared error, held-out public"
    sections = [
        Section("What the attacker recovered", [table], _ATTACKER),
        Section(
            "Did it try hard enough?",
            [Figure("", figures.curve_figure(curves, "steps of the attack", label))],
            effort,
        ),
    ]
    if run.config.report.pictures:
        rows = [("input", pictures)]
        rows += [(f"from {name}", finding.pictures) for name, finding in findings.items()]
        png = figures.picture_grid(rows, run.path / "reconstructions.png")
        caption = "Pictures of the test split: neither Enc nor Dec^a was trained on these people."
        sections.insert(0, Section("Pictures", [Figure("", png, caption)]))
    subject = next(iter(findings))
    report.write_page(
        run.path / "report.html",
        f"Model inversion attack on {subject}",
        f"An attacker with {dataset['splits']['public']:,} public pictures, who can call the "
        f"encoder but not look inside, learned to turn its features back into pictures.",
        sections,
        workdir.summary(run.mode, run.config, dataset),
        _cards(metrics, [name for name in ("mcc", "ssim", "psnr") if name in metrics[subject]]),
    )
    return table


def _comparison(
    metrics: Mapping[str, Mapping[str, float]], heading: str, columns: Sequence[str]
) -> Table:
    """A row for each encoder, a column for each metric that any of them has."""
    columns = [name for name in columns if any(name in values for values in metrics.values())]
    rows = [[name, *(values.get(c) for c in columns)] for name, values in metrics.items()]
    return Table("", [Column(heading), *map(describe, columns)], rows)


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


def print_start(dataset: Mapping[str, Any], precision: str) -> None:
    """Prints what a run works on, and where."""
    splits = ", ".join(f"{size:,} {name}" for name, size in dataset["splits"].items())
    print(f"{dataset['name']}: {splits} pictures; computing in {precision}", flush=True)


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
    print(f"{'TensorBoard':<12} tensorboard --logdir {run.path.parent}")
