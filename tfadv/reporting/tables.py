"""Tables and cards that compare encoders, attacks and references by their metrics.

A row's metrics are a flat mapping as in metrics.json: name -> number, `NAME_ci95` -> [low, high].
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tfadv.reporting.glossary import Column, describe
from tfadv.reporting.page import Card, Cell, Estimate, Label, Table
from tfadv.reporting.text import format_value

Metrics = Mapping[str, Any]
Rows = Mapping[str | Label, Metrics]
Names = Sequence[str | tuple[str, Column]]


def cell(metrics: Metrics, name: str) -> Cell:
    """Returns one metric, with its 95% interval if there is one; None if it was not measured."""
    value, interval = metrics.get(name), metrics.get(f"{name}_ci95")
    return Estimate(value, *interval) if interval else value


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


def cards(rows: Rows, names: Names, notes: Mapping[str, str] | None = None) -> list[Card]:
    """Returns the first row's key numbers as cards; each card's note lists the other rows' numbers.

    Args:
        rows: name of a row -> its metrics. Metrics that the first row lacks get no card.
        names: as in `comparison`.
        notes: metric -> a text to put before the other rows' numbers.
    """
    first, *others = rows
    found = []
    for name, column in _columns(names):
        if name not in rows[first]:
            continue
        numbers = ", ".join(
            f"{getattr(row, 'name', row)}: {format_value(rows[row][name], column.format)}"
            for row in others
            if name in rows[row]
        )
        note = "; ".join(filter(None, [(notes or {}).get(name), numbers]))
        found.append(Card(column, cell(rows[first], name), note))
    return found


def _columns(names: Names) -> list[tuple[str, Column]]:
    return [(name, describe(name)) if isinstance(name, str) else name for name in names]
