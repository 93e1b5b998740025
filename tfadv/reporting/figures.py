"""Pictures of numbers: grids, curves, distributions, bars, as PNGs that read on light and dark."""

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
_LOWEST_RATE = 1e-3  # false accepts, the left end of ROC curves


def image_grid(rows: Sequence[tuple[str, np.ndarray]], path: str | Path | None = None) -> bytes:
    """A PNG of rows of pictures, each row under its label.

    Small pictures are enlarged by a whole factor without smoothing, to about 128 px. A label wider
    than its row goes on in the next line.

    Args:
        rows: labels and pictures, uint8 [N, S, S, 3], of one shape.
        path: where to write the PNG as well.

    Returns:
        The PNG, transparent around the pictures.

    Raises:
        ValueError: there are no pictures, or rows differ in shape or aren't uint8.
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

    figure = matplotlib.figure.Figure(
        figsize=(width / charts.DPI, height / charts.DPI), dpi=charts.DPI
    )
    text = {
        "va": "baseline",
        "fontsize": _LABEL * 72 / charts.DPI,
        "color": charts.INK,
        "parse_math": False,
    }
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
    png = charts.png(figure)
    if path is not None:
        Path(path).write_bytes(png)
    return png


def curve_figure(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    xlabel: str,
    ylabel: str,
    marker: str = "",
) -> bytes:
    """A PNG of lines, such as the attacker's held-out loss over its steps.

    Args:
        series: name to (x, y); x may be names instead. Points that aren't finite are gaps.
        xlabel: what x is, with its unit.
        ylabel: what y is, with its unit.
        marker: Matplotlib's, of each point.

    Returns:
        The PNG, transparent, in colours that read on light and on dark.
    """
    figure, (axes,) = charts.empty(height=3.4)
    lines = [
        axes.plot(*points, **charts.line(i), linewidth=1.8, marker=marker)[0]
        for i, points in enumerate(series.values())
    ]
    axes.grid(color=charts.INK, alpha=0.2, linewidth=0.6)
    axes.set_xlabel(printable(xlabel), parse_math=False)
    axes.set_ylabel(printable(ylabel), parse_math=False)
    charts.legend(figure, lines, list(series))
    return charts.png(figure)


def roc_figure(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    auc: Mapping[str, float] | None = None,
) -> bytes:
    """A PNG of ROC curves; the axis is logarithmic, as few false accepts are what counts.

    Args:
        series: name to (false accept rates, true accept rates), in [0, 1], in any order. Points
            that aren't finite are left out; (0, 0) and (1, 1) belong to every curve.
        auc: name to the area under its curve, for the legend.

    Returns:
        The PNG, transparent, in colours that read on light and on dark. Dots are a coin toss.
    """
    figure, (axes,) = charts.empty(height=4.6)
    rates = np.geomspace(_LOWEST_RATE, 1, 400)
    lines = axes.plot(rates, rates, color=charts.INK, linewidth=1.5, linestyle=(0, (0.5, 3)))
    names = ["coin toss"]
    for i, (name, (false, true)) in enumerate(series.items()):
        lines += axes.plot(rates, _roc(false, true, rates), **charts.line(i), linewidth=1.8)
        area = (auc or {}).get(name)
        names.append(name if area is None else f"{name} (AUC {format_value(area, '.3f')})")
    axes.set(xscale="log", xlim=(_LOWEST_RATE, 1), ylim=(-0.01, 1.01))
    axes.minorticks_off()
    axes.set_xticks([0.001, 0.01, 0.1, 1], ["0.1%", "1%", "10%", "100%"])
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.grid(color=charts.INK, alpha=0.2, linewidth=0.6)
    axes.set_xlabel("false accepts: strangers taken for the person")
    axes.set_ylabel("true accepts: the person recognised")
    charts.legend(figure, lines[1:] + lines[:1], names[1:] + names[:1])
    return charts.png(figure)


def histogram_figure(panels: Mapping[str, Mapping[str, Sequence[float]]], xlabel: str) -> bytes:
    """A PNG of distributions, one panel under another on a common axis, each as high as it needs.

    Args:
        panels: name of a panel, such as an attacker, to (name of a distribution, such as "same
            person" or "strangers", to its values). Values that aren't finite are left out.
        xlabel: what the values are, with their unit.

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
    figure, rows = charts.empty(height=0.9 + 0.95 * count, panels=count)
    for axes, (name, panel) in zip(rows, panels.items(), strict=False):
        for kind, values in panel.items():
            if values.size:
                look, density = (
                    charts.line(kinds.index(kind)),
                    np.histogram(values, edges, density=True),
                )
                axes.stairs(*density, fill=True, color=look["color"], alpha=0.3)
                axes.stairs(*density, **look, linewidth=1.2)
                axes.axvline(values.mean(), **look, linewidth=1.2)
        axes.set_title(
            charts.wrapped(name), loc="left", fontsize=9.5, color=charts.INK, parse_math=False
        )
    for axes in rows:
        axes.set_yticks([])
        axes.set_ylim(bottom=0)
        axes.grid(axis="x", color=charts.INK, alpha=0.2, linewidth=0.6)
    rows[-1].set_xlabel(printable(xlabel), parse_math=False)
    patches = [matplotlib.patches.Patch(**charts.line(i), fill=False) for i in range(len(kinds))]
    charts.legend(figure, patches, kinds)
    return charts.png(figure)


def bar_figure(series: Mapping[str, Mapping[str, float]], xlabel: str) -> bytes:
    """A PNG of horizontal bars, such as the MCC of each attribute, of one model or of several.

    Args:
        series: name to (bar's name to value). Bars are ordered by the first series, the highest
            on top; a bar that a series lacks, or that is NaN, is shown as "–".
        xlabel: what the length means.

    Returns:
        The PNG, transparent, in colours that read on light and on dark.
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
    axes.grid(axis="x", color=charts.INK, alpha=0.2, linewidth=0.6)
    axes.set_xlabel(printable(xlabel), parse_math=False)
    charts.legend(figure, bars, list(series))
    return charts.png(figure)


def tsne_figure(panels: Mapping[str, tuple[np.ndarray, np.ndarray, Sequence[str]]]) -> bytes:
    """A PNG of points in the plane by class, such as those of `latent.embed` (Figure 4).

    Args:
        panels: name of a panel, such as an encoder, to (points, float [N, 2]; the class of each,
            integers [N]; the names of the classes). A class looks alike in all panels that name it,
            and rarer ones lie on top. Points that aren't finite are left out.

    Returns:
        The PNG, transparent, two panels a row, in colours that the colour-blind tell apart and that
        read on light and on dark. Axes have no unit: t-SNE keeps who is near, not how far.

    Raises:
        ValueError: there are no panels, shapes differ, or a class has no name.
    """
    if not panels:
        raise ValueError("there are no panels to draw")
    kinds = list(dict.fromkeys(name for _, _, names in panels.values() for name in names))
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = charts.blank(height=0.5 + rows * 7.4 / columns)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, (name, (points, classes, names)) in zip(grid, panels.items(), strict=False):
        points, classes = _checked_points(name, points, classes, names)
        size = np.clip(6000 / max(1, len(points)), 3, 24)
        for i in np.argsort(-np.bincount(classes, minlength=len(names)), kind="stable"):
            look = charts.point(kinds.index(names[i]))
            axes.scatter(*points[classes == i].T, s=size, linewidths=0, **look)
        title = {"loc": "left", "fontsize": 9.5, "color": charts.INK, "parse_math": False}
        axes.set_title(charts.wrapped(name, columns), **title)
    dots = [
        matplotlib.lines.Line2D([], [], linestyle="", markersize=6, **charts.point(i))
        for i in range(len(kinds))
    ]
    charts.legend(figure, dots, kinds)
    return charts.png(figure)


def _checked_points(
    name: str, points: np.ndarray, classes: np.ndarray, names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Finite points and their classes, or a ValueError that names the panel."""
    points, classes = np.asarray(points, float), np.asarray(classes)
    if points.ndim != 2 or points.shape[1] != 2 or classes.shape != points.shape[:1]:
        raise ValueError(
            f"panel {name}: points {points.shape} must be [N, 2], and classes {classes.shape} [N]"
        )
    if (
        not np.issubdtype(classes.dtype, np.integer)
        or not np.isin(classes, range(len(names))).all()
    ):
        raise ValueError(f"panel {name}: classes must be integers from 0 to {len(names) - 1}")
    finite = np.isfinite(points).all(axis=1)
    return points[finite], classes[finite]


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
