"""The page of --mode=protect: how well the exported encoder and classifier do their task."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfadv.reporting import figures
from tfadv.reporting.page import Figure, Section, Table, write_page
from tfadv.reporting.tables import Metrics, cards, comparison
from tfadv.reporting.text import format_value

_LEAD = (
    "How well the exported encoder and classifier do their task. Run an attack to measure what the "
    "features leak."
)
_UTILITY = "Measured with the exported SavedModels on the test images."
_BELOW_UNTUNED = (
    "A tuned MCC can be below the other one: the thresholds are tuned on few held-out images and "
    "may not fit the test images."
)
_SIMULATED = (
    "Losses of the encoder and the classifier (Eq. 6 to 8), and of the simulated attacker (Eq. 1 "
    "to 5). The encoder learned to fool this attacker, so that a new attacker does better. Its "
    "losses say little about privacy."
)
_NOT_SIMULATED = "Losses of the encoder and the classifier (Eq. 6)."


def write(
    path: Path,
    results: Mapping[str, Metrics],
    losses: Mapping[str, figures.Series],
    *,
    defences: Mapping[str, Any],
    people_note: str,
    details: Mapping[str, Any],
    note: str = "",
) -> Table:
    """Writes the page; returns its table for the terminal.

    Args:
        path: the file.
        results: name -> metrics, of this encoder first, then of the baseline if there is one.
        losses: name of a loss -> its steps and values. Those of a simulated attacker start with
            `public_`.
        defences: name of each defence in use -> its strength.
        people_note: whether the people in the test images may be in the training data.
        details: the settings of the run.
        note: a warning; empty without one.
    """
    names = ("mcc_task", "mcc_task_tuned", "dfil", "images_per_s")
    is_below = any(
        metrics["mcc_task_tuned"] < metrics["mcc_task"]
        for metrics in results.values()
        if "mcc_task_tuned" in metrics
    )
    notes = " ".join(filter(None, [note, _BELOW_UNTUNED if is_below else ""]))
    table = comparison("Test split", "encoder", results, names, notes)
    bars = {
        encoder: {
            name.removeprefix("mcc/"): value
            for name, value in metrics.items()
            if name.startswith("mcc/")
        }
        for encoder, metrics in results.items()
    }
    curves = {name.replace("_", " "): series for name, series in losses.items()}
    is_simulated = any(name.startswith("public_") for name in losses)
    terms = ", ".join(f"{name} = {format_value(v, 'g')}" for name, v in defences.items())
    title = "Matthews correlation (MCC) of each attribute"
    mcc = Figure(title, figures.bar_figure(bars, "Matthews correlation"))
    training = Figure("Losses", figures.curve_figure(curves, "steps", "loss"))
    write_page(
        path,
        f"Encoder trained with {terms}" if terms else "Encoder trained without defence",
        [_LEAD, *filter(None, [note])],
        [
            Section("Utility", [table], f"{_UTILITY} {people_note}"),
            Section("Attributes", [mcc]),
            Section("Training", [training], _SIMULATED if is_simulated else _NOT_SIMULATED),
        ],
        details,
        cards(results, ("mcc_task", "mcc_task_tuned")),
    )
    return table
