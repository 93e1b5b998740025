"""From numbers and pictures to what a person reads: an HTML page, tables in a terminal.

Knows nothing of TensorFlow or of where the numbers come from: data in, text or a file out. Text
may come from anywhere (file names, attribute names), so it is escaped in the page and stripped of
control characters in the terminal.
"""

import base64
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jinja2

from tfadv.reporting.glossary import MEANINGS, Column, describe
from tfadv.reporting.text import format_value, printable

__all__ = [
    "MEANINGS",
    "Card",
    "Cell",
    "Column",
    "Estimate",
    "Figure",
    "Label",
    "Section",
    "Table",
    "describe",
    "format_table",
    "write_page",
]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval, which isn't shown where a bound is None or NaN."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Label:
    """The name of a row, and in plain words what it is: an attacker, a reference, an encoder."""

    name: str
    meaning: str = ""


Cell = str | float | Estimate | Label | None


@dataclass(frozen=True)
class Table:
    """Numbers side by side; the first cell of a row is its name, a `Label` or text."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The headings over the columns after the first, and how many each spans; or nothing."""
        names = [column.group for column in self.columns[1:]]
        if not any(names):
            return []
        return [(name, len(list(members))) for name, members in itertools.groupby(names)]

    @property
    def starts(self) -> set[int]:
        """The columns that begin a group."""
        spans = [span for _, span in self.groups]
        return {1 + sum(spans[:i]) for i in range(len(spans))}

    @property
    def explained(self) -> list[Column]:
        """The rows, then the columns, that have a meaning, each once."""
        firsts = [row[0] for row in self.rows if row and isinstance(row[0], Label)]
        rows = [Column(label.name, label.meaning) for label in firsts]
        columns = [replace(column, group="") for column in self.columns]
        return [entry for entry in dict.fromkeys([*rows, *columns]) if entry.meaning]

    @property
    def has_intervals(self) -> bool:
        """Whether any number has a 95% interval."""
        return any(_bounds(cell) for row in self.rows for cell in row)


@dataclass(frozen=True)
class Figure:
    """A PNG with its caption."""

    title: str
    png: bytes
    caption: str = ""

    @property
    def uri(self) -> str:
        """The picture as a data: URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()

    @property
    def width(self) -> int:
        """In pixels, as the PNG's header says."""
        return int.from_bytes(self.png[16:20], "big")


@dataclass(frozen=True)
class Section:
    """A part of the page: a heading, a paragraph, then tables and figures.

    A collapsed one, for long material, shows its heading until it is opened.
    """

    title: str
    items: Sequence[Table | Figure]
    text: str = ""
    collapsed: bool = False


@dataclass(frozen=True)
class Card:
    """A key number at the head of the page; `note` says what to compare it with."""

    column: Column
    value: Cell
    note: str = ""


_KEY = "In brackets: the 95% interval."


def format_table(table: Table) -> str:
    """The table for a terminal: aligned, names to the left, numbers to the right."""
    first, *columns = (
        _aligned(column, [row[i] for row in table.rows]) for i, column in enumerate(table.columns)
    )
    first = [name.strip().ljust(len(name)) for name in first]
    over, start = "", 0
    for name, span in table.groups:
        heading = printable(name) and f"─ {printable(name)} "
        width = sum(len(lines[0]) for lines in columns[start : start + span]) + 2 * (span - 1)
        columns[start] = [" " * (len(heading) - width) + line for line in columns[start]]
        over += "  " + heading.ljust(width, "─" if heading else " ")
        start += span
    header, *rows = ("  ".join(cells).rstrip() for cells in zip(first, *columns, strict=True))
    lines = [
        printable(table.title),
        over and (" " * len(first[0]) + over).rstrip(),
        header,
        "─" * (sum(len(lines[0]) for lines in (first, *columns)) + 2 * len(columns)),
        *rows,
        printable(table.note),
        _KEY if table.has_intervals else "",
    ]
    return "\n".join(filter(None, lines))


def write_page(
    path: str | Path,
    title: str,
    lead: str,
    sections: Sequence[Section],
    details: Mapping[str, object],
    cards: Sequence[Card] = (),
) -> None:
    """Writes one self-contained HTML page, which runs no script and loads nothing.

    Args:
        path: the file; overwritten.
        title: the page's heading.
        lead: a paragraph under it: what was found.
        sections: the body.
        details: what was run, a flat mapping such as the config and the packages' versions.
        cards: three or four key numbers at the head.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": _text, "bounds": _bounds, "tooltip": _tooltip}
    page = environment.get_template("page.html.jinja").render(
        title=title, lead=lead, sections=sections, details=details, cards=cards, key=_KEY
    )
    # File names may hold bytes that aren't UTF-8, which Python carries as lone surrogates.
    Path(path).write_text(page, encoding="utf-8", errors="replace")


def _aligned(column: Column, cells: Sequence[Cell]) -> list[str]:
    """The heading and the cells, of one width, with values and intervals flush."""
    values = [_text(cell, column.format) for cell in cells]
    intervals = [", ".join(_bounds(cell, column.format)).join("[]") for cell in cells]
    intervals = ["" if interval == "[]" else interval for interval in intervals]
    value_width, interval_width = (max(map(len, texts), default=0) for texts in (values, intervals))
    lines = [f"{printable(column.name)} {column.arrow}".rstrip()]
    for value, interval in zip(values, intervals, strict=True):
        gap = " " if interval_width else ""
        lines.append(value.rjust(value_width) + gap + interval.rjust(interval_width))
    return [line.rjust(max(map(len, lines))) for line in lines]


def _text(cell: object, spec: str = "") -> str:
    """A cell as text, without its interval."""
    if isinstance(cell, Label):
        cell = cell.name
    if isinstance(cell, Estimate):
        cell = cell.value
    return format_value(cell, spec)


def _bounds(cell: object, spec: str = "") -> list[str]:
    """The two ends of a cell's interval, without the unit of its value; or nothing."""
    if not isinstance(cell, Estimate):
        return []
    bounds = (cell.low, cell.high)
    if any(bound is None or math.isnan(bound) for bound in bounds):
        return []
    return [format_value(bound, spec).removesuffix("%") for bound in bounds]


def _tooltip(cell: Cell, column: Column, row: Cell = "") -> str:
    """Which number this is, what it means, and its interval."""
    names = (_text(row) if row else "", column.group, column.name)
    tooltip = ", ".join(filter(None, names))
    if column.meaning:
        tooltip += f": {column.meaning}"
    if bounds := _bounds(cell, column.format):
        unit = "%" if column.format.endswith("%") else ""
        tooltip += f"\n95% interval: {bounds[0]}{unit} to {bounds[1]}{unit}."
    return tooltip
