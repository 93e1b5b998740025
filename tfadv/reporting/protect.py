"""What the page and the terminal's table of a protect run say, and what all modes say."""

from collections.abc import Mapping

from tfadv.config import run_folder
from tfadv.config.schema import defences, flatten
from tfadv.data.dataset import Dataset
from tfadv.reporting import figures, page
from tfadv.reporting.page import Figure, Section, Table
from tfadv.reporting.tables import cards, comparison
from tfadv.training.history import History

LOSSES = (
    "utility",
    "private_reconstruction",
    "private_perceptual",
    "private_distance_correlation",
    "private_excess_pixels",
    "private_excess_identity",
    "private_identity_entropy",
    "private_identity",
    "private_bottleneck",
    "public_reconstruction",
    "public_perceptual",
    "public_adversarial",
    "public_discriminator",
)

_UTILITY = "Measured with the exported SavedModels on test pictures, {}."
NO_RECOGNIZER = (
    "No face recogniser was given, so that no attacker guesses faces from features, and nothing "
    "says whether reconstructions show the right person: name one with --config.recognizer.path, "
    "or train one with --mode=recognizer."
)
_SIMULATED = (
    "The losses while Enc and f learned (Eq. 6 to 8) and Dec tried to follow (Eq. 1 to 5). The Dec "
    "trained along is fooled more than a fresh attacker is: it says little about privacy. Run "
    "--mode=attack for that."
)


def write_protect_page(
    run: run_folder.RunFolder,
    dataset: Dataset,
    metrics: Mapping[str, Mapping[str, float]],
    history: History,
) -> Table:
    """Writes report.html of a protect run; returns its table for the terminal.

    Args:
        run: the run's folder.
        dataset: what it was trained and measured on.
        metrics: of this encoder first, then of the baseline if there is one; by name.
        history: of this encoder's training.
    """
    names = ("mcc_task", "mcc_task_tuned", "dfil", "images_per_s")
    table = comparison("Test split", "encoder", metrics, names)
    bars = {
        name: {
            attribute.removeprefix("mcc/"): value
            for attribute, value in values.items()
            if attribute.startswith("mcc/")
        }
        for name, values in metrics.items()
    }
    names = [name for name in history.rows[0] if name in LOSSES]
    curves = {name.replace("_", " "): history.series(name) for name in names}
    terms = [
        f"{name} = {strength:g}" if isinstance(strength, float) else f"{name} = {strength}"
        for name, strength in defences(flatten(run.config)).items()
    ]
    is_simulated = run.config.loss.lambda1 or run.config.loss.lambda2
    page.write_page(
        run.path / "report.html",
        f"Encoder trained with {', '.join(terms)}" if terms else "Encoder trained without defence",
        "How well the exported encoder and classifier do their task. What the features leak is "
        "measured by an attack.",
        [
            Section("Utility", [table], _UTILITY.format(strangers(dataset))),
            Section(
                "Attribute by attribute",
                [Figure("MCC of each attribute", figures.bar_figure(bars, "Matthews correlation"))],
            ),
            Section(
                "Training",
                [Figure("Losses", figures.curve_figure(curves, "steps", "loss"))],
                _SIMULATED if is_simulated else "The loss while Enc and f learned (Eq. 6).",
            ),
        ],
        run_folder.summary(run.mode, run.config, dataset.description),
        cards(metrics, ("mcc_task", "mcc_task_tuned")),
    )
    return table


def strangers(dataset: Dataset) -> str:
    """Says of test pictures whether the people in them may have been seen in training."""
    who = "not seen in training, though people may be in several splits"
    if dataset.shares_no_identity:
        who = "of people in no other split"
    if dataset.extra:
        who += f" (whether {', '.join(dataset.extra)} shows them too can't be told)"
    return who


def print_start(dataset: Dataset, precision: str) -> None:
    """Prints what a run works on, what was left out of it, and in which precision."""
    splits = ", ".join(f"{size:,} {name}" for name, size in dataset.sizes.items())
    extra = "".join(f", {n:,} of the public ones from {name}" for name, n in dataset.extra.items())
    print(f"{dataset.description['name']}: {splits} pictures{extra}; {precision}", flush=True)
    if left_out := dataset.description["damaged"]["records"]:
        listed = "the others are in config.json, too" if left_out > 1 else "listed in config.json"
        print(f"left out {left_out:,} damaged records ({listed}): {dataset.faults[0]}", flush=True)


def print_result(run: run_folder.RunFolder, table: Table) -> None:
    """Prints the table and where to look."""
    print(f"\n{page.format_table(table)}\n")
    for title, name in (
        ("encoder", "encoder"),
        ("report", "report.html"),
        ("pictures", "reconstructions.png"),
    ):
        if (run.path / name).exists():
            print(f"{title:<12} {run.path / name}")
    # Both modes of a config side by side, where they are in their usual places.
    folder = run.path.parent if run.path.name == run.mode else run.path
    print(f"{'TensorBoard':<12} tensorboard --logdir {folder}")
