"""The look that all figures share: colours for light and dark pages, axes, legend, PNG."""

import io
import textwrap
from collections.abc import Sequence

import matplotlib.figure

from tfadv.reporting.text import printable

INK = "#767d87"  # is readable on white and on near-black, so that one PNG serves both
COLOURS = ("#3b8ea5", "#d9793d", "#8a76c9", "#5a9e5f", "#c75b7a", "#a08a3c")
DPI = 200
_LINES = ("-", "--", ":", "-.")
_HATCHES = ("", "////", "....", "xxxx")
_POINTS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_SHAPES = "o^sDvPX"  # seven shapes and six colours: pairs repeat only after 42


def blank(height: float) -> matplotlib.figure.Figure:
    """Returns a figure without axes, 7.2 inches wide, outside of pyplot's global state."""
    return matplotlib.figure.Figure(figsize=(7.2, height), dpi=DPI, layout="constrained")


def empty(
    height: float, panels: int = 1
) -> tuple[matplotlib.figure.Figure, list[matplotlib.axes.Axes]]:
    """Returns a figure and its empty panels, which are stacked and share x."""
    figure = blank(height)
    rows = list(figure.subplots(panels, sharex=True, squeeze=False)[:, 0])
    for axes in rows:
        axes.spines[:].set_visible(False)
        axes.set_axisbelow(True)
        axes.patch.set_alpha(0)
        axes.tick_params(colors=INK, labelsize=9, length=0)
        axes.xaxis.label.set(color=INK, fontsize=9.5, parse_math=False)
        axes.yaxis.label.set(color=INK, fontsize=9.5, parse_math=False)
    return figure, rows


def grid(axes: matplotlib.axes.Axes, axis: str = "both") -> None:
    """Draws the grid lines of one axis or both."""
    axes.grid(axis=axis, color=INK, alpha=0.2, linewidth=0.6)


def title(axes: matplotlib.axes.Axes, name: str, columns: int = 1) -> None:
    """Writes a panel's title, wrapped to the width of one of `columns` columns."""
    text = wrapped(name, columns)
    axes.set_title(text, loc="left", fontsize=9.5, color=INK, parse_math=False)


def point(i: int) -> dict[str, str]:
    """Returns the look of class i: a colour and a shape.

    Colours of Okabe and Ito, "Color Universal Design" (2008), without black and yellow, which are
    not readable on both light and dark. Colour-blind readers can distinguish any of the first four.
    """
    return {"color": _POINTS[i % len(_POINTS)], "marker": _SHAPES[i % len(_SHAPES)]}


def line(i: int) -> dict[str, str]:
    """Returns the look of line i: after the last colour, colours repeat with broken lines."""
    style = _LINES[i // len(COLOURS) % len(_LINES)]
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": style}


def fill(i: int) -> dict[str, object]:
    """Returns the look of bar series i: after the last colour, colours repeat with hatches."""
    hatch = _HATCHES[i // len(COLOURS) % len(_HATCHES)]
    colour = COLOURS[i % len(COLOURS)]
    return {"facecolor": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0}


def wrapped(name: str, columns: int = 1) -> str:
    """Returns the name in lines that fit a figure, or one of its columns."""
    return textwrap.fill(printable(name), 90 // columns)


def legend(figure: matplotlib.figure.Figure, handles: Sequence, names: Sequence[str]) -> None:
    """Writes the names above the figure if there is more than one."""
    if len(names) < 2:
        return
    columns = max(1, min(3, 96 // (8 + max(map(len, names)))))
    place = {"loc": "outside upper left", "ncols": columns, "frameon": False, "fontsize": 9}
    names = [wrapped(name) for name in names]
    box = figure.legend(handles, names, labelcolor=INK, handlelength=2.6, **place)
    for text in box.get_texts():
        text.set_parse_math(False)


def png(figure: matplotlib.figure.Figure) -> bytes:
    """Returns the figure as a transparent PNG without metadata."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=True, metadata={"Software": None})
    return buffer.getvalue()
