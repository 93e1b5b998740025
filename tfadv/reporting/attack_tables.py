"""The tables of an attack's page: encoders side by side, attacker by attacker, and the rest."""

import dataclasses
from collections.abc import Mapping, Sequence

from tfadv.attacks.battery import Leak
from tfadv.attacks.scoring import Finding
from tfadv.evaluation.recognition.recognizer import Recognizer
from tfadv.reporting import figures
from tfadv.reporting.glossary import Column, describe
from tfadv.reporting.page import Estimate, Figure, Label, Section, Table

LABELS = {
    "decoder": Label("decoder Dec^a", "A network trained to rebuild the picture (Eq. 1 to 5)."),
    "ridge": Label("linear decoder", "Closed form: ridge regression from features to pixels."),
    "random_features": Label(
        "random-features decoder",
        "Closed form: ridge regression from features and random ReLU features of them to pixels.",
    ),
    "nearest_neighbour": Label(
        "nearest neighbour", "PredictionOutput with the public picture whose feature is nearest."
    ),
    "input_optimisation": Label(
        "white-box search",
        "Searches for a picture with this feature, by gradients through the encoder: beyond a "
        "black box, and on the first test pictures only.",
    ),
    "feature_map": Label(
        "M(Z)", "A network that guesses the face embedding from the feature (Eq. 10): no picture."
    ),
    "feature_ridge": Label(
        "linear M(Z)", "Closed form: ridge regression from features to face embeddings."
    ),
    "linkage": Label(
        "linkage",
        "Compares features with features, by a metric learned on public people: no picture, no "
        "face recogniser.",
    ),
    "mean_face": Label("mean face", "What an attacker without any feature would answer."),
    "chance": Label(
        "chance", "What a guess without any feature gets: a person at random, the mean embedding."
    ),
    "real_picture": Label(
        "real picture", "The picture itself: what the recogniser could see at best."
    ),
}
_PIXELS = ("psnr", "ssim")
_IDENTITY = (
    "face_similarity",
    "face_similarity_inner",
    "feature_similarity",
    "reid_rank1",
    "reid_rank5",
    "verification_auc",
    "verification_eer",
)
_SIDE_BY_SIDE = {
    "task": ("mcc_task",),
    "rebuilt by Dec^a": ("psnr", "ssim", "face_similarity", "reid_rank1", "verification_auc"),
    "rebuilt in closed form": ("random_features/psnr", "random_features/reid_rank1"),
    "guessed by M(Z)": ("feature_similarity", "feature_reid_rank1", "feature_verification_auc"),
    "linked": ("linkage_rank1", "linkage_auc", "info_nce_bits"),
    "people's features": ("lda_score",),
}
_PROBES = ("probe_majority/accuracy", "probe_linear/accuracy", "probe_mlp/accuracy")
_PROBES += ("probe_linear/mcc", "probe_mlp/mcc", "probe_linear/auc", "probe_mlp/auc")
# What `Recognizer.description` tells of each: a heading, and what it means.
_RECOGNIZER = {
    "kind": ("kind", "What it is, and what runs it."),
    "input_size": ("input", "Pixels a side of the pictures that it is given."),
    "alignment": ("alignment", "celeba: faces moved to where it wants them; whole: as they are."),
    "interpolation": ("interpolation", "How pictures are brought to its size."),
    "embedding": ("embedding", "Numbers in its embedding of a face."),
    "layer": ("inner layer", "Where faces are compared too, before the embedding."),
    "inner": ("inner size", "Numbers in that layer's output."),
    "sha256": ("SHA-256", "Of its files: what tells it from any other."),
}
# What the terminal shows, each of the strongest attacker.
SUMMARY = ("mcc_task", "psnr", "ssim", "face_similarity", "reid_rank1")
READING = "The nearer a row comes to chance and the mean face, the less the features leak."


def _cell(metrics: Mapping, name: str):
    """A metric with its interval, as it is shown."""
    interval = metrics.get(f"{name}_ci95")
    value = metrics.get(name)
    return value if interval is None else Estimate(value, *interval)


def side_by_side(leaks: Mapping[str, Leak], references: Mapping[str, Finding]) -> Table:
    """A row for each encoder and reference, the measures of each attacker under its heading."""
    rows = {name: leak.metrics for name, leak in leaks.items()}
    for name, finding in references.items():
        rows[LABELS[name]] = as_every_attacker(finding.metrics, name)
    columns = [
        (_grouped(metric, group), metric)
        for group, metrics in _SIDE_BY_SIDE.items()
        for metric in metrics
        if any(metric in values for values in rows.values())
    ]
    cells = [
        [label, *(_cell(values, metric) for _, metric in columns)] for label, values in rows.items()
    ]
    return Table("Encoders", [Column("features"), *(c for c, _ in columns)], cells, READING)


def as_every_attacker(metrics: Mapping, name: str) -> dict:
    """A reference's metrics under the names of all attackers that it is a reference for."""
    values = dict(metrics)
    if name in ("chance", "real_picture"):
        for metric in filter(_is_of_people, metrics):
            values[f"random_features/{metric}"] = metrics[metric]
            values[f"feature_{metric}"] = metrics[metric]
        if name == "chance" and "reid_rank1" in metrics:
            values["linkage_rank1"] = metrics["reid_rank1"]
            values["linkage_auc"] = metrics["verification_auc"]
    if name == "mean_face":
        for metric in ("psnr", "psnr_ci95"):
            values[f"random_features/{metric}"] = metrics[metric]
    return values


def _grouped(metric: str, group: str) -> Column:
    """The column of a metric of one attacker, under that attacker's heading."""
    return dataclasses.replace(describe(metric.rpartition("random_features/")[2]), group=group)


def _is_of_people(metric: str) -> bool:
    return metric.startswith(("reid_", "verification_"))


def strongest(leak: Leak, measure: str) -> tuple[str, float] | None:
    """Returns the attacker that recovers most, and how much; None where none is measured so.

    One that looks inside the encoder, and at some pictures only, doesn't count.

    Args:
        leak: of an encoder.
        measure: one that is higher for the stronger attacker: psnr, ssim, face_similarity,
            reid_rank1.
    """
    found = {
        name: _plain(finding.metrics)
        for name, finding in leak.attackers.items()
        if name != "input_optimisation"
    }
    values = {name: metrics[measure] for name, metrics in found.items() if measure in metrics}
    return max(values.items(), key=lambda item: item[1]) if values else None


def summary(leak: Leak) -> dict[str, float]:
    """Returns what `SUMMARY` names, each of the strongest attacker."""
    found = {name: strongest(leak, name) for name in SUMMARY}
    return leak.utility | {name: most[1] for name, most in found.items() if most}


def by_attacker(name: str, leak: Leak, references: Mapping[str, Finding]) -> Table:
    """A row for each attacker on one encoder, a column for each measure."""
    rows = {LABELS[attacker]: _plain(found.metrics) for attacker, found in leak.attackers.items()}
    rows |= {LABELS[reference]: found.metrics for reference, found in references.items()}
    return _rows(name, rows, (*_PIXELS, *_IDENTITY))


def _plain(metrics: Mapping) -> dict:
    """Measures of identity under one name, whoever is identified by what."""
    return {
        metric.replace("feature_reid", "reid")
        .replace("feature_verification", "verification")
        .replace("linkage_rank", "reid_rank")
        .replace("linkage_", "verification_"): value
        for metric, value in metrics.items()
    }


def _rows(title: str, rows: Mapping, metrics: Sequence[str], note: str = "") -> Table:
    """A row for each name, a column for each metric that any row has."""
    shown = [metric for metric in metrics if any(metric in values for values in rows.values())]
    cells = [[label, *(_cell(values, m) for m in shown)] for label, values in rows.items()]
    return Table(title, [Column("attacker"), *map(describe, shown)], cells, note)


def by_recognizer(
    leaks: Mapping[str, Leak],
    references: Mapping[str, Finding],
    recognizers: Sequence[Recognizer],
) -> list[Section]:
    """The same reconstructions seen by recognisers that no attacker learned from."""
    tables = []
    for recognizer in recognizers:
        metrics = [f"{metric}/{recognizer.name}" for metric in _IDENTITY]
        for name, leak in leaks.items():
            rows = {LABELS[key]: found.metrics for key, found in leak.attackers.items()}
            rows |= {LABELS[key]: found.metrics for key, found in references.items()}
            rows = {
                label: values
                for label, values in rows.items()
                if any(metric in values for metric in metrics)
            }
            tables.append(_rows(f"{name}, by {recognizer.name}", rows, metrics))
    return [Section("By other recognisers", tables, collapsed=True)] if tables else []


def probes(leaks: Mapping[str, Leak]) -> list[Section]:
    """What probes read of the attributes that the task did not train."""
    rows = {name: leak.probes for name, leak in leaks.items() if leak.probes}
    if not rows:
        return []
    shown = [metric for metric in _PROBES if any(metric in values for values in rows.values())]
    cells = [[name, *(values.get(metric) for metric in shown)] for name, values in rows.items()]
    table = Table("Probes", [Column("features"), *map(describe, shown)], cells)
    text = "Attributes that the task did not train, read from the features all the same."
    bars = {
        name: {
            metric.removeprefix("probe_mlp/mcc/"): value
            for metric, value in values.items()
            if metric.startswith("probe_mlp/mcc/")
        }
        for name, values in rows.items()
    }
    chart = Figure("MCC of each, MLP probe", figures.bar_figure(bars, "Matthews correlation"))
    return [Section("What else the features say", [table, chart], text)]


def efforts(leaks: Mapping[str, Leak]) -> list[Figure | Table]:
    """How the trained attackers got on, and how long they tried."""
    curves = {name: leak.efforts["decoder"].curve for name, leak in leaks.items()}
    curve = figures.curve_figure(curves, "steps of the attack", "loss")
    rows = [
        [f"{name}: {LABELS[attacker].name}", effort.steps, effort.held_out_loss]
        for name, leak in leaks.items()
        for attacker, effort in leak.efforts.items()
    ]
    rows += [
        [f"{name}: {LABELS[attacker].name}", None, found.metrics["held_out_loss"]]
        for name, leak in leaks.items()
        for attacker, found in leak.attackers.items()
        if "held_out_loss" in found.metrics
    ]
    columns = [Column("attacker"), describe("attack_steps"), describe("held_out_loss")]
    return [
        Figure("Loss of Dec^a on held-out public pictures", curve),
        Table("Effort", columns, rows),
    ]


def recognizer_table(recognizers: Sequence[Recognizer]) -> list[Section]:
    """Which recogniser measured what, and which an attacker learned from."""
    if not recognizers:
        return []
    rows = [
        [
            recognizer.name,
            "learned from it" if i == 0 else "did not see it",
            *(str(recognizer.description[fact]) for fact in _RECOGNIZER),
        ]
        for i, recognizer in enumerate(recognizers)
    ]
    columns = [Column("recogniser"), Column("M", "Whether M learned to guess its embedding.")]
    columns += [Column(*heading) for heading in _RECOGNIZER.values()]
    table = Table("Recognisers", columns, rows)
    text = (
        "The first measures everything, and M learns its embedding; no decoder learned from any. "
        "What M(Z) is worth to a recogniser that it did not learn from is not measured."
    )
    return [Section("Face recognisers", [table], text, collapsed=True)]


def terminal(leaks: Mapping[str, Leak], references: Mapping[str, Finding], note: str) -> Table:
    """The few numbers that a terminal has room for."""
    rows = {name: summary(leak) for name, leak in leaks.items()}
    rows |= {LABELS[name].name: finding.metrics for name, finding in references.items()}
    shown = [metric for metric in SUMMARY if any(metric in values for values in rows.values())]
    cells = [[name, *(values.get(m) for m in shown)] for name, values in rows.items()]
    columns = [Column("features"), *map(describe, shown)]
    title = "Utility, and leakage by the strongest attacker of each measure"
    return Table(title, columns, cells, note)
