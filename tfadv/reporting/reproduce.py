"""The page of --mode=reproduce: our results and the paper's, claims, plots and images.

The paper's numbers are of its own attacks, and are compared with the same attacks here. What the
features leak is what the strongest attack recovers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfadv.config.experiment import Claim, Experiment, Plot
from tfadv.evaluation import tsne
from tfadv.evaluation.results import EncoderResult
from tfadv.reporting import figures
from tfadv.reporting.attack_tables import strongest
from tfadv.reporting.glossary import Column, describe
from tfadv.reporting.page import Cell, Estimate, Figure, Label, Section, Table, write_page
from tfadv.reporting.tables import Metrics, cell, comparison

STRONGEST = "strongest/"  # before the name of a metric: of the strongest attack
_LEAKS = (
    "psnr",
    "ssim",
    "face_similarity",
    "feature_similarity",
    "reid_rank1",
    "reid_rank5",
    "verification_auc",
)
_LEAD = (
    "What a row leaks is what the strongest attack on its features recovers. The paper's numbers "
    "are of the paper's own attacks: a decoder Dec^a that is trained on public images, and the "
    "network M(Z) for feature similarity. They are compared with the same attacks here."
)
_STRONGEST = (
    "For each measure, the table shows the attack that recovers the most. Attacks are chosen on "
    "held-out public images, or on test images if no held-out image has the measure."
)
_ROW_BY_ROW = "Leakage is measured by the paper's own attacks, unless a column names another."
_CLAIMS = (
    "Each claim is a difference between two rows. It holds clearly where the 95% intervals of the "
    "two rows do not overlap. A difference within the intervals says little. The paper's numbers "
    "are compared with ours by the paper's own attacks. A statement on privacy must hold for the "
    "strongest attack."
)
_CLAIM_COLUMNS = (
    Column("claim"),
    Column("metric"),
    Column(
        "rows", "The first row should have less than the second. A cost should be only a little."
    ),
    Column("paper", "The second row's number minus the first row's, as the paper reports it."),
    Column(
        "ours", "The second row's number minus the first row's, by the paper's own attacks here."
    ),
    Column("holds", "By the paper's own attacks."),
    Column(
        "ours, strongest attack",
        "The second row's number minus the first row's, each by the strongest attack on that row.",
    ),
    Column("holds, strongest attack", "By the strongest attack on each row."),
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


def strongest_metrics(result: EncoderResult) -> dict[str, Any]:
    """Returns the measures of the strongest attack on an encoder.

    Returns:
        `strongest/METRIC`, `strongest/METRIC_ci95` where there is an interval, and the attack's
        name as `strongest/METRIC_attack`.
    """
    metrics = {}
    for metric in _LEAKS:
        if found := strongest(result, metric):
            attack, score = found
            metrics[STRONGEST + metric] = score.value
            metrics[f"{STRONGEST}{metric}_attack"] = attack
            if score.interval is not None:
                metrics[f"{STRONGEST}{metric}_ci95"] = list(score.interval)
    return metrics


def write(
    folder: Path,
    experiment: Experiment,
    results: Mapping[str, Metrics],
    *,
    titles: Mapping[str, str],
    images: Sequence[tuple[str, np.ndarray]] = (),
    maps: Maps | None = None,
    details: Mapping[str, Any],
) -> list[Table]:
    """Writes report.html and reconstructions.png; returns the tables for the terminal.

    Args:
        folder: where the files go; it must exist.
        experiment: what was run.
        results: row -> its metrics with those of the strongest attack, empty if the row is not
            finished.
        titles: name of an attack -> its title.
        images: label -> test images and reconstructions, uint8 [N, S, S, 3], to be shown in a grid.
        maps: of the features of finished rows.
        details: the settings that all runs share.
    """
    tables = [_row_by_row(experiment, results)]
    missing = ", ".join(name for name, metrics in results.items() if not metrics)
    sections, lead = [], [experiment.about]
    if any(name.startswith(STRONGEST) for metrics in results.values() for name in metrics):
        lead.append(_LEAD)
        tables.insert(0, _strongest(results, titles))
        sections.append(Section("Leakage by the strongest attack", tables[:1], _STRONGEST))
    if experiment.claims:
        sections.append(Section("Claims", [_claims(experiment, results, titles)], _CLAIMS))
    remarks = [_ROW_BY_ROW] * (len(tables) > 1) + [f"Not finished: {missing}."] * bool(missing)
    sections.append(Section("Row by row", tables[-1:], " ".join(remarks)))
    plots = [_plot(plot, experiment, results) for plot in experiment.plots]
    if any(plots):
        sections.append(Section("Curves", list(filter(None, plots))))
    if images:
        png = figures.image_grid(images, folder / "reconstructions.png")
        caption = (
            "Test images, and what attacks reconstruct from their features in each row: Dec^a, and "
            "the attack with the highest PSNR if that is another."
        )
        sections.append(Section("Images", [Figure("Input and reconstructions", png, caption)]))
    if maps:
        sections.append(_maps(maps, experiment.latent))
    sections.append(Section("Settings of each row", [_settings(experiment)], collapsed=True))
    write_page(folder / "report.html", experiment.title, lead, sections, details)
    return tables


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


def _strongest(results: Mapping[str, Metrics], titles: Mapping[str, str]) -> Table:
    """Each measure by the strongest attack, which is named."""
    shown = [m for m in _LEAKS if any(STRONGEST + m in metrics for metrics in results.values())]
    utility = [m for m in ("mcc_task",) if any(m in metrics for metrics in results.values())]
    rows, used = [], {}
    for row, metrics in results.items():
        cells = [cell(metrics, metric) for metric in utility]
        for metric in shown:
            attack = metrics.get(f"{STRONGEST}{metric}_attack")
            if attack is None:
                cells.append(None)
                continue
            title = titles.get(attack, attack)
            used.setdefault(metric, {})[title] = None
            interval = metrics.get(f"{STRONGEST}{metric}_ci95", ())
            cells.append(Estimate(metrics[STRONGEST + metric], *interval, note=f"by {title}"))
        rows.append([row, *cells])
    # A terminal does not show the notes of numbers.
    note = "; ".join(f"{describe(m).name} by {' or '.join(names)}" for m, names in used.items())
    columns = [Column("row"), *map(describe, [*utility, *shown])]
    return Table("Leakage by the strongest attack", columns, rows, f"{note}.")


def _claims(
    experiment: Experiment, results: Mapping[str, Metrics], titles: Mapping[str, str]
) -> Table:
    paper = _paper(experiment)
    rows = []
    for claim in experiment.claims:
        by_strongest = replace(claim, metric=STRONGEST + claim.metric)
        for less, more in claim.pairs:
            name = describe(claim.metric).name
            row = [claim.text, name, f"{less} < {more}"]
            row.append(_difference(paper, claim.metric, less, more))
            row += _measured(claim, results, less, more)
            difference, holds = _measured(by_strongest, results, less, more)
            if difference is not None:
                keys = [results[each][f"{by_strongest.metric}_attack"] for each in (less, more)]
                named = dict.fromkeys(f"by {titles.get(key, key)}" for key in keys)
                difference = Estimate(difference, note=", ".join(named))
            rows.append([*row, difference, holds])
    has_paper = any(paper.values())  # not in a user's own experiment
    shown = [
        i
        for i, column in enumerate(_CLAIM_COLUMNS)
        if (column.name != "paper" or has_paper)
        and ("strongest" not in column.name or any(row[i] is not None for row in rows))
    ]
    columns = [_CLAIM_COLUMNS[i] for i in shown]
    return Table("Claims", columns, [[row[i] for i in shown] for row in rows])


def _measured(
    claim: Claim, results: Mapping[str, Metrics], less: str, more: str
) -> tuple[Cell, Cell]:
    """The difference between two rows, and whether the claim holds; None if not measured."""
    difference = _difference(results, claim.metric, less, more)
    holds = None if difference is None else verdict(claim, results[less], results[more])
    return difference, holds


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
    """Lines for our numbers, the paper's, and ours by the strongest attack, for each series."""
    lines = {}
    axes = plot.x, plot.y
    by_strongest = tuple(STRONGEST + name if name in _LEAKS else name for name in axes)
    sources = [("ours", results, *axes), ("paper", _paper(experiment), *axes)]
    if by_strongest != axes:
        sources.append(("ours, strongest attack", results, *by_strongest))
    for series, rows in plot.series.items():
        for source, metrics, x, y in sources:
            points = [
                (metrics[row][x] if x else _short(row, series), metrics[row][y])
                for row in rows
                if {x or y, y} <= set(metrics[row])
            ]
            if x:
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
