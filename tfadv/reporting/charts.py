"""What all charts share: colours that read on light and dark, empty axes, a legend, the PNG."""

import io
import textwrap
from collections.abc import Sequence

import matplotlib.figure

from tfadv.reporting.text import printable

INK = "#767d87"  # reads on white and on near-black alike, so one PNG serves light and dark
COLOURS = ("#3b8ea5", "#d9793d", "#8a76c9", "#5a9e5f", "#c75b7a", "#a08a3c")
_LINES = ("-", "--", ":", "-.")
_HATCHES = ("", "////", "....", "xxxx")
_POINTS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_SHAPES = "o^sDvPX"  # seven, so that colour and shape repeat only after 42
DPI = 200


def blank(height: float) -> matplotlib.figure.Figure:
    """A figure without axes, 7.2 inches wide, without pyplot's global state."""
    return matplotlib.figure.Figure(figsize=(7.2, height), dpi=DPI, layout="constrained")


def empty(
    height: float, panels: int = 1
) -> tuple[matplotlib.figure.Figure, list[matplotlib.axes.Axes]]:
    """A chart without lines yet, whose panels, one under another, share x."""
    figure = blank(height)
    rows = list(figure.subplots(panels, sharex=True, squeeze=False)[:, 0])
    for axes in rows:
        axes.spines[:].set_visible(False)
        axes.set_axisbelow(True)
        axes.patch.set_alpha(0)
        axes.tick_params(colors=INK, labelsize=9, length=0)
        axes.xaxis.label.set(color=INK, fontsize=9.5)
        axes.yaxis.label.set(color=INK, fontsize=9.5)
    return figure, rows


def point(i: int) -> dict[str, str]:
    """How the points of class i look: a colour and a shape, which the colour-blind tell apart.

    Colours of Okabe and Ito, "Color Universal Design" (2008), without black and yellow, which don't
    read on both light and dark; of four, no two look nearly alike to anyone.
    """
    return {"color": _POINTS[i % len(_POINTS)], "marker": _SHAPES[i % len(_SHAPES)]}


def line(i: int) -> dict[str, str]:
    """How the line of series i looks: after the last colour they begin again, broken."""
    broken = _LINES[i // len(COLOURS) % len(_LINES)]
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": broken}


def fill(i: int) -> dict[str, object]:
    """How the bars of series i look: after the last colour they begin again, hatched."""
    hatch = _HATCHES[i // len(COLOURS) % len(_HATCHES)]
    return {
        "facecolor": COLOURS[i % len(COLOURS)],
        "hatch": hatch,
        "edgecolor": "white",
        "linewidth": 0,
    }


def wrapped(name: str, columns: int = 1) -> str:
    """The name in lines that are no wider than a chart, or than one of its columns."""
    return textwrap.fill(printable(name), 90 // columns)


def legend(figure: matplotlib.figure.Figure, handles: Sequence, names: Sequence[str]) -> None:
    """The series' names above the chart, if there is more than one."""
    if len(names) > 1:
        columns = max(1, min(3, 96 // (8 + max(map(len, names)))))
        place = {"loc": "outside upper left", "ncols": columns, "frameon": False, "fontsize": 9}
        names = [wrapped(name) for name in names]
        legend = figure.legend(handles, names, labelcolor=INK, handlelength=2.6, **place)
        for text in legend.get_texts():
            text.set_parse_math(False)


def png(figure: matplotlib.figure.Figure) -> bytes:
    """The figure as a PNG that holds nothing but its pixels."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=True, metadata={"Software": None})
    return buffer.getvalue()
