"""Tables and cards that compare encoders, attacks and references by their metrics.

A row's metrics are a flat mapping as in metrics.json: name -> number, `NAME_ci95` -> [low, high].
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tfadv.evaluation.results import Score
from tfadv.reporting.glossary import Column, describe
from tfadv.reporting.page import Card, Cell, Estimate, Label, Table

Metrics = Mapping[str, Any]
Rows = Mapping[str | Label, Metrics]
Names = Sequence[str | tuple[str, Column]]


TASK_MCC = Column(
    "Task MCC",
    "How well the service does its task: Matthews correlation (MCC), mean over the task's "
    "attributes, at thresholds tuned on held-out private images if there are any. 1 is perfect, 0 "
    "is chance level. Higher is more useful.",
    "higher",
)


def task_mcc(utility: Metrics) -> Metrics:
    """Returns the task's MCC and its interval as `mcc_task`, at tuned thresholds if there are any.

    Hard predictions are made at tuned thresholds, so that only these numbers compare with theirs.
    """
    tuned = "mcc_task_tuned"
    name = tuned if tuned in utility else "mcc_task"
    names = {name: "mcc_task", f"{name}_ci95": "mcc_task_ci95"}
    return {shown: utility[name] for name, shown in names.items() if name in utility}


def cell(metrics: Metrics, name: str) -> Cell:
    """Returns one metric, with its 95% interval if there is one; None if it was not measured."""
    value, interval = metrics.get(name), metrics.get(f"{name}_ci95")
    return Estimate(value, *interval) if interval else value


def estimate(score: Score, note: str = "") -> Estimate:
    """Returns a score with its interval, if it has one, and a note of a few words."""
    return Estimate(score.value, *(score.interval or ()), note=note)


def comparison(title: str, heading: str, rows: Rows, names: Names, note: str = "") -> Table:
    """Returns a table with one row for each key of `rows` and one column for each metric.

    Args:
        title: the table's title.
        heading: the heading of the first column.
        rows: name of a row -> its metrics.
        names: the metrics to show, in order. Metrics that no row has are left out. A pair (name,
            column) replaces the glossary's column.
        note: a remark under the table.
    """
    shown = [
        (name, column)
        for name, column in _columns(names)
        if any(name in metrics for metrics in rows.values())
    ]
    cells = [[row, *(cell(metrics, name) for name, _ in shown)] for row, metrics in rows.items()]
    return Table(title, [Column(heading), *(column for _, column in shown)], cells, note)


def cards(
    rows: Rows,
    names: Names,
    notes: Mapping[str, str] | None = None,
    ends: Mapping[str, tuple[str, ...]] | None = None,
) -> list[Card]:
    """Returns the first row's key numbers as cards, each on a scale of other rows' numbers.

    Args:
        rows: name of a row -> its metrics. Metrics that the first row lacks get no card.
        names: as in `comparison`.
        notes: metric -> a few words.
        ends: metric -> the rows on its scale, in order; all other rows if it is missing.
    """
    first, *others = rows
    found = []
    for name, column in _columns(names):
        if name not in rows[first]:
            continue
        named = {getattr(row, "name", row): rows[row] for row in others}
        shown = (ends or {}).get(name, tuple(named))
        scale = tuple((row, named[row][name]) for row in shown if name in named.get(row, {}))
        found.append(Card(column, cell(rows[first], name), (notes or {}).get(name, ""), scale))
    return found


def _columns(names: Names) -> list[tuple[str, Column]]:
    return [(name, describe(name)) if isinstance(name, str) else name for name in names]
