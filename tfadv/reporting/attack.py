"""The page and the images of --mode=attack."""

from collections.abc import Mapping, Sequence

import numpy as np

from tfadv.attacks.references import CHANCE, MEAN_FACE, REAL_IMAGE
from tfadv.attacks.registry import DECODER, FEATURE_MAP, LINKAGE
from tfadv.attacks.suite import Suite
from tfadv.config.run_folder import RunFolder
from tfadv.data.dataset import Dataset
from tfadv.evaluation.leakage_measures import HARD_PREDICTIONS, UNPROTECTED
from tfadv.evaluation.recognition.recognizer import Recognizer
from tfadv.evaluation.results import PairScores
from tfadv.reporting import attack_tables as tables
from tfadv.reporting import common, figures
from tfadv.reporting.attack_tables import REFERENCES, Attacks, Encoders, References
from tfadv.reporting.conclusion import Conclusion
from tfadv.reporting.page import Card, Figure, Section, Table, write_page
from tfadv.reporting.tables import TASK_MCC, cards

_ATTACKS = (
    "Every attack learns from {:,} public images and their features. It can call the encoder, but "
    "not look inside. For each measure, the table shows the attack that recovers the most on "
    "held-out public images, with its result on test images. {} Intervals are 95%, from {:,} "
    "bootstrap samples of the test people."
)
_CONVERGED = (
    "An attack that stops early flatters the defence. Each network trained until held-out public "
    "images no longer improved, then at lower rates from its best point until that no longer "
    "helped. The best point counts. With more public images an attack would do better."
)
_CAPPED = (
    "An attack that stops early flatters the defence, and some stopped early or diverged here: {}. "
    "Held-out public images may still have improved. Give these attacks more steps."
)
_TITLES = {HARD_PREDICTIONS: "hard predictions only"}
_CAPS = {DECODER: "train.steps", FEATURE_MAP: "feature_map.steps"}
_ROC = (
    "How often the right person is accepted, and how often others are accepted, for all "
    "thresholds (ROC curve). A curve that lies on the line called chance is no better than a guess."
)


def write(
    run: RunFolder,
    dataset: Dataset,
    suite: Suite,
    encoders: Encoders,
    references: References,
    recognizers: Sequence[Recognizer],
    conclusion: Conclusion,
) -> Table:
    """Writes report.html and reconstructions.png; returns the table for the terminal.

    Args:
        run: the run's folder.
        dataset: where the images come from.
        suite: the attacks, and the test images.
        encoders: results, those of the attacked encoder first.
        references: results that need no features.
        recognizers: C; M learned from the first.
        conclusion: what the run shows, for the head of the page.
    """
    attacks = suite.attacks
    encoders = {_TITLES.get(name, name): result for name, result in encoders.items()}
    unfinished = _unfinished(encoders, attacks)
    subject = next(iter(encoders))
    rows = {name: tables.summary(result) for name, result in encoders.items()}
    rows |= {
        REFERENCES[n].name: references[n].metrics for n in (MEAN_FACE, CHANCE) if n in references
    }
    write_page(
        run.path / "report.html",
        f"Attack on the {subject} encoder",
        [*filter(None, (conclusion.attacker, conclusion.task, conclusion.following))],
        [
            *_images(run, dataset, suite, encoders, references),
            Section(
                "The strongest attack counts",
                [tables.strongest_attacks(encoders, references, attacks)],
                _ATTACKS.format(
                    dataset.sizes["public"],
                    common.seen_in_training_note(dataset),
                    run.config.metrics.replicates,
                ),
            ),
            Section(
                "Attack by attack",
                [tables.by_attack(n, e, references, attacks) for n, e in encoders.items()],
                " ".join(
                    common.not_measured(
                        encoders,
                        attacks,
                        has_recognizer=bool(recognizers),
                        has_identities=CHANCE in references
                        and "reid_rank1" in references[CHANCE].scores,
                    )
                ),
            ),
            Section(
                "The paper's attacks side by side",
                [tables.side_by_side(encoders, references)],
                "The paper has two attacks: a trained decoder (Dec^a, Eq. 1 to 5), and a trained "
                "network that guesses the face embedding from the feature (M(Z), Eq. 10).",
                collapsed=True,
            ),
            *tables.by_recognizer(encoders, references, recognizers[1:], attacks),
            *_pair_figures(encoders, references, recognizers, attacks),
            *tables.attributes(encoders, attacks),
            Section(
                "Did the attacks train long enough?",
                tables.training(encoders, attacks),
                unfinished or _CONVERGED,
            ),
            *tables.recognizer_table(recognizers),
        ],
        common.details(run, dataset),
        _cards(rows, encoders[subject], attacks),
    )
    return tables.terminal(encoders, references, unfinished or tables.READING)


def _unfinished(encoders: Encoders, attacks: Attacks) -> str:
    """Says which attacks diverged or ended at their cap on steps, and which setting that is."""
    capped = [
        f"{attacks[key].title} on {name}" + (f" (by {_CAPS[key]})" if key in _CAPS else "")
        for name, result in encoders.items()
        for key, attack in result.attacks.items()
        if attack.diverged or (attack.training is not None and not attack.training.converged)
    ]
    return _CAPPED.format(", ".join(capped)) if capped else ""


def _images(
    run: RunFolder, dataset: Dataset, suite: Suite, encoders: Encoders, references: References
) -> list[Section]:
    """The first test images, and what attacks on each encoder reconstruct."""
    if not run.config.report.pictures:
        return []
    first = next(iter(suite.test.batches()))["images"][: run.config.report.examples]
    decoded = next(iter(encoders.values())).attacks[DECODER].images
    if decoded is not None:  # --mode=reproduce shows these of several runs
        np.savez(run.path / "reconstructions.npz", input=first, decoder=decoded)

    def rows(keys: Mapping[str, str]) -> list[tuple[str, np.ndarray]]:
        results = {name: encoders[name].attacks[key] for name, key in keys.items()}
        return [
            (f"{name}: {suite.attacks[keys[name]].title}", result.images)
            for name, result in results.items()
            if result.images is not None
        ]

    best = {name: tables.strongest(result, "psnr") for name, result in encoders.items()}
    mean = (REFERENCES[MEAN_FACE].name, references[MEAN_FACE].images)
    shown = [
        ("input", first),
        *rows({name: found[0] for name, found in best.items() if found}),
        mean,
    ]
    note = common.seen_in_training_note(dataset)
    caption = f"Test images, and the closest reconstruction of any attack on each encoder. {note}"
    png = figures.image_grid(shown, run.path / "reconstructions.png")
    more = [("input", first)]
    for key in (DECODER, "nearest_neighbour"):
        more += rows(dict.fromkeys(encoders, key))
    return [
        Section("What an attacker sees", [Figure("Reconstructions", png, caption)]),
        Section(
            "Other reconstructions",
            [Figure("By two other attacks", figures.image_grid(more), "The same test images.")],
            collapsed=True,
        ),
    ]


def _pair_figures(
    encoders: Encoders,
    references: References,
    recognizers: Sequence[Recognizer],
    attacks: Attacks,
) -> list[Section]:
    """ROC curves of each way to re-identify, and histograms of similarities."""
    items = []
    first = recognizers[0].name if recognizers else ""
    for key, recognizer, auc in (
        (DECODER, first, "verification_auc"),
        (FEATURE_MAP, first, "feature_verification_auc"),
        (LINKAGE, "", "linkage_auc"),
    ):
        results = {name: result.attacks.get(key) for name, result in encoders.items()}
        if key == DECODER:
            results |= {
                REFERENCES[name].name: references[name]
                for name in (MEAN_FACE, REAL_IMAGE)
                if name in references
            }
        results = {n: each for n, each in results.items() if each and recognizer in each.pairs}
        pairs = {name: result.pairs[recognizer] for name, result in results.items()}
        if pairs:
            curves = {name: each.roc for name, each in pairs.items()}
            areas = {name: result.scores[auc].value for name, result in results.items()}
            title = f"By {attacks[key].title}"
            items.append(Figure(title, figures.roc_figure(curves, areas)))
        if pairs and key == DECODER:
            items.append(_histogram(pairs, first))
    return [Section("Verification", items, _ROC)] if items else []


def _histogram(found: Mapping[str, PairScores], recognizer: str) -> Figure:
    panels = {
        name: {
            "same person (genuine pairs)": pairs.genuine,
            "other people (impostor pairs)": pairs.impostor,
        }
        for name, pairs in found.items()
    }
    png = figures.histogram_figure(panels, "cosine similarity of the embeddings")
    caption = (
        f"How similar {recognizer} finds the trained decoder's reconstructions and other real "
        f"images: of the same person, and of other people. The more they overlap, the less leaks."
    )
    return Figure("Similarity", png, caption)


def _cards(rows: Mapping, subject, attacks: Attacks) -> list[Card]:
    metrics = ("psnr", "face_similarity", "reid_rank1")
    found = {metric: tables.strongest(subject, metric) for metric in metrics}
    notes = {metric: f"by {attacks[best[0]].title}" for metric, best in found.items() if best}
    middle = ("hard predictions only", UNPROTECTED)
    ends = dict.fromkeys(("psnr", "face_similarity"), (REFERENCES[MEAN_FACE].name, *middle))
    ends["reid_rank1"] = (REFERENCES[CHANCE].name, *middle)
    ends["mcc_task"] = (REFERENCES[CHANCE].name, *middle)
    rows[REFERENCES[CHANCE].name] = {"mcc_task": 0.0} | rows.get(REFERENCES[CHANCE].name, {})
    return cards(rows, (("mcc_task", TASK_MCC), *metrics), notes, ends)
