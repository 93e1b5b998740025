"""Pictures of numbers: grids of faces, curves and bars, as PNGs that read on light and on dark."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.figure
import numpy as np

from tfadv.text import format_value, printable

_INK = "#767d87"  # reads on white and on near-black alike, so one PNG serves light and dark
_COLOURS = ("#3b8ea5", "#d9793d", "#8a76c9", "#5a9e5f", "#c75b7a", "#a08a3c")
_DPI = 200


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
        figure.text(0, (top - label + 9) / height, printable(name), **text)
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
    axes.set_xlabel(printable(xlabel), parse_math=False)
    axes.set_ylabel(printable(ylabel), parse_math=False)
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
    axes.set_yticks(np.arange(len(names)), [printable(n) for n in names], parse_math=False)
    axes.margins(x=0.08)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.axvline(0, color=_INK, linewidth=0.8)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=_INK, alpha=0.2, linewidth=0.6)
    axes.set_xlabel(printable(xlabel), parse_math=False)
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
        legend = figure.legend(handles, [printable(n) for n in names], labelcolor=_INK, **place)
        for text in legend.get_texts():
            text.set_parse_math(False)


def _png(figure: matplotlib.figure.Figure) -> bytes:
    """The figure as a PNG that holds nothing but its pixels."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=True, metadata={"Software": None})
    return buffer.getvalue()
