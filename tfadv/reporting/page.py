"""Tables, figures and sections, as one HTML page and as text for a terminal.

Knows nothing about where the numbers come from, and imports no TensorFlow. Names of files and
attributes may hold any character: text is escaped in the page and stripped of control characters in
the terminal.
"""

import base64
import itertools
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jinja2
import markupsafe

from tfadv.reporting.glossary import Column
from tfadv.reporting.text import format_value, printable

_COLUMNS = 7  # beside the first; more are folded
_INTERVAL_NOTE = "In brackets: the 95% interval."
_WIDTH, _HEADING = 100, 20  # characters of a terminal, and of a heading's line


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval, hidden if a bound is None or NaN, and a note of a few words.

    A terminal does not show the note.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Label:
    """The name of a row, with its meaning in plain words."""

    name: str
    meaning: str = ""


Cell = str | float | Estimate | Label | None


@dataclass(frozen=True)
class Table:
    """A table. The first cell of each row is the row's name: a `Label` or text."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The headings over the columns after the first, each with its number of columns."""
        names = [column.group for column in self.columns[1:]]
        if not any(names):
            return []
        return [(name, len(list(columns))) for name, columns in itertools.groupby(names)]

    @property
    def starts(self) -> set[int]:
        """The indices of the columns that begin a group."""
        spans = [span for _, span in self.groups]
        return {1 + sum(spans[:i]) for i in range(len(spans))}

    @property
    def folded(self) -> list["Table"]:
        """This table in parts of at most `_COLUMNS` columns beside the first; parts but the first
        belong under a fold. A group of columns stays together if it fits."""
        bounds, width = [1], len(self.columns)
        while width - bounds[-1] > _COLUMNS:
            end = bounds[-1] + _COLUMNS
            starts = [start for start in self.starts if bounds[-1] < start <= end]
            bounds.append(max(starts, default=end))
        bounds.append(width)
        parts = []
        for start, end in itertools.pairwise(bounds):
            rows = [[row[0], *row[start:end]] for row in self.rows]
            columns = [self.columns[0], *self.columns[start:end]]
            parts.append(replace(self, columns=columns, rows=rows, note=self.note * (not parts)))
        return parts

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
        """The image as a data: URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()

    @property
    def width(self) -> int:
        """The width in pixels, from the PNG's header."""
        return int.from_bytes(self.png[16:20], "big")


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph, then tables and figures; `collapsed` shows the heading only."""

    title: str
    items: Sequence[Table | Figure]
    text: str = ""
    collapsed: bool = False

    @property
    def explained(self) -> list[Column]:
        """Name and meaning of each row, then of each column, of all tables; each once."""
        tables = [item for item in self.items if isinstance(item, Table)]
        labels = [row[0] for table in tables for row in table.rows if isinstance(row[0], Label)]
        rows = [Column(label.name, label.meaning) for label in labels]
        columns = [replace(column, group="") for table in tables for column in table.columns]
        return [entry for entry in dict.fromkeys([*rows, *columns]) if entry.meaning]


@dataclass(frozen=True)
class Card:
    """A key number at the top of the page.

    Attributes:
        column: its name, meaning and format.
        value: the number.
        note: a few words, such as the name of the attack.
        scale: names and numbers to compare it with. The first and the last are the ends of a bar
            that shows where the number lies, the others are ticks on it. Without two ends that
            differ there is no bar.
    """

    column: Column
    value: Cell
    note: str = ""
    scale: Sequence[tuple[str, float]] = ()

    @property
    def places(self) -> list[tuple[str, float, float]]:
        """Name, number and place of each mark on the bar, in percent of its length.

        The card's own number is the last one, without a name. Empty if there is no bar.
        """
        own = self.value.value if isinstance(self.value, Estimate) else self.value
        numbers = [number for _, number in self.scale]
        if len(numbers) < 2 or own is None or numbers[0] == numbers[-1]:
            return []
        first, last = numbers[0], numbers[-1]
        return [
            (name, number, 100 * min(1, max(0, (number - first) / (last - first))))
            for name, number in (*self.scale, ("", own))
        ]


def format_table(table: Table) -> str:
    """Returns the table as aligned text for a terminal, without the last columns if it is wide."""
    for end in range(len(table.columns), 0, -1):
        rows = [row[:end] for row in table.rows]
        shown = replace(table, columns=table.columns[:end], rows=rows)
        lines = _grid(shown)
        if end <= 2 or max(map(len, lines)) <= _WIDTH:
            break
    hidden = len(table.columns) - end
    notes = [
        f"The report has {hidden} more column{'s' * (hidden > 1)}." if hidden else "",
        printable(table.note),
        _INTERVAL_NOTE if shown.has_intervals else "",
    ]
    notes = [textwrap.fill(note, _WIDTH, break_on_hyphens=False) for note in notes if note]
    return "\n".join([printable(table.title), *lines, *notes])


def _grid(table: Table) -> list[str]:
    """The headings, a rule and the rows."""
    columns = [
        _aligned(column, [row[i] for row in table.rows]) for i, column in enumerate(table.columns)
    ]
    height = max(map(len, columns))
    columns = [[" " * len(lines[0])] * (height - len(lines)) + lines for lines in columns]
    first, *columns = columns
    first = [name.strip().ljust(len(name)) for name in first]
    groups, start = "", 0
    for name, span in table.groups:
        heading = printable(name) and f"─ {printable(name)} "
        width = sum(len(lines[0]) for lines in columns[start : start + span]) + 2 * (span - 1)
        columns[start] = [" " * (len(heading) - width) + line for line in columns[start]]
        groups += "  " + heading.ljust(width, "─" if heading else " ")
        start += span
    lines = ["  ".join(cells).rstrip() for cells in zip(first, *columns, strict=True)]
    end = height - len(table.rows)
    rule = "─" * (sum(len(lines[0]) for lines in (first, *columns)) + 2 * len(columns))
    groups = [(" " * len(first[0]) + groups).rstrip()] if groups else []
    return [*groups, *lines[:end], rule, *lines[end:]]


def write_page(
    path: str | Path,
    title: str,
    lead: str | Sequence[str],
    sections: Sequence[Section],
    details: Mapping[str, object],
    cards: Sequence[Card] = (),
) -> None:
    """Writes one self-contained HTML page, which runs no script and loads nothing.

    Args:
        path: the file, which is overwritten.
        title: the page's heading.
        lead: paragraphs under the heading. The first is the result, in one or two sentences. Text
            between backticks is shown as code.
        sections: the body.
        details: what was run. `date` and `dataset` also stand at the top, and what ends in
            `SHA-256` under the cards.
        cards: three or four key numbers at the top.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "cell": _text,
        "bounds": _bounds,
        "tooltip": _tooltip,
        "prose": _prose,
        "formatted": format_value,
    }
    stamps = [f"{name} {details[name]}" for name in ("date", "dataset") if name in details]
    digests = [f"{name} {details[name]}" for name in details if name.endswith("SHA-256")]
    page = environment.get_template("page.html.jinja").render(
        title=title,
        lead=[lead] if isinstance(lead, str) else lead,
        stamps=stamps,
        digests=digests,
        sections=sections,
        details=details,
        cards=cards,
        legend=_legend(cards),
        interval_note=_INTERVAL_NOTE,
    )
    # File names may hold bytes that are not UTF-8, which Python keeps as lone surrogates.
    Path(path).write_text(page, encoding="utf-8", errors="replace")


def _legend(cards: Sequence[Card]) -> str:
    """What the bars of the cards show; empty without a bar."""
    scales = [[name for name, _, _ in card.places[:-1]] for card in cards if card.places]
    if not scales:
        return ""
    starts, ends = (" or ".join(dict.fromkeys(scale[i] for scale in scales)) for i in (0, -1))
    ticks = " or ".join(dict.fromkeys(name for scale in scales for name in scale[1:-1]))
    tick = f" The tick is {ticks}." if ticks else ""
    return f"Each bar goes from {starts} (left end) to {ends} (right end).{tick}"


def _aligned(column: Column, cells: Sequence[Cell]) -> list[str]:
    """The wrapped heading, then the cells: lines of one width, values and intervals aligned."""
    values = [_text(cell, column.format) for cell in cells]
    intervals = [", ".join(_bounds(cell, column.format)).join("[]") for cell in cells]
    intervals = ["" if interval == "[]" else interval for interval in intervals]
    value_width, interval_width = (max(map(len, texts), default=0) for texts in (values, intervals))
    heading = f"{printable(column.name)}\N{NO-BREAK SPACE}{column.arrow}".rstrip()
    lines = textwrap.wrap(heading, _HEADING, break_long_words=False) or [""]
    lines = [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]
    for value, interval in zip(values, intervals, strict=True):
        gap = " " if interval_width else ""
        lines.append(value.rjust(value_width) + gap + interval.rjust(interval_width))
    return [line.rjust(max(map(len, lines))) for line in lines]


def _text(cell: object, spec: str = "") -> str:
    """A cell as text without its interval."""
    if isinstance(cell, Label):
        cell = cell.name
    if isinstance(cell, Estimate):
        cell = cell.value
    return format_value(cell, spec)


def _prose(text: str) -> markupsafe.Markup:
    """Text with what stands between backticks as code, in which lines break between words only."""
    escaped = str(markupsafe.escape(text))
    return markupsafe.Markup(
        re.sub(
            r"`([^`]*)`",
            lambda code: "<code>" + re.sub(r"(\S+)", r"<span>\1</span>", code[1]) + "</code>",
            escaped,
        )
    )


def _bounds(cell: object, spec: str = "") -> list[str]:
    """The two ends of a cell's interval without a unit; empty if there is no interval."""
    if not isinstance(cell, Estimate):
        return []
    bounds = (cell.low, cell.high)
    if any(bound is None or math.isnan(bound) for bound in bounds):
        return []
    return [format_value(bound, spec).removesuffix("%") for bound in bounds]


def _tooltip(cell: Cell, column: Column, row: Cell = "") -> str:
    """The name of a number, its meaning and its interval."""
    names = (_text(row) if row else "", column.group, column.name)
    tooltip = ", ".join(filter(None, names))
    if column.meaning:
        tooltip += f": {column.meaning}"
    if bounds := _bounds(cell, column.format):
        unit = "%" if column.format.endswith("%") else ""
        tooltip += f"\n95% interval: {bounds[0]}{unit} to {bounds[1]}{unit}."
    return tooltip
