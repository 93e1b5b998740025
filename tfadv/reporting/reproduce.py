"""The page of an experiment: ours beside the paper's, claim by claim, with plots and pictures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from tfadv.attacks.black_box import SavedEncoder
from tfadv.config import run_folder
from tfadv.config.experiment import Claim, Part, Plan, Plot
from tfadv.config.files import write_json
from tfadv.data.dataset import TEST, WHOLE, Dataset
from tfadv.evaluation import tsne
from tfadv.evaluation.whitening import to_vectors
from tfadv.reporting import figures, page
from tfadv.reporting.glossary import Column, describe
from tfadv.reporting.page import Figure, Label, Section, Table
from tfadv.reporting.tables import comparison

_CLAIMS = (
    "Each claim as a difference between two rows. It holds clearly where the 95% intervals of the "
    "two don't overlap; inside them, a difference says little."
)
_CLAIM_COLUMNS = (
    Column("claim"),
    Column("measure"),
    Column("rows", "The first should have less than the second; little less, if it is a cost."),
    Column("paper", "The second row's number minus the first's, as the paper reports it."),
    Column("ours", "The second row's number minus the first's, as measured here."),
    Column("held"),
)

_TOLD = (
    "Balanced accuracy with which a linear probe on the features tells who has the attribute, of "
    "people that it didn't learn from. 0.5 is a coin toss."
)
_APART = (
    "How much nearer features are to their own class than to the next, of the four: 1 is far "
    "apart, 0 is mixed."
)
_OF_ONE_RUN = ("encoder", "scale", "baseline")  # an experiment's encoders leave them out
_MAPPED = 2000  # pictures on a map, some more to fill a batch

Metrics = dict[str, float | list[float]]


def write(plan: Plan, is_last: bool = False) -> Table:
    """Writes report.html and metrics.json of what is done so far; returns the table of rows.

    Args:
        plan: the experiment.
        is_last: whether all is done, so that maps of features can be drawn.
    """
    experiment = plan.experiment
    found = {row.name: measured(plan, row.name) for row in experiment.rows}
    table = _rows(plan, found)
    missing = [name for name, metrics in found.items() if not metrics]
    sections = []
    if experiment.claims:
        sections.append(Section("What the paper claims", [_claims(plan, found)], _CLAIMS))
    sections.append(Section("Row by row", [table], _missing(missing)))
    plots = [_plot(plot, plan, found) for plot in experiment.plots]
    if any(plots):
        sections.append(Section("Curves", list(filter(None, plots))))
    if grid := _grid(plan):
        sections.append(Section("Pictures", [grid]))
    if is_last and experiment.latent and any(found.values()):
        sections.append(_maps(plan, found))
    sections.append(Section("What was changed", [_changes(plan)], collapsed=True))
    plan.folder.mkdir(parents=True, exist_ok=True)
    summary = _summary(plan)
    page.write_page(
        plan.folder / "report.html", experiment.title, experiment.about, sections, summary
    )
    write_json(plan.folder / "metrics.json", {n: m for n, m in found.items() if m})
    return table


def _summary(plan: Plan) -> dict[str, str]:
    """What was run, as far as it is the same for all encoders that were begun."""
    summaries = []
    for part in {id(part): part for part in plan.encoders.values()}.values():
        path = part.path / "config.json"
        if path.exists():
            dataset = json.loads(path.read_text())["dataset"]
            summaries.append(run_folder.summary("reproduce", part.config, dataset))
    if not summaries:
        return {}
    shared = [item for item in summaries[0].items() if all(item in s.items() for s in summaries)]
    return {name: value for name, value in shared if name not in _OF_ONE_RUN}


def measured(plan: Plan, row: str) -> Metrics:
    """Returns what a row's runs measured; nothing if one of them isn't finished."""
    runs = [runs[row] for runs in (plan.encoders, plan.attacks) if row in runs]
    metrics = [run.metrics for run in runs]
    if None in metrics:
        return {}
    return {name: value for each in metrics for name, value in each.items()}


def verdict(claim: Claim, less: Metrics, more: Metrics) -> str:
    """Says whether a claim holds between two rows, from their metrics and intervals."""
    difference = more[claim.metric] - less[claim.metric]
    intervals = [row.get(f"{claim.metric}_ci95") for row in (less, more)]
    if claim.at_most < float("inf"):
        return "yes" if difference <= claim.at_most else f"no, by more than {claim.at_most:g}"
    words = "yes" if difference > 0 else "no"
    if all(intervals):
        (low, high), (other_low, other_high) = intervals
        if low <= other_high and other_low <= high:
            words += ", inside the intervals"
    return words


def _claims(plan: Plan, found: Mapping[str, Metrics]) -> Table:
    paper = {row.name: row.paper for row in plan.experiment.rows}
    rows = []
    for claim in plan.experiment.claims:
        column = describe(claim.metric)
        for less, more in claim.pairs:
            cells = [_difference(each, claim.metric, less, more) for each in (paper, found)]
            held = None
            if cells[1] is not None:
                held = verdict(claim, found[less], found[more])
            rows.append([claim.text, column.name, f"{less} < {more}", *cells, held])
    return Table("Claims", _CLAIM_COLUMNS, rows)


def _difference(metrics: Mapping[str, Mapping], metric: str, less: str, more: str) -> float | None:
    if metric not in metrics[less] or metric not in metrics[more]:
        return None
    return metrics[more][metric] - metrics[less][metric]


def _rows(plan: Plan, found: Mapping[str, Metrics]) -> Table:
    """Our number and the paper's for each row and metric."""
    experiment = plan.experiment
    names = []
    for metric in experiment.metrics:
        column = describe(metric)
        group = f"{column.name} {column.arrow}".strip()
        names.append((metric, replace(column, name="ours", group=group)))
        names.append((f"paper/{metric}", Column("paper", format=column.format, group=group)))
    rows = {
        Label(row.name, row.about): found[row.name]
        | {f"paper/{metric}": value for metric, value in row.paper.items()}
        for row in experiment.rows
    }
    return comparison(experiment.title, "row", rows, names)


def _missing(rows: list[str]) -> str:
    return f"Not finished: {', '.join(rows)}." if rows else ""


def _plot(plot: Plot, plan: Plan, found: Mapping[str, Metrics]) -> Figure | None:
    """Ours, and the paper's where it has them."""
    paper = {row.name: row.paper for row in plan.experiment.rows}
    lines = {}
    for name, rows in plot.series.items():
        for whose, metrics in (("ours", found), ("paper", paper)):
            points = [
                (metrics[row][plot.x] if plot.x else _short(row, name), metrics[row][plot.y])
                for row in rows
                if {plot.x or plot.y, plot.y} <= set(metrics[row])
            ]
            if points:
                title = f"{name}, {whose}" if name else whose
                lines[title] = tuple(zip(*points, strict=True))
    if not lines:
        return None
    xlabel = describe(plot.x).name if plot.x else ""
    png = figures.curve_figure(lines, xlabel, describe(plot.y).name, marker="o")
    return Figure(plot.title, png)


def _short(row: str, series: str) -> str:
    """A row's name without that of its series: conv1, of "conv1 without"."""
    return row.removesuffix(series).strip() or row


def _grid(plan: Plan) -> Figure | None:
    """What Dec^a made of the features of the same test pictures, row by row."""
    rows = []
    for name, part in plan.attacks.items():
        path = part.path / "reconstructions.npz"
        if not plan.experiment.pictures or not path.exists():
            continue
        with np.load(path, allow_pickle=False) as kept:
            if not rows:
                rows.append(("input", kept["input"]))
            if kept["decoder"].shape == rows[0][1].shape:
                rows.append((name, kept["decoder"]))
    if not rows:
        return None
    png = figures.image_grid(rows, plan.folder / "reconstructions.png")
    caption = "Test pictures, and what Dec^a made of their features in each row of the table."
    return Figure("Input and reconstructions", png, caption)


def _maps(plan: Plan, found: Mapping[str, Metrics]) -> Section:
    """t-SNE maps of the rows' features, and how well their classes can be told apart."""
    panels, rows, left_out = {}, [], {}
    attributes = plan.experiment.latent
    numbers = [*(f"balanced_accuracy/{name}" for name in attributes), "silhouette"]
    for row in filter(found.get, plan.encoders):
        part = plan.encoders[row]
        features, labels, identities = _features(part, attributes)
        seed = part.config.runtime.seed
        classes, names = tsne.combined(labels)
        try:
            panels[row] = (tsne.embed(features, seed), classes, names)
        except ValueError as error:  # such as an encoder that gives every picture the same
            left_out |= {f"{row} has no map: {error}.": None}
            continue
        told = tsne.separation(features, labels, seed, identities)
        found[row].update({name: told[name] for name in numbers if name in told})
        rows.append([row, *(told.get(name) for name in numbers)])
        left_out |= dict.fromkeys(f"{why}." for why in told["left_out"])
    columns = [Column("row"), *(Column(f"accuracy, {name}", _TOLD) for name in attributes)]
    table = Table("How well classes are told apart", [*columns, Column("silhouette", _APART)], rows)
    shown = [table]
    if panels:
        caption = (
            f"t-SNE of the features of the first {len(features):,} test pictures, standardised, "
            f"{tsne.COMPONENTS} principal components, perplexity {tsne.PERPLEXITY:g}: near "
            f"ones stay near, distances mean little."
        )
        shown.insert(0, Figure("Features", figures.tsne_figure(panels), caption))
    return Section("Maps of the features", shown, " ".join(left_out))


def _features(part: Part, attributes: Sequence[str]):
    """Features of the first test pictures, their labels by name, and who is in them."""
    dataset = Dataset(part.config.data)
    black_box = SavedEncoder(str(part.path / "encoder"), part.config.black_box, dataset.size)
    features, count = [], 0
    for batch in dataset.batches(TEST, WHOLE):
        features.append(to_vectors(black_box(batch["images"].numpy())))
        count += len(features[-1])
        if count >= _MAPPED:
            break
    identities, labels = (each[:count] for each in dataset.annotations(TEST))
    columns = dataset.columns(attributes)
    named = {name: labels[:, column] for name, column in zip(attributes, columns, strict=True)}
    return np.concatenate(features), named, identities


def _changes(plan: Plan) -> Table:
    rows = []
    for row in plan.experiment.rows:
        for mode, changes in (("protect", row.protect), ("attack", row.attack or {})):
            rows += [[row.name, mode, name, str(value)] for name, value in changes.items()]
    columns = [Column("row"), Column("mode"), Column("field"), Column("value")]
    return Table("Fields that rows change", columns, rows)
