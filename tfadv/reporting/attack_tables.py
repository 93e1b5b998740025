"""The tables of an attack's page: encoders side by side, attack by attack, and the rest."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

from tfadv.attacks.attack import Attack
from tfadv.attacks.references import CHANCE, MEAN_FACE, REAL_IMAGE
from tfadv.attacks.registry import encoder_metrics
from tfadv.evaluation.recognition.recognizer import Recognizer
from tfadv.evaluation.results import AttackResult, EncoderResult, Flat, Score
from tfadv.evaluation.verdicts import choose
from tfadv.reporting import figures
from tfadv.reporting.glossary import Column, describe
from tfadv.reporting.page import Figure, Label, Section, Table
from tfadv.reporting.tables import TASK_MCC, cell, comparison, estimate, task_mcc

Encoders = Mapping[str, EncoderResult]
References = Mapping[str, AttackResult]
Attacks = Mapping[str, Attack]

REFERENCES = {
    MEAN_FACE: Label("mean face", "The mean public image: the best guess without any feature."),
    CHANCE: Label("chance", "A guess without any feature: a random person, the mean embedding."),
    REAL_IMAGE: Label(
        "real image",
        "The image itself, by the face recognizer. Attacks that learn from features may see more.",
    ),
}
# Heading -> metrics of an encoder by the names of metrics.json.
_SIDE_BY_SIDE = {
    "task": ("mcc_task",),
    "reconstruction by the trained decoder": (
        "psnr",
        "ssim",
        "face_similarity",
        "reid_rank1",
        "verification_auc",
    ),
    "reconstruction in closed form": ("kernel/psnr", "kernel/reid_rank1"),
    "guess by the trained network": (
        "feature_similarity",
        "feature_reid_rank1",
        "feature_verification_auc",
    ),
    "linkage": ("linkage_rank1", "linkage_auc", "info_nce_bits"),
    "separation of people": ("lda_score",),
}
_IDENTITY = (
    "reid_rank1",
    "verification_auc",
    "face_similarity",
    "face_similarity_inner",
    "feature_similarity",
    "reid_rank5",
    "verification_eer",
)
# The order of the columns; a narrow screen shows the first ones.
_BY_ATTACK = ("psnr", "reid_rank1", "verification_auc", "ssim", *_IDENTITY[2:])
_STRONGEST = ("psnr", "reid_rank1", "mcc_task", "verification_auc", "face_similarity", "ssim")
_ATTRIBUTES = (
    "attribute_mcc",
    "attribute_auc",
    "attribute_accuracy",
    "attribute_majority_accuracy",
)
# What `Recognizer.description` says: key -> heading and meaning.
_RECOGNIZER = {
    "kind": ("kind", "What it is, and what runs it."),
    "input_size": ("input", "Pixels per side of its input."),
    "alignment": ("alignment", "celeba: faces are moved to its template; whole: they are not."),
    "interpolation": ("interpolation", "How images are resized to its input."),
    "embedding": ("embedding", "Numbers in its embedding of a face."),
    "layer": ("inner layer", "A layer before the embedding, at which faces are also compared."),
    "inner": ("inner size", "Numbers in that layer's output."),
    "sha256": ("SHA-256", "Of its files."),
}
# The columns of the terminal's table, each of the strongest attack.
SUMMARY = ("mcc_task", "psnr", "ssim", "face_similarity", "reid_rank1")
READING = "The closer a row is to chance and the mean face, the less the features leak."
_ABOVE_REAL = (
    "A row can lie above the real image. Attacks such as linkage learn from public people which "
    "features distinguish people. The face recognizer, which compares the real images, learns "
    "nothing here."
)


def strongest(result: EncoderResult, metric: str) -> tuple[str, Score] | None:
    """Returns the attack that recovers the most by a metric, and its score.

    Attacks are chosen by held-out public images; by test images if no held-out image has the
    metric, because no held-out identity is known. None if no attack has the metric.

    Args:
        result: of an encoder.
        metric: one that is higher for a stronger attack, such as psnr or reid_rank1. For the
            latter, re-identification by guessed embeddings and by linkage also count.
    """
    all_images = max((attack.examples for attack in result.attacks.values()), default=0)
    scores = {
        name: score
        for name, attack in result.attacks.items()
        for key, score in attack.scores.items()
        if _common_name(key) == metric
        and math.isfinite(score.value)
        and attack.examples == all_images
    }
    held_out = {n: score for n, score in scores.items() if math.isfinite(score.held_out)}
    on_test = {n: dataclasses.replace(score, held_out=score.value) for n, score in scores.items()}
    return choose(held_out) or choose(on_test)


def summary(result: EncoderResult) -> Flat:
    """Returns the metrics of `SUMMARY` with their intervals, each of the strongest attack."""
    metrics = result.utility | task_mcc(result.utility)
    for metric in SUMMARY:
        if best := strongest(result, metric):
            metrics[metric] = best[1].value
            if best[1].interval:
                metrics[f"{metric}_ci95"] = list(best[1].interval)
    return metrics


def terminal(encoders: Encoders, references: References, note: str) -> Table:
    """Returns the table that the terminal shows."""
    found = {name: summary(result) for name, result in encoders.items()}
    found |= {REFERENCES[name].name: each.metrics for name, each in references.items()}
    # Without intervals, for which a terminal has no room.
    rows = {name: {m: row[m] for m in SUMMARY if m in row} for name, row in found.items()}
    title = "Utility, and leakage by the strongest attack of each measure"
    columns = [(metric, _column(metric)) for metric in SUMMARY]
    return comparison(title, "features", rows, columns, note)


def strongest_attacks(encoders: Encoders, references: References, attacks: Attacks) -> Table:
    """Returns the strongest attack of each measure: a row for each encoder and reference."""
    columns = [Column("features"), *map(_column, _STRONGEST)]
    rows, rates = [], []
    for name, result in encoders.items():
        cells = {"mcc_task": cell(task_mcc(result.utility), "mcc_task")}
        for metric in _STRONGEST:
            if best := strongest(result, metric):
                cells[metric] = estimate(best[1], f"by {attacks[best[0]].title}")
        rows.append([name, *map(cells.get, _STRONGEST)])
        if "reid_rank1" in cells:
            rates.append(cells["reid_rank1"].value)
    for key, reference in references.items():
        rows.append([REFERENCES[key], *(cell(reference.metrics, metric) for metric in _STRONGEST)])
    is_shown = [any(row[i] is not None for row in rows) for i in range(1 + len(_STRONGEST))]
    rows = [list(itertools.compress(row, is_shown)) for row in rows]
    title = "The strongest attack of each measure"
    note = f"{READING} {_above_real(rates, references)}".strip()
    return Table(title, list(itertools.compress(columns, is_shown)), rows, note)


def side_by_side(encoders: Encoders, references: References) -> Table:
    """Returns a row for each encoder and reference, a column for each measure of main attacks."""
    rows = {
        name: encoder_metrics(result) | task_mcc(result.utility)
        for name, result in encoders.items()
    }
    for name, reference in references.items():
        rows[REFERENCES[name]] = _for_every_attack(reference.metrics, name)
    columns = [
        (metric, dataclasses.replace(_column(metric), group=group))
        for group, metrics in _SIDE_BY_SIDE.items()
        for metric in metrics
    ]
    return comparison("Encoders", "features", rows, columns, READING)


def by_attack(name: str, result: EncoderResult, references: References, attacks: Attacks) -> Table:
    """Returns a row for each attack on one encoder, a column for each measure."""
    rows = {
        Label(attacks[key].title, attacks[key].meaning): {
            _common_name(metric): value for metric, value in each.metrics.items()
        }
        for key, each in result.attacks.items()
        if each.scores and not any(name.startswith("attribute_") for name in each.scores)
    }
    rates = [row["reid_rank1"] for row in rows.values() if "reid_rank1" in row]
    rows |= {REFERENCES[key]: each.metrics for key, each in references.items()}
    return comparison(name, "attack", rows, _BY_ATTACK, _above_real(rates, references))


def by_recognizer(
    encoders: Encoders, references: References, recognizers: Sequence[Recognizer], attacks: Attacks
) -> list[Section]:
    """Returns the same reconstructions as recognizers see them that no attack learned from."""
    tables = []
    for recognizer in recognizers:
        metrics = [f"{metric}/{recognizer.name}" for metric in _IDENTITY]
        for name, result in encoders.items():
            rows = {attacks[key].title: each.metrics for key, each in result.attacks.items()}
            rows |= {REFERENCES[key].name: each.metrics for key, each in references.items()}
            rows = {label: row for label, row in rows.items() if set(metrics) & row.keys()}
            tables.append(comparison(f"{name}, by {recognizer.name}", "attack", rows, metrics))
    return [Section("Other recognizers", tables, collapsed=True)] if tables else []


def attributes(encoders: Encoders, attacks: Attacks) -> list[Section]:
    """Returns how well attributes are inferred that the task does not train."""
    rows, bars = {}, {}
    for name, result in encoders.items():
        for key, attack in result.attacks.items():
            if "attribute_mcc" in attack.scores and not attack.diverged:
                label = f"{name}: {attacks[key].title}"
                rows[label] = attack.metrics
                bars[label] = {
                    metric.partition("/")[2]: score.value
                    for metric, score in attack.scores.items()
                    if metric.startswith("attribute_mcc/")
                }
    if not rows:
        return []
    table = comparison("Predictions of attributes", "features", rows, _ATTRIBUTES)
    chart = Figure(
        "Matthews correlation (MCC) of each attribute",
        figures.bar_figure(bars, "Matthews correlation"),
    )
    text = (
        "Attributes that the task does not train, inferred from the features. A probe is a small "
        "model that predicts attributes from features."
    )
    return [Section("Attribute inference", [table, chart], text)]


def training(encoders: Encoders, attacks: Attacks) -> list[Figure | Table]:
    """Returns how long each attack trained, and how its loss fell."""
    curves, rows = {}, {}
    for name, result in encoders.items():
        for key, attack in result.attacks.items():
            label = f"{name}: {attacks[key].title}"
            if attack.training is not None and "mse" in attack.scores:
                curves[label] = attack.training.curve
            if "held_out_loss" in attack.metrics:
                steps = {"attack_steps": attack.training.steps} if attack.training else {}
                rows[label] = {"held_out_loss": attack.metrics["held_out_loss"]} | steps
    table = comparison("Loss", "attack", rows, ("attack_steps", "held_out_loss"))
    if not curves:
        return [table]
    chart = figures.curve_figure(curves, "steps of the attack", "loss")
    return [Figure("Loss of the trained decoder on held-out public images", chart), table]


def recognizer_table(recognizers: Sequence[Recognizer]) -> list[Section]:
    """Returns which recognizer measured what, and which one attacks learned from."""
    if not recognizers:
        return []
    rows = [
        [
            recognizer.name,
            "no" if i else "yes",
            *(str(recognizer.description[fact]) for fact in _RECOGNIZER),
        ]
        for i, recognizer in enumerate(recognizers)
    ]
    columns = [
        Column("recognizer"),
        Column("attacks learn from it", "Whether attacks learned to guess its embeddings."),
        *(Column(*heading) for heading in _RECOGNIZER.values()),
    ]
    text = (
        "A face recognizer turns a face into numbers, its embedding, by which people are told "
        "apart. The first one measures the faces on this page. The attacks that guess embeddings "
        "learn from it. Other recognizers only measure. Decoders learn from none."
    )
    return [
        Section("Face recognizers", [Table("Recognizers", columns, rows)], text, collapsed=True)
    ]


def _column(metric: str) -> Column:
    return TASK_MCC if metric == "mcc_task" else describe(metric.rpartition("/")[2])


def _above_real(rates: Sequence[float], references: References) -> str:
    """Why a rate of re-identification lies above that of the real image; empty if none does."""
    real = references[REAL_IMAGE].scores.get("reid_rank1") if REAL_IMAGE in references else None
    is_above = real is not None and any(rate > real.value for rate in rates)
    return _ABOVE_REAL if is_above else ""


def _common_name(metric: str) -> str:
    """A metric of identity without the kind of attack: reid_rank1, of feature_reid_rank1."""
    return (
        metric.replace("feature_reid", "reid")
        .replace("feature_verification", "verification")
        .replace("linkage_rank", "reid_rank")
        .replace("linkage_", "verification_")
    )


def _for_every_attack(metrics: Flat, name: str) -> Flat:
    """A reference's metrics under the names of all attacks that it is a reference for."""
    values = dict(metrics)
    if name in (CHANCE, REAL_IMAGE):
        for metric in [m for m in metrics if m.startswith(("reid_", "verification_"))]:
            values[f"kernel/{metric}"] = metrics[metric]
            values[f"feature_{metric}"] = metrics[metric]
    if name == CHANCE and "reid_rank1" in metrics:
        values["linkage_rank1"] = metrics["reid_rank1"]
        values["linkage_auc"] = metrics["verification_auc"]
    if name == MEAN_FACE:
        for metric in ("psnr", "psnr_ci95"):
            values[f"kernel/{metric}"] = metrics[metric]
    return values
