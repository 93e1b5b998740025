"""From numbers and pictures to what a person reads: an HTML page, figures, tables in a terminal.

Knows nothing of TensorFlow or of where the numbers come from: data in, bytes or a file out. Text
may come from anywhere (file names, attribute names), so it is escaped in the page and stripped of
control characters in the terminal.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

import jinja2
import matplotlib.figure
import numpy as np

Cell = str | float | None

_INK = "#767d87"  # reads on white and on near-black alike, so one PNG serves light and dark
_COLOURS = ("#3b8ea5", "#d9793d", "#8a76c9", "#5a9e5f", "#c75b7a", "#a08a3c")
_DPI = 200


@dataclass(frozen=True)
class Column:
    """What a number is: its name, what it means, which way is better, how it is printed.

    Attributes:
        name: Its heading.
        meaning: In plain words, with which way is private or useful; the page's tooltip.
        better: "higher", "lower", or "" where neither is.
        format: A format specification, of its numbers.
    """

    name: str
    meaning: str = ""
    better: str = ""
    format: str = "z.3f"

    @property
    def arrow(self) -> str:
        """↑, ↓ or nothing."""
        return {"higher": "↑", "lower": "↓"}.get(self.better, "")


@dataclass(frozen=True)
class Table:
    """Numbers side by side; the first cell of a row is its name."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


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


@dataclass(frozen=True)
class Section:
    """A part of the page: a heading, a paragraph, then tables and figures."""

    title: str
    items: Sequence[Table | Figure]
    text: str = ""


@dataclass(frozen=True)
class Card:
    """A key number at the head of the page; `note` says what to compare it with."""

    column: Column
    value: Cell
    note: str = ""


# Every metric of metrics.json, in plain words. Shown on cards, in tooltips and under the tables.
MEANINGS: dict[str, Column] = {
    "mcc": Column(
        "Mean MCC",
        "How well attributes are predicted: Matthews correlation, mean over all of the dataset's "
        "(0 for those outside the task). 1 is perfect, 0 is chance. Higher is more useful.",
        "higher",
    ),
    "mcc_task": Column(
        "Task MCC",
        "How well the service does its own job: Matthews correlation, mean over the task's "
        "attributes. 1 is perfect, 0 is chance. Higher is more useful.",
        "higher",
    ),
    "mcc_tuned": Column(
        "Mean MCC, tuned",
        "Mean MCC with each attribute's decision threshold tuned on held-out private pictures. "
        "Higher is more useful.",
        "higher",
    ),
    "mcc_task_tuned": Column(
        "Task MCC, tuned",
        "Task MCC with each attribute's decision threshold tuned on held-out private pictures. "
        "Higher is more useful.",
        "higher",
    ),
    "face_similarity": Column(
        "Face similarity",
        "How far a face recogniser takes the reconstruction for the same person: mean cosine of "
        "the two embeddings, at most 1. Lower is more private.",
        "lower",
    ),
    "feature_similarity": Column(
        "Feature similarity",
        "How well the face embedding can be guessed from the features alone: mean cosine of the "
        "guess and the true one, at most 1. Lower is more private.",
        "lower",
    ),
    "ssim": Column(
        "SSIM",
        "How alike the reconstruction and the picture look in structure, contrast and light. "
        "1 is identical. Lower is more private.",
        "lower",
    ),
    "psnr": Column(
        "PSNR (dB)",
        "How near the reconstruction comes to the picture pixel by pixel, in decibels. "
        "Lower is more private.",
        "lower",
        "z.2f",
    ),
    "reid_rank1": Column(
        "Re-identified, rank 1",
        "Reconstructions whose nearest face among other pictures of the test people is the right "
        "person. Lower is more private.",
        "lower",
        "z.1%",
    ),
    "reid_rank5": Column(
        "Re-identified, rank 5",
        "Reconstructions with the right person among the five nearest faces. "
        "Lower is more private.",
        "lower",
        "z.1%",
    ),
    "verification_auc": Column(
        "Verification AUC",
        "Chance that a reconstruction matches its own person better than a stranger. "
        "0.5 is a coin toss. Lower is more private.",
        "lower",
    ),
    "verification_eer": Column(
        "Verification EER",
        "Error rate of matching reconstructions to people, where false accepts equal false "
        "rejects. 50% is a coin toss. Higher is more private.",
        "higher",
        "z.1%",
    ),
    "lda_within": Column("LDA within", "How far the features of one person spread."),
    "lda_between": Column("LDA between", "How far the people's mean features lie apart."),
    "lda_score": Column(
        "LDA score",
        "How separable people are in the features: the spread between people over that within. "
        "Lower is more private.",
        "lower",
    ),
    "images_per_s": Column("Images/s", "Pictures a second. Higher is faster.", "higher", ",.0f"),
    "test_examples": Column("Test pictures", "Pictures measured on.", "", ",.0f"),
}


def describe(name: str) -> Column:
    """What a metric of metrics.json means; `mcc/ATTRIBUTE` too, and a bare name if unknown."""
    if name.startswith("mcc/"):
        attribute = name.removeprefix("mcc/")
        meaning = f"How well {attribute} is predicted: Matthews correlation. 1 is perfect, 0 is "
        return Column(f"MCC {attribute}", meaning + "chance. Higher is more useful.", "higher")
    return MEANINGS.get(name, Column(name))


def format_value(value: object, spec: str = "") -> str:
    """A cell as text: numbers by `spec`, NaN and None as "–", no control characters."""
    if value is None or (isinstance(value, Real) and math.isnan(value)):
        return "\N{EN DASH}"
    if isinstance(value, Real) and math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if isinstance(value, Real) and not isinstance(value, bool):
        return format(value, spec)
    if isinstance(value, list | tuple):
        return ", ".join(map(format_value, value))
    return _printable(str(value))


def format_table(table: Table) -> str:
    """The table for a terminal: aligned, names to the left, numbers to the right."""
    header = [f"{_printable(column.name)} {column.arrow}".rstrip() for column in table.columns]
    rows = [
        [format_value(cell, column.format) for cell, column in zip(row, table.columns, strict=True)]
        for row in table.rows
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        numbers = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "  ".join([cells[0].ljust(widths[0]), *numbers]).rstrip()

    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    lines = [_printable(table.title), line(header), rule, *map(line, rows), _printable(table.note)]
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
        path: The file; overwritten.
        title: The page's heading.
        lead: A paragraph under it: what was found.
        sections: The body.
        details: What was run, a flat mapping such as the config and the packages' versions.
        cards: Three or four key numbers at the head.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = format_value
    page = environment.get_template("report.html.jinja").render(
        title=title, lead=lead, sections=sections, details=details, cards=cards
    )
    # File names may hold bytes that aren't UTF-8, which Python carries as lone surrogates.
    Path(path).write_text(page, encoding="utf-8", errors="replace")


def picture_grid(rows: Sequence[tuple[str, np.ndarray]], path: str | Path | None = None) -> bytes:
    """A PNG of rows of pictures, each row under its label.

    Small pictures are enlarged by a whole factor without smoothing, to about 128 px.

    Args:
        rows: Labels and pictures, uint8 [N, S, S, 3], of one shape.
        path: Where to write the PNG as well.

    Returns:
        The PNG, transparent around the pictures.

    Raises:
        ValueError: There are no pictures, or rows differ in shape or aren't uint8.
    """
    shapes = {pictures.shape for _, pictures in rows}
    if len(shapes) != 1 or 0 in min(shapes) or any(p.dtype != np.uint8 for _, p in rows):
        raise ValueError(f"a grid needs rows of one shape [N, S, S, 3] in uint8, not {shapes}")
    (count, size, _, _), gap, label = shapes.pop(), 6, 36
    scale = max(1, round(128 / size))
    tile = size * scale
    width, height = count * (tile + gap) - gap, len(rows) * (tile + label)

    figure = matplotlib.figure.Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    for row, (name, pictures) in enumerate(rows):
        top = height - row * (tile + label)
        text = {"va": "baseline", "fontsize": 16 * 72 / _DPI, "color": _INK, "parse_math": False}
        figure.text(0, (top - label + 9) / height, _printable(name), **text)
        for i, picture in enumerate(pictures):
            enlarged = picture.repeat(scale, axis=0).repeat(scale, axis=1)
            figure.figimage(enlarged, i * (tile + gap), top - label - tile)
    png = _png(figure)
    if path is not None:
        Path(path).write_bytes(png)
    return png


def curve_figure(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]], xlabel: str, ylabel: str
) -> bytes:
    """A PNG of lines, such as the attacker's held-out loss over its steps.

    Args:
        series: Name to (x, y). Points that aren't finite are gaps.
        xlabel: What x is, with its unit.
        ylabel: What y is, with its unit.

    Returns:
        The PNG, transparent, in colours that read on light and on dark.
    """
    figure, axes = _chart(height=3.4)
    lines = [
        axes.plot(*points, color=colour, linewidth=1.8)[0]
        for points, colour in zip(series.values(), _colours(len(series)), strict=True)
    ]
    axes.grid(color=_INK, alpha=0.2, linewidth=0.6)
    axes.set_xlabel(_printable(xlabel), parse_math=False)
    axes.set_ylabel(_printable(ylabel), parse_math=False)
    _legend(figure, lines, list(series))
    return _png(figure)


def bar_figure(series: Mapping[str, Mapping[str, float]], xlabel: str) -> bytes:
    """A PNG of horizontal bars, such as the MCC of each attribute, of one model or of several.

    Args:
        series: Name to (bar's name to value). Bars are ordered by the first series, the highest
            on top; a bar that a series lacks, or that is NaN, is shown as "–".
        xlabel: What the length means.

    Returns:
        The PNG, transparent, in colours that read on light and on dark.
    """
    first = next(iter(series.values()))
    names = list(dict.fromkeys(name for values in series.values() for name in values))
    names.sort(key=lambda name: -np.nan_to_num(first.get(name, np.nan), nan=-np.inf))
    thickness = 0.8 / len(series)
    figure, axes = _chart(height=0.7 + len(names) * max(0.24, 0.15 * len(series)))
    bars = []
    for i, (values, colour) in enumerate(zip(series.values(), _colours(len(series)), strict=True)):
        lengths = np.array([values.get(name, np.nan) for name in names])
        places = np.arange(len(names)) + (i - (len(series) - 1) / 2) * thickness
        bars.append(axes.barh(places, np.nan_to_num(lengths), thickness * 0.88, color=colour))
        texts = [format_value(length, "z.2f") for length in lengths]
        axes.bar_label(bars[-1], texts, padding=3, fontsize=7.5, color=_INK)
    axes.set_yticks(np.arange(len(names)), [_printable(n) for n in names], parse_math=False)
    axes.margins(x=0.08)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.axvline(0, color=_INK, linewidth=0.8)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=_INK, alpha=0.2, linewidth=0.6)
    axes.set_xlabel(_printable(xlabel), parse_math=False)
    _legend(figure, bars, list(series))
    return _png(figure)


def _chart(height: float) -> tuple[matplotlib.figure.Figure, matplotlib.axes.Axes]:
    """An empty chart, 7.2 inches wide, without pyplot's global state."""
    figure = matplotlib.figure.Figure(figsize=(7.2, height), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[:].set_visible(False)
    axes.set_axisbelow(True)
    axes.patch.set_alpha(0)
    axes.tick_params(colors=_INK, labelsize=9, length=0)
    axes.xaxis.label.set(color=_INK, fontsize=9.5)
    axes.yaxis.label.set(color=_INK, fontsize=9.5)
    return figure, axes


def _colours(count: int) -> list[str]:
    """One colour a series, beginning again after the last."""
    return [_COLOURS[i % len(_COLOURS)] for i in range(count)]


def _legend(figure: matplotlib.figure.Figure, handles: Sequence, names: Sequence[str]) -> None:
    """The series' names above the chart, if there is more than one."""
    if len(names) > 1:
        place = {"loc": "outside upper left", "ncols": 3, "frameon": False, "fontsize": 9}
        legend = figure.legend(handles, [_printable(n) for n in names], labelcolor=_INK, **place)
        for text in legend.get_texts():
            text.set_parse_math(False)


def _png(figure: matplotlib.figure.Figure) -> bytes:
    """The figure as a PNG that holds nothing but its pixels."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=True, metadata={"Software": None})
    return buffer.getvalue()


def _printable(text: str) -> str:
    """The text without control characters, which could rewrite a terminal or reorder a line."""
    return "".join(character if character.isprintable() else "�" for character in text)
