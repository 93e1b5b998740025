"""The page of --mode=reproduce: our results and the paper's, claims, plots and images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfadv.config.experiment import Claim, Experiment, Plot
from tfadv.evaluation import tsne
from tfadv.reporting import figures
from tfadv.reporting.glossary import Column, describe
from tfadv.reporting.page import Figure, Label, Section, Table, write_page
from tfadv.reporting.tables import Metrics, comparison

_CLAIMS = (
    "Each claim is a difference between two rows. It holds clearly where the 95% intervals of the "
    "two rows do not overlap. A difference within the intervals says little."
)
_CLAIM_COLUMNS = (
    Column("claim"),
    Column("metric"),
    Column(
        "rows", "The first row should have less than the second. A cost should be only a little."
    ),
    Column("paper", "The second row's number minus the first row's, as the paper reports it."),
    Column("ours", "The second row's number minus the first row's, as measured here."),
    Column("holds"),
)
_ACCURACY = (
    "Balanced accuracy of a linear classifier that predicts the attribute from features, on people "
    "that it did not learn from. 0.5 is chance level."
)
_SILHOUETTE = (
    "How much closer features are to their own class than to the next of the four classes. 1 is "
    "far apart, 0 is mixed."
)


@dataclass(frozen=True)
class Maps:
    """t-SNE maps of the features of rows.

    Attributes:
        panels: row -> (points, float [N, 2]; class of each, int [N]; names of the classes).
        separation: row -> `balanced_accuracy/ATTRIBUTE` and `silhouette` of its features.
        images: number of test images on a map.
        notes: sentences that say what is missing and why.
    """

    panels: Mapping[str, tuple[np.ndarray, np.ndarray, Sequence[str]]]
    separation: Mapping[str, Metrics]
    images: int
    notes: Sequence[str] = ()


def write(
    folder: Path,
    experiment: Experiment,
    results: Mapping[str, Metrics],
    *,
    images: Sequence[tuple[str, np.ndarray]] = (),
    maps: Maps | None = None,
    details: Mapping[str, Any],
) -> Table:
    """Writes report.html and reconstructions.png; returns the table for the terminal.

    Args:
        folder: where the files go; it must exist.
        experiment: what was run.
        results: row -> its metrics, empty if the row is not finished.
        images: label -> test images and reconstructions, uint8 [N, S, S, 3], to be shown in a grid.
        maps: of the features of finished rows.
        details: the settings that all runs share.
    """
    table = _row_by_row(experiment, results)
    missing = ", ".join(name for name, metrics in results.items() if not metrics)
    sections = []
    if experiment.claims:
        sections.append(Section("Claims", [_claims(experiment, results)], _CLAIMS))
    sections.append(Section("Row by row", [table], f"Not finished: {missing}." if missing else ""))
    plots = [_plot(plot, experiment, results) for plot in experiment.plots]
    if any(plots):
        sections.append(Section("Curves", list(filter(None, plots))))
    if images:
        png = figures.image_grid(images, folder / "reconstructions.png")
        caption = "Test images, and what Dec^a reconstructs from their features in each row."
        sections.append(Section("Images", [Figure("Input and reconstructions", png, caption)]))
    if maps:
        sections.append(_maps(maps, experiment.latent))
    sections.append(Section("Settings of each row", [_settings(experiment)], collapsed=True))
    write_page(folder / "report.html", experiment.title, experiment.about, sections, details)
    return table


def verdict(claim: Claim, less: Metrics, more: Metrics) -> str:
    """Returns whether a claim holds between two rows, from their metrics and intervals."""
    difference = more[claim.metric] - less[claim.metric]
    if claim.at_most < math.inf:
        return "yes" if difference <= claim.at_most else f"no, by more than {claim.at_most:g}"
    holds = "yes" if difference > 0 else "no"
    if any(metrics.get("attack_converged") == 0 for metrics in (less, more)):
        return f"{holds}, but an attack had not converged"
    intervals = [metrics.get(f"{claim.metric}_ci95") for metrics in (less, more)]
    if all(intervals):
        (low, high), (other_low, other_high) = intervals
        if low <= other_high and other_low <= high:
            return f"{holds}, within the intervals"
    return holds


def _claims(experiment: Experiment, results: Mapping[str, Metrics]) -> Table:
    paper = _paper(experiment)
    rows = []
    for claim in experiment.claims:
        for less, more in claim.pairs:
            differences = [_difference(each, claim.metric, less, more) for each in (paper, results)]
            is_measured = differences[1] is not None
            holds = verdict(claim, results[less], results[more]) if is_measured else None
            name = describe(claim.metric).name
            rows.append([claim.text, name, f"{less} < {more}", *differences, holds])
    columns, place = list(_CLAIM_COLUMNS), 3
    if not any(_paper(experiment).values()):  # a user's own experiment
        del columns[place]
        rows = [[*row[:place], *row[place + 1 :]] for row in rows]
    return Table("Claims", columns, rows)


def _paper(experiment: Experiment) -> dict[str, Metrics]:
    return {row.name: row.paper for row in experiment.rows}


def _difference(results: Mapping[str, Metrics], metric: str, less: str, more: str) -> float | None:
    if metric not in results[less] or metric not in results[more]:
        return None
    return results[more][metric] - results[less][metric]


def _row_by_row(experiment: Experiment, results: Mapping[str, Metrics]) -> Table:
    """Our number and the paper's for each row and metric."""
    names = []
    for metric in experiment.metrics:
        column = describe(metric)
        group = f"{column.name} {column.arrow}".strip()
        names.append((metric, replace(column, name="ours", group=group)))
        names.append((f"paper/{metric}", Column("paper", format=column.format, group=group)))
    rows = {}
    for row in experiment.rows:
        paper = {f"paper/{metric}": value for metric, value in row.paper.items()}
        rows[Label(row.name, row.about)] = {**results[row.name], **paper}
    return comparison(experiment.title, "row", rows, names)


def _plot(plot: Plot, experiment: Experiment, results: Mapping[str, Metrics]) -> Figure | None:
    """One line for our numbers and one for the paper's, for each series of rows."""
    lines = {}
    for series, rows in plot.series.items():
        for source, metrics in (("ours", results), ("paper", _paper(experiment))):
            points = [
                (metrics[row][plot.x] if plot.x else _short(row, series), metrics[row][plot.y])
                for row in rows
                if {plot.x or plot.y, plot.y} <= set(metrics[row])
            ]
            if plot.x:
                points.sort()  # the line must not go back and forth
            if points:
                name = f"{series}, {source}" if series else source
                lines[name] = tuple(zip(*points, strict=True))
    if not lines:
        return None
    xlabel = describe(plot.x).name if plot.x else ""
    png = figures.curve_figure(lines, xlabel, describe(plot.y).name, marker="o")
    return Figure(plot.title, png)


def _short(row: str, series: str) -> str:
    """A row's name without its series' name: conv1, for row "conv1 without"."""
    return row.removesuffix(series).strip() or row


def _maps(maps: Maps, attributes: Sequence[str]) -> Section:
    names = [(f"balanced_accuracy/{n}", Column(f"accuracy, {n}", _ACCURACY)) for n in attributes]
    names.append(("silhouette", Column("silhouette", _SILHOUETTE)))
    items = []
    if maps.panels:
        caption = (
            f"t-SNE of the features of the first {maps.images:,} test images, standardised, "
            f"{tsne.COMPONENTS} principal components, perplexity {tsne.PERPLEXITY:g}. Features "
            f"that are close stay close; larger distances mean little."
        )
        items.append(Figure("Features", figures.tsne_figure(maps.panels), caption))
        items.append(comparison("Separation of classes", "row", maps.separation, names))
    return Section("Maps of the features", items, " ".join(maps.notes))


def _settings(experiment: Experiment) -> Table:
    rows = [
        [row.name, mode, name, str(value)]
        for row in experiment.rows
        for mode, changes in (("protect", row.protect), ("attack", row.attack or {}))
        for name, value in changes.items()
    ]
    columns = [Column("row"), Column("mode"), Column("field"), Column("value")]
    return Table("Fields that differ from the base config", columns, rows)
