"""--mode=reproduce: makes the runs of an experiment, each once, and writes a page of results."""

import gc
import json
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfadv.attacks import registry
from tfadv.attacks.feature_map import check_size
from tfadv.config import run_folder
from tfadv.config.experiment import Part, Plan
from tfadv.config.files import write_json
from tfadv.config.run_folder import RunFolder
from tfadv.config.schema import Data
from tfadv.config.validation import dataset_folder
from tfadv.data.dataset import Dataset
from tfadv.evaluation.results import AttackResult, EncoderResult
from tfadv.models import build
from tfadv.modes import attack, dry_run, loading, protect, recognizer, tsne_maps
from tfadv.reporting import reproduce as page
from tfadv.reporting.page import Table, format_table

_MODES = {"recognizer": recognizer.run, "protect": protect.run, "attack": attack.run}
_LISTED = 4  # rows that share a run are listed by name up to this number
# Settings that the page does not show.
_NOT_SHARED = ("--config.encoder", "--config.scale", "--config.baseline")


def run(plan: Plan) -> None:
    """Makes the runs that are not finished. Writes the page after each run."""
    check_data(plan)
    for number, part in enumerate(plan.parts, start=1):
        folder = RunFolder(part.path, part.mode, part.config)  # checks what a finished run used
        if part.metrics is not None:
            continue
        rows = "row" if len(part.rows) == 1 else "rows"
        place = f"[{number} of {len(plan.parts)}]"
        print(f"\n{place} {part.mode}, for {rows} {', '.join(part.rows)}", flush=True)
        _MODES[part.mode](folder)
        keras.backend.clear_session()
        gc.collect()  # frees memory for the next run
        report(plan)
    for table in report(plan, with_maps=True):
        print(f"\n{format_table(table)}")
    print(f"\nreport       {plan.folder / 'report.html'}")


def report(plan: Plan, *, with_maps: bool = False) -> list[Table]:
    """Writes the page and metrics.json of the finished rows; returns the tables for the terminal.

    Args:
        plan: the experiment.
        with_maps: whether to compute the maps of features that the experiment asks for.
    """
    experiment = plan.experiment
    results = {row.name: row_metrics(plan, row.name) for row in experiment.rows}
    finished = {row: part for row, part in plan.encoders.items() if results[row]}
    titles, attacked = {}, {}
    for row, part in plan.attacks.items():
        if row in finished:
            attacks = registry.build_attacks(part.config, build.measure_scale)
            titles |= {name: attack.title for name, attack in attacks.items()}
            attacked[row] = _attack_results(part)
            results[row] |= page.strongest_metrics(attacked[row])
    maps = None
    if with_maps and experiment.latent and finished:
        maps = tsne_maps.compute(finished, experiment.latent)
        for row, separation in maps.separation.items():
            results[row] |= separation
    plan.folder.mkdir(parents=True, exist_ok=True)
    tables = page.write(
        plan.folder,
        experiment,
        results,
        titles=titles,
        images=_reconstructions(plan, results, attacked, titles),
        maps=maps,
        details=_shared_settings(plan),
    )
    finished_results = {row: metrics for row, metrics in results.items() if metrics}
    write_json(plan.folder / "metrics.json", finished_results)
    return tables


def row_metrics(plan: Plan, row: str) -> dict[str, Any]:
    """Returns the metrics of a row's runs; an empty dict if one of them is not finished."""
    parts = [parts[row] for parts in (plan.encoders, plan.attacks) if row in parts]
    metrics = [part.metrics for part in parts]
    if None in metrics:
        return {}
    return {name: value for each in metrics for name, value in each.items()}


def _attack_results(part: Part) -> EncoderResult:
    """What each attack of a finished run recovered from the run's first encoder."""
    encoder = next(iter(loading.name_encoders(part.config.encoder)))
    files = sorted((part.path / "encoders" / encoder / "attacks").glob("*.npz"))
    return EncoderResult({path.stem: AttackResult.load(path) for path in files}, utility={})


def _reconstructions(
    plan: Plan,
    results: Mapping[str, Mapping[str, Any]],
    attacked: Mapping[str, EncoderResult],
    titles: Mapping[str, str],
) -> list[tuple[str, np.ndarray]]:
    """The test images, then their reconstructions in each attacked row, with labels.

    A row has those of the paper's decoder, and those of the strongest attack if it is another.
    """
    rows = []
    for name, result in attacked.items():
        path = plan.attacks[name].path / "reconstructions.npz"
        if not path.exists():
            continue
        with np.load(path, allow_pickle=False) as images:
            if not rows:
                rows.append(("input", images["input"]))
            if images["decoder"].shape == rows[0][1].shape:
                rows.append((name, images["decoder"]))
        best = results[name].get(f"{page.STRONGEST}psnr_attack", registry.DECODER)
        if best == registry.DECODER:
            continue
        images = result.attacks[best].images
        if images is not None and images.shape == rows[0][1].shape:
            rows.append((f"{name}, {titles.get(best, best)}", images))
    return rows


def _shared_settings(plan: Plan) -> dict[str, str]:
    """The settings that all encoders have in common, of those that were begun."""
    summaries = []
    for part in {part.path: part for part in plan.encoders.values()}.values():
        path = part.path / "config.json"
        if path.exists():
            dataset = json.loads(path.read_text())["dataset"]
            summaries.append(run_folder.summary("reproduce", part.config, dataset))
    if not summaries:
        return {}
    return {
        name: value
        for name, value in summaries[0].items()
        if name not in _NOT_SHARED and all(each.get(name) == value for each in summaries)
    }


def show(plan: Plan) -> None:
    """Prints the rows, their runs, what is finished, and an estimate of time and disk space.

    Data sets that are not prepared are left out of the checks, and named at the end.
    """
    unread = check_data(plan)
    print(plan.experiment.title)
    for row in plan.experiment.rows:
        if row.name in plan.rows:
            print(f"\nrow {row.name}" + (f": {row.about}" if row.about else ""))
            for part in plan.parts:
                if row.name in part.rows:
                    _show_part(part, [name for name in part.rows if name != row.name])
    print(f"\n{dry_run.describe([part for part in plan.parts if part.metrics is None])}")
    if unread:
        print(f"\nNot prepared, so attribute names were not checked: {', '.join(unread)}")
    if plan.missing:
        print("\nMissing before the runs can start:")
        print("\n".join(f"  {each}" for each in plan.missing))


def _show_part(part: Part, others: list[str]) -> None:
    state = "to do" if part.metrics is None else "done"
    if others:
        names = ", ".join(others) if len(others) <= _LISTED else f"{len(others)} rows"
        state += f", shared with {names}"
    print(f"  {part.mode:<10} {state}: {part.path}")


def check_data(plan: Plan) -> list[str]:
    """Raises a UserError for mistakes that would otherwise end a run hours later.

    Returns:
        The data sets that a dry run cannot read, because they are not prepared.
    """
    checked, unread = [], {}

    def columns(data: Data, attributes: Sequence[str], source: str = "task.attributes") -> int:
        """The number of attributes of these names, or of all attributes if there are no names."""
        absent = [
            name
            for name in (data.dataset, *data.extra)
            if "://" not in data.dir and not dataset_folder(data.dir, name).exists()
        ]
        if plan.is_dry and absent:
            unread.update(dict.fromkeys(absent))
            return len(attributes) or dry_run.ATTRIBUTES
        return len(Dataset(data).columns(attributes, source))

    for part in plan.parts:
        data, attributes = part.config.data, part.config.task.attributes
        if (data, attributes) not in checked:
            checked.append((data, attributes))
            columns(data, attributes)
        if part.mode == "attack":
            encoder = part.encoder_run.config
            shape = build.feature_shape(encoder, columns(encoder.data, encoder.task.attributes))
            check_size(part.config.feature_map, f"row {part.rows[0]}", shape)
    if plan.experiment.latent:
        columns(plan.parts[-1].config.data, plan.experiment.latent, "latent")
    return list(unread)
