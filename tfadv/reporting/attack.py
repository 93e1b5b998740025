"""The page and the pictures of an attack."""

from collections.abc import Mapping, Sequence

import numpy as np

from tfadv.attacks.battery import Leak
from tfadv.attacks.scoring import EvaluationSet, Finding
from tfadv.config import run_folder
from tfadv.data.dataset import Dataset
from tfadv.evaluation.metrics.identity import Identification
from tfadv.evaluation.recognition.recognizer import Recognizer
from tfadv.reporting import attack_tables, figures, page, protect
from tfadv.reporting.attack_tables import LABELS
from tfadv.reporting.glossary import describe
from tfadv.reporting.page import Card, Figure, Section, Table
from tfadv.reporting.text import format_value

_ATTACKERS = (
    "Every attacker has public pictures and their features, and is measured on test pictures, {}. "
    "Intervals are 95%, from {:,} bootstrap samples of the test people. What counts is the "
    "strongest attacker, and how far it is from chance and the mean face."
)
_CONVERGED = (
    "An attacker who stops early flatters the defence. Each went on until held-out public "
    "pictures no longer improved, and then at lower rates from its best point until that no "
    "longer helped; the best point counts. With more public pictures an attacker would do better."
)
_CAPPED = (
    "An attacker who stops early flatters the defence, and here some did: {}, while held-out "
    "public pictures may still have improved. Give them more steps."
)
_CAPS = {"decoder": "train.steps", "feature_map": "feature_map.steps"}
_NOBODY_KNOWN = (
    "The dataset doesn't say that anybody is in two test pictures, so re-identification, "
    "verification and linkage are not measured."
)


def write(
    run: run_folder.RunFolder,
    dataset: Dataset,
    leaks: Mapping[str, Leak],
    references: Mapping[str, Finding],
    test: EvaluationSet,
    recognizers: Sequence[Recognizer],
) -> Table:
    """Writes report.html and reconstructions.png of an attack; returns a table for the terminal.

    Args:
        run: the run's folder.
        dataset: what the attackers learned from and were measured on.
        leaks: of each encoder, the one that the attack is about first.
        references: what needs no features.
        test: the test pictures.
        recognizers: C; M learned from the first.
    """
    effort = _effort(leaks)
    sections = [
        *_pictures(run, dataset, leaks, references, test),
        Section(
            "Side by side",
            [attack_tables.side_by_side(leaks, references)],
            _ATTACKERS.format(protect.strangers(dataset), run.config.metrics.replicates),
        ),
        Section(
            "Attacker by attacker",
            [attack_tables.by_attacker(name, leak, references) for name, leak in leaks.items()],
            " ".join(_unmeasured(references, recognizers)),
        ),
        *attack_tables.by_recognizer(leaks, references, recognizers[1:]),
        *_curves_of_identity(leaks, references, recognizers),
        *attack_tables.probes(leaks),
        Section("Did they try hard enough?", attack_tables.efforts(leaks), effort or _CONVERGED),
        *attack_tables.recognizer_table(recognizers),
    ]
    subject = next(iter(leaks))
    page.write_page(
        run.path / "report.html",
        f"Attack on the {subject} encoder",
        _lead(dataset, leaks, references),
        sections,
        run_folder.summary(run.mode, run.config, dataset.description),
        _cards(leaks, references),
    )
    return attack_tables.terminal(leaks, references, effort or attack_tables.READING)


def _unmeasured(references: Mapping[str, Finding], recognizers: Sequence[Recognizer]) -> list[str]:
    """Says what of identity is not measured, and why."""
    is_anybody_known = "chance" in references and "reid_rank1" in references["chance"].metrics
    missing = [] if recognizers else [protect.NO_RECOGNIZER]
    return missing if is_anybody_known else [*missing, _NOBODY_KNOWN]


def _effort(leaks: Mapping[str, Leak]) -> str:
    """Says which attacks were cut short, and by which field."""
    capped = [
        f"{LABELS[attacker].name} on {name} (by {_CAPS[attacker]})"
        for name, leak in leaks.items()
        for attacker, effort in leak.efforts.items()
        if not effort.converged
    ]
    return _CAPPED.format(", ".join(capped)) if capped else ""


def _lead(dataset: Dataset, leaks: Mapping[str, Leak], references: Mapping[str, Finding]) -> str:
    leak = next(iter(leaks.values()))
    attacker, value = attack_tables.strongest(leak, "psnr")
    lead = (
        f"Attackers with {dataset.sizes['public']:,} public pictures, who can call the encoder but "
        f"not look inside, rebuilt test pictures at {value:.2f} dB ({LABELS[attacker].name}); the "
        f"mean face gives {references['mean_face'].metrics['psnr']:.2f} dB."
    )
    if people := attack_tables.strongest(leak, "reid_rank1"):
        attacker, value = people
        guess = references["chance"].metrics["reid_rank1"]
        lead += (
            f" The one that names people best ({LABELS[attacker].name}) picked the right one first "
            f"for {value:.1%} of the test pictures; guessing gives {guess:.1%}."
        )
    return lead


def _pictures(run, dataset, leaks, references, test) -> list[Section]:
    """The grid: what was rebuilt of the first test pictures."""
    if not run.config.report.pictures:
        return []
    first = next(iter(test.batches()))["images"][: run.config.report.examples]
    rows = [("input", first)]
    subject = next(iter(leaks))
    for name, leak in leaks.items():
        rows.append((f"{name}: {LABELS['decoder'].name}", leak.attackers["decoder"].pictures))
    for attacker in ("random_features", "nearest_neighbour"):
        pictures = leaks[subject].attackers[attacker].pictures
        rows.append((f"{subject}: {LABELS[attacker].name}", pictures))
    rows.append((LABELS["mean_face"].name, references["mean_face"].pictures))
    # What --mode=reproduce sets side by side with other attacks.
    np.savez(
        run.path / "reconstructions.npz",
        input=first,
        decoder=leaks[subject].attackers["decoder"].pictures,
    )
    png = figures.picture_grid(rows, run.path / "reconstructions.png")
    who = protect.strangers(dataset)
    caption = f"Test pictures, {who}, and what attackers made of their features."
    return [Section("Pictures", [Figure("Input and reconstructions", png, caption)])]


def _curves_of_identity(
    leaks: Mapping[str, Leak],
    references: Mapping[str, Finding],
    recognizers: Sequence[Recognizer],
) -> list[Section]:
    """ROC curves of each way to a person, and how similar faces are."""
    items = []
    seen_by = recognizers[0].name if recognizers else ""
    for attacker, recognizer in (("decoder", seen_by), ("feature_map", seen_by), ("linkage", "")):
        found = {
            name: leak.attackers[attacker].identification.get(recognizer)
            for name, leak in leaks.items()
            if attacker in leak.attackers
        }
        if recognizer and attacker == "decoder":
            found |= {
                LABELS[name].name: references[name].identification.get(recognizer)
                for name in ("mean_face", "real_picture")
            }
        found = {name: each for name, each in found.items() if each and each.metrics}
        if found:
            items.append(_roc(LABELS[attacker].name, found))
        if found and attacker == "decoder":
            items.append(_histogram(found, seen_by))
    text = (
        "How often the right person is accepted, and strangers with them, as the threshold moves. "
        "A curve on the dots tells people apart no better than a coin."
    )
    return [Section("Who is it?", items, text)] if items else []


def _roc(attacker: str, found: Mapping[str, Identification]) -> Figure:
    png = figures.roc_figure(
        {name: each.roc for name, each in found.items()},
        {name: each.metrics["verification_auc"] for name, each in found.items()},
    )
    return Figure(f"ROC, {attacker}", png)


def _histogram(found: Mapping[str, Identification], recognizer: str) -> Figure:
    panels = {
        name: {"same person": each.genuine, "strangers": each.impostor}
        for name, each in found.items()
    }
    png = figures.histogram_figure(panels, "cosine similarity of the embeddings")
    caption = (
        f"Reconstructions by Dec^a against other real pictures of the same person and of "
        f"strangers, by {recognizer}. The more the two overlap, the less is told."
    )
    return Figure("Similarity", png, caption)


def _cards(leaks: Mapping[str, Leak], references: Mapping[str, Finding]) -> list[Card]:
    """The first encoder's key numbers, each beside the others'."""
    subject = next(iter(leaks))
    found = {name: attack_tables.summary(leak) for name, leak in leaks.items()}
    found |= {
        LABELS[name].name: references[name].metrics
        for name in ("mean_face", "chance")
        if name in references
    }
    cards = []
    for metric in ("mcc_task", "psnr", "face_similarity", "reid_rank1"):
        if metric in found[subject]:
            column = describe(metric)
            beside = [
                f"{other}: {format_value(values[metric], column.format)}"
                for other, values in found.items()
                if other != subject and metric in values
            ]
            by = attack_tables.strongest(leaks[subject], metric)
            note = f"by {LABELS[by[0]].name}; " if by else ""
            cards.append(Card(column, found[subject][metric], note + ", ".join(beside)))
    return cards
