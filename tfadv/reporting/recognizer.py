"""The page of --mode=recognizer: how well the face recognizer distinguishes people."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfadv.reporting import figures
from tfadv.reporting.glossary import Column
from tfadv.reporting.page import Figure, Section, Table, write_page
from tfadv.reporting.tables import Metrics, cards, comparison

# The images are real, so that a higher rate is better.
_COLUMNS = {
    "verification_auc": Column(
        "Verification AUC",
        "Chance that two images of one person match better than images of two people. 0.5 is "
        "chance level, 1 is perfect. Higher is better.",
        "higher",
    ),
    "verification_eer": Column(
        "Verification EER",
        "Error rate where false accepts equal false rejects. 50% is chance level. Lower is better.",
        "lower",
        "z.1%",
    ),
    "reid_rank1": Column(
        "Rank 1",
        "Re-identification: share of images that are closest to another image of the same person. "
        "Higher is better.",
        "higher",
        "z.1%",
    ),
    "reid_rank5": Column(
        "Rank 5",
        "Re-identification: share of images with another image of the same person among the five "
        "closest. Higher is better.",
        "higher",
        "z.1%",
    ),
}
_BLURRED = (
    "Blurred images are reduced to a quarter of their side and enlarged again. They are compared "
    "with images that are not blurred. A recognizer that measures reconstructions must stand blur, "
    "because reconstructions are blurred."
)


def write(
    path: Path,
    metrics: Metrics,
    *,
    loss: figures.Series,
    held_out_auc: figures.Series,
    split: str,
    people_note: str,
    details: Mapping[str, Any],
) -> Table:
    """Writes the page; returns its table for the terminal.

    Args:
        path: the file.
        metrics: as in metrics.json.
        loss: steps and training losses, in nats.
        held_out_auc: steps and verification AUCs on held-out people; may be empty.
        split: name of the split that it was trained on.
        people_note: whether the people in the test images may be in the training data.
        details: the settings of the run.
    """
    columns = list(_COLUMNS.items())
    blurred = {name.removeprefix("blurred/"): metrics[name] for name in metrics if "/" in name}
    rows = {"not blurred": metrics, "blurred": blurred}
    table = comparison("Test people", "images", rows, columns, _BLURRED)
    people = f"{metrics['identities']:,}"
    curves = (("loss", loss, "nats"), ("held-out AUC", held_out_auc, "AUC"))
    charts = [
        Figure(title, figures.curve_figure({title: series}, "steps", unit))
        for title, series, unit in curves
        if series[0]
    ]
    measured = (
        f"Measured with the exported SavedModel. Each test image of a known person is compared "
        f"with all other test images of known people. {people_note}"
    )
    trained = (
        f"Softmax over {people} people of the {split} split with a cosine margin (CosFace). The "
        f"AUC is of people of that split who were held out from training."
    )
    write_page(
        path,
        f"Face recognizer trained on {people} people",
        "It measures how much of a person's identity is left in features and reconstructions.",
        [
            Section("Verification and re-identification", [table], measured),
            Section("Training", charts, trained),
        ],
        details,
        cards({"not blurred": metrics}, columns),
    )
    return table
