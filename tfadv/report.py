"""From numbers and pictures to what a person reads: an HTML page, tables in a terminal.

Knows nothing of TensorFlow or of where the numbers come from: data in, text or a file out. Text
may come from anywhere (file names, attribute names), so it is escaped in the page and stripped of
control characters in the terminal.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from tfadv.text import format_value, printable

Cell = str | float | None


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
    "images_per_s": Column(
        "Training images/s", "Pictures trained on a second. Higher is faster.", "higher", ",.0f"
    ),
    "attack_steps": Column(
        "Attack steps",
        "Steps that the attacker trained for, the patience after its best point included.",
        "",
        ",.0f",
    ),
    "test_examples": Column("Test pictures", "Pictures measured on.", "", ",.0f"),
}


def describe(name: str) -> Column:
    """What a metric of metrics.json means; `mcc/ATTRIBUTE` too, and a bare name if unknown."""
    if name.startswith("mcc/"):
        attribute = name.removeprefix("mcc/")
        meaning = f"How well {attribute} is predicted: Matthews correlation. 1 is perfect, 0 is "
        return Column(f"MCC {attribute}", meaning + "chance. Higher is more useful.", "higher")
    return MEANINGS.get(name, Column(name))


def format_table(table: Table) -> str:
    """The table for a terminal: aligned, names to the left, numbers to the right."""
    header = [f"{printable(column.name)} {column.arrow}".rstrip() for column in table.columns]
    rows = [
        [format_value(cell, column.format) for cell, column in zip(row, table.columns, strict=True)]
        for row in table.rows
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        numbers = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "  ".join([cells[0].ljust(widths[0]), *numbers]).rstrip()

    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    lines = [printable(table.title), line(header), rule, *map(line, rows), printable(table.note)]
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
