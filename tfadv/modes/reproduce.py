"""--mode=reproduce: all runs of an experiment, each once, and a page of what they show."""

import gc

import keras

from tfadv.attacks.feature_map import check_size
from tfadv.config.experiment import Plan
from tfadv.config.run_folder import RunFolder
from tfadv.data.dataset import Dataset
from tfadv.models import build
from tfadv.modes import attack, dry_run, protect, recognizer
from tfadv.reporting import page, reproduce

_NAMED = 4  # rows that share a run are named, if so few
_MODES = {"recognizer": recognizer.run, "protect": protect.run, "attack": attack.run}


def run(plan: Plan) -> None:
    """Makes the runs that are left, and writes the page anew after each."""
    check_data(plan)
    for number, part in enumerate(plan.parts, start=1):
        if part.metrics is not None:
            # A recogniser, weights or an encoder that has changed since is told here.
            RunFolder(part.path, part.mode, part.config)
            continue
        rows = "row" if len(part.rows) == 1 else "rows"
        place = f"[{number} of {len(plan.parts)}]"
        print(f"\n{place} {part.mode}, for {rows} {', '.join(part.rows)}", flush=True)
        _MODES[part.mode](RunFolder(part.path, part.mode, part.config))
        keras.backend.clear_session()
        gc.collect()  # the next run wants the memory
        reproduce.write(plan)
    table = reproduce.write(plan, is_last=True)
    print(f"\n{page.format_table(table)}\n\nreport       {plan.folder / 'report.html'}")


def show(plan: Plan) -> None:
    """Prints the rows, what they share, what is done, and an estimate of time and disk."""
    check_data(plan)
    print(plan.experiment.title)
    for row in plan.experiment.rows:
        if row.name not in plan.rows:
            continue
        print(f"\nrow {row.name}" + (f": {row.about}" if row.about else ""))
        for part in plan.parts:
            if row.name not in part.rows:
                continue
            others = [name for name in part.rows if name != row.name]
            state = "to do" if part.metrics is None else "done"
            shared = ""
            if others:
                few = len(others) <= _NAMED
                shared = f", shared with {', '.join(others) if few else f'{len(others)} rows'}"
            print(f"  {part.mode:<10} {state}{shared}: {part.path}")
    print(f"\n{dry_run.describe([part for part in plan.parts if part.metrics is None])}")


def check_data(plan: Plan) -> None:
    """Raises a UserError now for what would stop a run hours later."""
    checked = []
    for part in plan.parts:
        data, attributes = part.config.data, part.config.task.attributes
        if (data, attributes) not in checked:
            checked.append((data, attributes))
            Dataset(data).columns(attributes)
        if part.mode == "attack":
            encoder = part.target.config
            of_task = Dataset(encoder.data).columns(encoder.task.attributes)
            shape = build.feature_shape(encoder, len(of_task))
            check_size(part.config.feature_map, f"row {part.rows[0]}", shape)
    if plan.experiment.latent:
        Dataset(plan.parts[-1].config.data).columns(plan.experiment.latent, "latent")
