"""Pictures of numbers: grids, curves, distributions, bars, as PNGs that read on light and dark."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.figure
import matplotlib.patches
import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from tfadv.text import format_value, printable

_INK = "#767d87"  # reads on white and on near-black alike, so one PNG serves light and dark
_COLOURS = ("#3b8ea5", "#d9793d", "#8a76c9", "#5a9e5f", "#c75b7a", "#a08a3c")
_LINES = ("-", "--", ":", "-.")
_HATCHES = ("", "////", "....", "xxxx")
_DPI = 200
_LABEL = 20  # pixels, of a grid's labels: still legible when a phone shows the grid at half size
_LOWEST_RATE = 1e-3  # false accepts, the left end of ROC curves


def picture_grid(rows: Sequence[tuple[str, np.ndarray]], path: str | Path | None = None) -> bytes:
    """A PNG of rows of pictures, each row under its label.

    Small pictures are enlarged by a whole factor without smoothing, to about 128 px. A label wider
    than its row goes on in the next line.

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
    count, size, _, _ = shapes.pop()
    scale = max(1, round(128 / size))
    tile, gap, line = size * scale, 6, _LABEL + 8
    width = count * (tile + gap) - gap
    labels = [_wrapped(printable(name), width) for name, _ in rows]
    height = sum(16 + line * len(lines) + tile for lines in labels)

    figure = matplotlib.figure.Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    text = {"va": "baseline", "fontsize": _LABEL * 72 / _DPI, "color": _INK, "parse_math": False}
    top = height
    for lines, (_, pictures) in zip(labels, rows, strict=True):
        top -= 7
        for words in lines:
            top -= line
            figure.text(0, (top + 7) / height, words, **text)
        top -= 9 + tile
        for i, picture in enumerate(pictures):
            enlarged = picture.repeat(scale, axis=0).repeat(scale, axis=1)
            figure.figimage(enlarged, i * (tile + gap), top)
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
    figure, (axes,) = _chart(height=3.4)
    lines = [
        axes.plot(*points, **_line(i), linewidth=1.8)[0] for i, points in enumerate(series.values())
    ]
    axes.grid(color=_INK, alpha=0.2, linewidth=0.6)
    axes.set_xlabel(printable(xlabel), parse_math=False)
    axes.set_ylabel(printable(ylabel), parse_math=False)
    _legend(figure, lines, list(series))
    return _png(figure)


def roc_figure(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    auc: Mapping[str, float] | None = None,
) -> bytes:
    """A PNG of ROC curves; the axis is logarithmic, as few false accepts are what counts.

    Args:
        series: Name to (false accept rates, true accept rates), in [0, 1], in any order. Points
            that aren't finite are left out; (0, 0) and (1, 1) belong to every curve.
        auc: Name to the area under its curve, for the legend.

    Returns:
        The PNG, transparent, in colours that read on light and on dark. Dots are a coin toss.
    """
    figure, (axes,) = _chart(height=4.6)
    rates = np.geomspace(_LOWEST_RATE, 1, 400)
    lines = axes.plot(rates, rates, color=_INK, linewidth=1.5, linestyle=(0, (0.5, 3)))
    names = ["coin toss"]
    for i, (name, (false, true)) in enumerate(series.items()):
        lines += axes.plot(rates, _roc(false, true, rates), **_line(i), linewidth=1.8)
        area = (auc or {}).get(name)
        names.append(name if area is None else f"{name} (AUC {format_value(area, '.3f')})")
    axes.set(xscale="log", xlim=(_LOWEST_RATE, 1), ylim=(-0.01, 1.01))
    axes.minorticks_off()
    axes.set_xticks([0.001, 0.01, 0.1, 1], ["0.1%", "1%", "10%", "100%"])
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.grid(color=_INK, alpha=0.2, linewidth=0.6)
    axes.set_xlabel("false accepts: strangers taken for the person")
    axes.set_ylabel("true accepts: the person recognised")
    _legend(figure, lines[1:] + lines[:1], names[1:] + names[:1])
    return _png(figure)


def histogram_figure(panels: Mapping[str, Mapping[str, Sequence[float]]], xlabel: str) -> bytes:
    """A PNG of distributions, one panel under another on a common axis, each as high as it needs.

    Args:
        panels: Name of a panel, such as an attacker, to (name of a distribution, such as "same
            person" or "strangers", to its values). Values that aren't finite are left out.
        xlabel: What the values are, with their unit.

    Returns:
        The PNG, transparent, in colours that read on light and on dark. Upright lines are means.
    """
    panels = {
        name: {kind: _finite(values) for kind, values in panel.items()}
        for name, panel in panels.items()
    }
    kinds = list(dict.fromkeys(kind for panel in panels.values() for kind in panel))
    pooled = np.concatenate([v for panel in panels.values() for v in panel.values()] + [[]])
    edges = np.histogram_bin_edges(pooled, bins=40)
    count = max(1, len(panels))
    figure, rows = _chart(height=0.9 + 0.95 * count, panels=count)
    for axes, (name, panel) in zip(rows, panels.items(), strict=False):
        for kind, values in panel.items():
            if values.size:
                look, density = _line(kinds.index(kind)), np.histogram(values, edges, density=True)
                axes.stairs(*density, fill=True, color=look["color"], alpha=0.3)
                axes.stairs(*density, **look, linewidth=1.2)
                axes.axvline(values.mean(), **look, linewidth=1.2)
        axes.set_title(_filled(name), loc="left", fontsize=9.5, color=_INK, parse_math=False)
    for axes in rows:
        axes.set_yticks([])
        axes.set_ylim(bottom=0)
        axes.grid(axis="x", color=_INK, alpha=0.2, linewidth=0.6)
    rows[-1].set_xlabel(printable(xlabel), parse_math=False)
    patches = [matplotlib.patches.Patch(**_line(i), fill=False) for i in range(len(kinds))]
    _legend(figure, patches, kinds)
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
    figure, (axes,) = _chart(height=0.7 + len(names) * max(0.24, 0.15 * len(series)))
    bars = []
    for i, values in enumerate(series.values()):
        lengths = np.array([values.get(name, np.nan) for name in names])
        places = np.arange(len(names)) + (i - (len(series) - 1) / 2) * thickness
        bars.append(axes.barh(places, np.nan_to_num(lengths), thickness * 0.88, **_fill(i)))
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


def _chart(
    height: float, panels: int = 1
) -> tuple[matplotlib.figure.Figure, list[matplotlib.axes.Axes]]:
    """An empty chart, 7.2 inches wide, without pyplot's global state; its panels share x."""
    figure = matplotlib.figure.Figure(figsize=(7.2, height), dpi=_DPI, layout="constrained")
    rows = list(figure.subplots(panels, sharex=True, squeeze=False)[:, 0])
    for axes in rows:
        axes.spines[:].set_visible(False)
        axes.set_axisbelow(True)
        axes.patch.set_alpha(0)
        axes.tick_params(colors=_INK, labelsize=9, length=0)
        axes.xaxis.label.set(color=_INK, fontsize=9.5)
        axes.yaxis.label.set(color=_INK, fontsize=9.5)
    return figure, rows


def _line(i: int) -> dict[str, str]:
    """How the line of series i looks: after the last colour they begin again, broken."""
    broken = _LINES[i // len(_COLOURS) % len(_LINES)]
    return {"color": _COLOURS[i % len(_COLOURS)], "linestyle": broken}


def _fill(i: int) -> dict[str, object]:
    """How the bars of series i look: after the last colour they begin again, hatched."""
    hatch = _HATCHES[i // len(_COLOURS) % len(_HATCHES)]
    return {
        "facecolor": _COLOURS[i % len(_COLOURS)],
        "hatch": hatch,
        "edgecolor": "white",
        "linewidth": 0,
    }


def _wrapped(text: str, width: int) -> list[str]:
    """The text in lines that are at most as wide as `width` pixels, or a character."""
    font = FontProperties(size=_LABEL)

    def fits(line: str) -> bool:
        return text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] <= width

    for characters in range(max(1, min(len(text), 4 * width // _LABEL)), 0, -1):
        lines = textwrap.wrap(text, characters)
        if all(map(fits, lines)):
            break
    return lines or [""]


def _finite(values: Sequence[float]) -> np.ndarray:
    values = np.asarray(values, float).ravel()
    return values[np.isfinite(values)]


def _roc(false: Sequence[float], true: Sequence[float], rates: np.ndarray) -> np.ndarray:
    """The true accept rates at these false accept rates; NaN if there are no points."""
    points = np.stack([np.asarray(false, float), np.asarray(true, float)])
    points = points[:, np.isfinite(points).all(axis=0)]
    if points.size == 0:
        return np.full_like(rates, np.nan)
    points = np.concatenate([[[0.0, 1.0], [0.0, 1.0]], points], axis=1)
    false, true = points[:, np.lexsort(points[::-1])]
    return np.interp(rates, false, true)


def _filled(name: str) -> str:
    """The name in lines that are no wider than a chart."""
    return textwrap.fill(printable(name), 90)


def _legend(figure: matplotlib.figure.Figure, handles: Sequence, names: Sequence[str]) -> None:
    """The series' names above the chart, if there is more than one."""
    if len(names) > 1:
        columns = max(1, min(3, 96 // (8 + max(map(len, names)))))
        place = {"loc": "outside upper left", "ncols": columns, "frameon": False, "fontsize": 9}
        names = [_filled(name) for name in names]
        legend = figure.legend(handles, names, labelcolor=_INK, handlelength=2.6, **place)
        for text in legend.get_texts():
            text.set_parse_math(False)


def _png(figure: matplotlib.figure.Figure) -> bytes:
    """The figure as a PNG that holds nothing but its pixels."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=True, metadata={"Software": None})
    return buffer.getvalue()
