"""Figures as PNGs: image grids, curves, distributions, bars and maps.

All PNGs are transparent, with colours that are readable on light and dark pages.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.figure
import matplotlib.lines
import matplotlib.patches
import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from tfadv.reporting import charts
from tfadv.reporting.text import format_value, printable

_LABEL = 20  # pixels, of a grid's labels: still legible when a phone shows the grid at half size
_LOWEST_RATE = 1e-3  # false accept rate at the left end of ROC curves

Series = tuple[Sequence[float], Sequence[float]]


def image_grid(rows: Sequence[tuple[str, np.ndarray]], path: str | Path | None = None) -> bytes:
    """Returns a PNG of rows of images, each row below its label.

    Small images are enlarged to about 128 px by an integer factor, without smoothing. A label that
    is wider than its row is wrapped.

    Args:
        rows: labels and images, uint8 [N, S, S, 3], all of one shape.
        path: a file to write the PNG to.

    Raises:
        ValueError: there are no images, or rows differ in shape or are not uint8.
    """
    shapes = {images.shape for _, images in rows}
    if len(shapes) != 1 or 0 in min(shapes) or any(x.dtype != np.uint8 for _, x in rows):
        raise ValueError(f"a grid needs rows of one shape [N, S, S, 3] in uint8, not {shapes}")
    count, size, _, _ = shapes.pop()
    scale = max(1, round(128 / size))
    tile, gap, line = size * scale, 6, _LABEL + 8
    width = count * (tile + gap) - gap
    labels = [_wrapped(printable(name), width) for name, _ in rows]
    height = sum(16 + line * len(lines) + tile for lines in labels)

    figure = matplotlib.figure.Figure((width / charts.DPI, height / charts.DPI), dpi=charts.DPI)
    font = {"va": "baseline", "fontsize": _LABEL * 72 / charts.DPI, "color": charts.INK}
    top = height
    for lines, (_, images) in zip(labels, rows, strict=True):
        top -= 7
        for text in lines:
            top -= line
            figure.text(0, (top + 7) / height, text, parse_math=False, **font)
        top -= 9 + tile
        for i, image in enumerate(images):
            enlarged = image.repeat(scale, axis=0).repeat(scale, axis=1)
            figure.figimage(enlarged, i * (tile + gap), top)
    png = charts.png(figure)
    if path is not None:
        Path(path).write_bytes(png)
    return png


def curve_figure(series: Mapping[str, Series], xlabel: str, ylabel: str, marker: str = "") -> bytes:
    """Returns a PNG of lines, such as an attack's held-out loss over its steps.

    Args:
        series: name -> (x, y). x may be names. Points that are not finite leave gaps.
        xlabel: name and unit of x.
        ylabel: name and unit of y.
        marker: Matplotlib's marker of each point.
    """
    figure, (axes,) = charts.empty(height=3.4)
    lines = [
        axes.plot(*points, **charts.line(i), linewidth=1.8, marker=marker)[0]
        for i, points in enumerate(series.values())
    ]
    charts.grid(axes)
    axes.set(xlabel=printable(xlabel), ylabel=printable(ylabel))
    charts.legend(figure, lines, list(series))
    return charts.png(figure)


def roc_figure(series: Mapping[str, Series], auc: Mapping[str, float] | None = None) -> bytes:
    """Returns a PNG of ROC curves; the dotted line is chance.

    The false accept rate has a logarithmic axis, because small rates matter most.

    Args:
        series: name -> (false accept rates, true accept rates), in [0, 1], in any order. Points
            that are not finite are left out. Every curve includes (0, 0) and (1, 1).
        auc: name -> area under the curve, for the legend.
    """
    figure, (axes,) = charts.empty(height=4.6)
    rates = np.geomspace(_LOWEST_RATE, 1, 400)
    lines = axes.plot(
        rates, rates, color=charts.INK, linewidth=1.5, linestyle=(0, (1, 2)), zorder=5
    )
    names = ["chance"]
    for i, (name, (false, true)) in enumerate(series.items()):
        lines += axes.plot(rates, _roc(false, true, rates), **charts.line(i), linewidth=1.8)
        area = (auc or {}).get(name)
        names.append(name if area is None else f"{name} (AUC {format_value(area, '.3f')})")
    axes.set(xscale="log", xlim=(_LOWEST_RATE, 1), ylim=(-0.01, 1.01))
    axes.minorticks_off()
    axes.set_xticks([0.001, 0.01, 0.1, 1], ["0.1%", "1%", "10%", "100%"])
    axes.yaxis.set_major_formatter("{x:.0%}")
    charts.grid(axes)
    axes.set(
        xlabel="other people who are accepted (false accept rate)",
        ylabel="images of the person that\nare accepted (true accept rate)",
    )
    charts.legend(figure, lines[1:] + lines[:1], names[1:] + names[:1])
    return charts.png(figure)


def histogram_figure(panels: Mapping[str, Mapping[str, Sequence[float]]], xlabel: str) -> bytes:
    """Returns a PNG of stacked panels of distributions that share x; vertical lines are means.

    Args:
        panels: name of a panel, such as an attack -> (name of a distribution, such as "genuine
            pairs" -> its values). Values that are not finite are left out.
        xlabel: name and unit of the values.
    """
    panels = {
        name: {kind: _finite(values) for kind, values in panel.items()}
        for name, panel in panels.items()
    }
    kinds = list(dict.fromkeys(kind for panel in panels.values() for kind in panel))
    pooled = np.concatenate([v for panel in panels.values() for v in panel.values()] + [[]])
    edges = np.histogram_bin_edges(pooled, bins=40)
    count = max(1, len(panels))
    figure, rows = charts.empty(height=0.9 + 0.95 * count, panels=count)
    for axes, (name, panel) in zip(rows, panels.items(), strict=False):
        for kind, values in panel.items():
            if values.size:
                look = charts.line(kinds.index(kind))
                density = np.histogram(values, edges, density=True)
                axes.stairs(*density, fill=True, color=look["color"], alpha=0.3)
                axes.stairs(*density, **look, linewidth=1.2)
                axes.axvline(values.mean(), **look, linewidth=1.2)
        charts.title(axes, name)
    for axes in rows:
        axes.set_yticks([])
        axes.set_ylim(bottom=0)
        charts.grid(axes, "x")
    rows[-1].set_xlabel(printable(xlabel))
    patches = [matplotlib.patches.Patch(**charts.line(i), fill=False) for i in range(len(kinds))]
    charts.legend(figure, patches, kinds)
    return charts.png(figure)


def bar_figure(series: Mapping[str, Mapping[str, float]], xlabel: str) -> bytes:
    """Returns a PNG of horizontal bars, such as the MCC of each attribute for several encoders.

    Args:
        series: name -> (name of a bar -> value). The first series sets the order, highest first. A
            bar that a series lacks, or that is NaN, is shown as "–".
        xlabel: meaning of the length.
    """
    first = next(iter(series.values()))
    names = list(dict.fromkeys(name for values in series.values() for name in values))
    names.sort(key=lambda name: -np.nan_to_num(first.get(name, np.nan), nan=-np.inf))
    thickness = 0.8 / len(series)
    figure, (axes,) = charts.empty(height=0.7 + len(names) * max(0.24, 0.15 * len(series)))
    bars = []
    for i, values in enumerate(series.values()):
        lengths = np.array([values.get(name, np.nan) for name in names])
        places = np.arange(len(names)) + (i - (len(series) - 1) / 2) * thickness
        bars.append(axes.barh(places, np.nan_to_num(lengths), thickness * 0.88, **charts.fill(i)))
        texts = [format_value(length, "z.2f") for length in lengths]
        axes.bar_label(bars[-1], texts, padding=3, fontsize=7.5, color=charts.INK)
    axes.set_yticks(np.arange(len(names)), [printable(n) for n in names], parse_math=False)
    axes.margins(x=0.08)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.axvline(0, color=charts.INK, linewidth=0.8)
    axes.tick_params(axis="y", length=0)
    charts.grid(axes, "x")
    axes.set_xlabel(printable(xlabel))
    charts.legend(figure, bars, list(series))
    return charts.png(figure)


def tsne_figure(panels: Mapping[str, tuple[np.ndarray, np.ndarray, Sequence[str]]]) -> bytes:
    """Returns a PNG of points by class, two panels per row, such as those of `tsne.embed`.

    A class has the same look in all panels that name it. Rare classes are drawn on top.

    Args:
        panels: name of a panel, such as an encoder -> (points, float [N, 2]; class of each, int
            [N]; names of the classes). Points that are not finite are left out.
    """
    kinds = list(dict.fromkeys(name for _, _, names in panels.values() for name in names))
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = charts.blank(height=0.5 + rows * 7.4 / columns)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, (name, (points, classes, names)) in zip(grid, panels.items(), strict=False):
        finite = np.isfinite(points).all(axis=1)
        points, classes = points[finite], classes[finite]
        size = np.clip(6000 / max(1, len(points)), 3, 24)
        for i in np.argsort(-np.bincount(classes, minlength=len(names)), kind="stable"):
            look = charts.point(kinds.index(names[i]))
            axes.scatter(*points[classes == i].T, s=size, linewidths=0, **look)
        charts.title(axes, name, columns)
    dots = [
        matplotlib.lines.Line2D([], [], linestyle="", markersize=6, **charts.point(i))
        for i in range(len(kinds))
    ]
    charts.legend(figure, dots, kinds)
    return charts.png(figure)


def _wrapped(text: str, width: int) -> list[str]:
    """The text in lines of at most `width` pixels, or of one character."""
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
    """The true accept rates at the false accept rates `rates`; NaN if there are no points."""
    points = np.stack([np.asarray(false, float), np.asarray(true, float)])
    points = points[:, np.isfinite(points).all(axis=0)]
    if points.size == 0:
        return np.full_like(rates, np.nan)
    points = np.concatenate([[[0.0, 1.0], [0.0, 1.0]], points], axis=1)
    false, true = points[:, np.lexsort(points[::-1])]
    return np.interp(rates, false, true)
