"""What the page and the terminal's table of --mode=recognizer say."""

from collections.abc import Mapping

from tfadv.config import run_folder
from tfadv.data.dataset import Dataset
from tfadv.reporting import figures, page
from tfadv.reporting.common import seen_in_training_note
from tfadv.reporting.glossary import Column
from tfadv.reporting.page import Figure, Section, Table
from tfadv.reporting.tables import cards, comparison
from tfadv.training.history import History

# Of real pictures, so that here a high rank is what is wanted.
COLUMNS = {
    "verification_auc": Column(
        "Verification AUC",
        "Chance that two pictures of one person match better than pictures of two. 0.5 is a coin "
        "toss, 1 is perfect. Higher is better.",
        "higher",
    ),
    "verification_eer": Column(
        "Verification EER",
        "Error rate where as many strangers are accepted as true matches are rejected. 50% is a "
        "coin toss. Lower is better.",
        "lower",
        "z.1%",
    ),
    "reid_rank1": Column(
        "Rank 1",
        "Pictures whose nearest other picture is of the right person. Higher is better.",
        "higher",
        "z.1%",
    ),
    "reid_rank5": Column(
        "Rank 5",
        "Pictures with the right person among the five nearest. Higher is better.",
        "higher",
        "z.1%",
    ),
}
_NOTE = (
    "Blurred pictures are enlarged from a quarter of their side and compared with pictures as they "
    "are: a recogniser that is to judge reconstructions, which are blurred, must stand that."
)
_MEASURED = (
    "Measured with the exported SavedModel. Each test image of a known person is compared with all "
    "other test images of known people. {}"
)
_TRAINING = (
    "Softmax over {} people of the {} split with a cosine margin (CosFace). The AUC is of pictures "
    "of people of that split who were held out from training."
)


def write(
    run: run_folder.RunFolder,
    dataset: Dataset,
    metrics: Mapping[str, float | list[float]],
    history: History,
) -> Table:
    """Writes report.html of a recogniser; returns its table for the terminal.

    Args:
        run: the run's folder.
        dataset: what it was trained and measured on.
        metrics: as in metrics.json.
        history: of the training.
    """
    columns = list(COLUMNS.items())
    blurred = {name.removeprefix("blurred/"): metrics[name] for name in metrics if "/" in name}
    rows = {"as they are": metrics, "blurred": blurred}
    table = comparison("Test people", "pictures", rows, columns, _NOTE)
    curves = {"loss": ("identity", "nats"), "held-out AUC": ("held_out_auc", "AUC")}
    charts = [
        Figure(name, figures.curve_figure({name: history.series(metric)}, "steps", unit))
        for name, (metric, unit) in curves.items()
        if history.series(metric)[0]
    ]
    measured = _MEASURED.format(seen_in_training_note(dataset))
    known = f"{metrics['identities']:,}"
    split = run.config.recognizer.split
    page.write_page(
        run.path / "report.html",
        f"Face recogniser trained on {known} people",
        "It measures how much of a person's identity survives in features and reconstructions.",
        [
            Section("Telling people apart", [table], measured),
            Section("Training", charts, _TRAINING.format(known, split)),
        ],
        run_folder.summary(run.mode, run.config, dataset.description),
        cards({"as they are": metrics}, columns),
    )
    return table
