"""What the page and the terminal's table of a protect run say, and what all modes say."""

from collections.abc import Mapping, Sequence

from tfadv.config import run_folder
from tfadv.config.schema import defences, flatten
from tfadv.data.dataset import Dataset
from tfadv.reporting import figures, page
from tfadv.reporting.common import seen_in_training_note
from tfadv.reporting.page import Figure, Section, Table
from tfadv.reporting.tables import cards, comparison
from tfadv.training.history import History

_UTILITY = "Measured with the exported SavedModels on the test images. {}"
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
    losses: Sequence[str],
) -> Table:
    """Writes report.html of a protect run; returns its table for the terminal.

    Args:
        run: the run's folder.
        dataset: what it was trained and measured on.
        metrics: of this encoder first, then of the baseline if there is one; by name.
        history: of this encoder's training.
        losses: names in the history of the losses to show.
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
    curves = {name.replace("_", " "): history.series(name) for name in losses}
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
            Section("Utility", [table], _UTILITY.format(seen_in_training_note(dataset))),
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
