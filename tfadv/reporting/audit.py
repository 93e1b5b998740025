"""The page of --mode=audit: what leaks, how that compares, and what was tried."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from tfadv.attacks.suite import Suite
from tfadv.config.run_folder import RunFolder
from tfadv.config.schema import Audit
from tfadv.data.dataset import Dataset
from tfadv.evaluation.closure import difference
from tfadv.evaluation.leakage_measures import HARD_PREDICTIONS, MEASURES, REFERENCES, UNPROTECTED
from tfadv.evaluation.metrics import identity
from tfadv.evaluation.recognition.recognizer import Recognizer
from tfadv.evaluation.results import AttackResult, EncoderResult
from tfadv.evaluation.verdicts import Verdict, Verdicts
from tfadv.reporting import audit_sections, common, figures
from tfadv.reporting.audit_sections import Attacks, Encoders, column, label
from tfadv.reporting.conclusion import tries
from tfadv.reporting.glossary import Column
from tfadv.reporting.page import Card, Cell, Estimate, Figure, Label, Section, Table, write_page
from tfadv.reporting.tables import TASK_MCC, cell, comparison, estimate, task_mcc

# The order of the columns; a narrow screen shows the first ones. Other measures follow.
_FIRST = ("pixels", "linkage_rank1", "guess_rank1", "face_rank1")
_UTILITY = 3  # place of the task's column
_HOW = (
    "For each measure, the table shows the attack that leaks the most on held-out public images, "
    "with its result on test images. {} Intervals are 95%, from {:,} bootstrap samples of the "
    "test people. Closure is the share of the gap between the unprotected encoder and hard "
    "predictions only that a defence closes: 0% is no defence, 100% is as private as hard "
    "predictions only. It is left out where that gap cannot be told from zero."
)
_LIMITS = (
    "An audit cannot show that a stronger attack, or one with other or more data, learns no more. "
    "It does not test whether a person's images were training data, nor attackers who have the "
    "encoder's weights. Its numbers hold for people and images like the test ones."
)
_CONVERGED = (
    "Each decoder was trained with three budgets, each twice the one before. The last doubling "
    "gained less than half of the interval's width and, for pixels, less than a tenth of the gap "
    "between the ends."
)
_NOT_CONVERGED = (
    "NOT CONVERGED: {}. Either the last doubling of a decoder's budget still gained more than half "
    "of the interval's width (for pixels, more than a tenth of the gap between the ends), or an "
    "attack diverged, or a trained embedding guess still improved at its last step. These numbers "
    "are lower bounds and no verdict. Give the attacks more steps with --config.audit.steps and "
    "--config.feature_map.steps."
)


def write(
    run: RunFolder,
    dataset: Dataset,
    suite: Suite,
    encoders: Encoders,
    verdicts: Verdicts,
    recognizers: Sequence[Recognizer],
    notes: Sequence[str],
) -> Table:
    """Writes report.html and reconstructions.png; returns the table for the terminal.

    Args:
        run: the run's folder.
        dataset: where the images come from.
        suite: the attacks, and the test images.
        encoders: results of each encoder and reference.
        verdicts: encoder -> measure -> the largest leak.
        recognizers: C; attacks learned from the first.
        notes: which rows of reference are missing, in sentences.
    """
    chance = identity.chance(suite.test.identities)
    people = len(np.unique(suite.test.identities))
    table = leaks(encoders, verdicts, chance)
    subject = next(iter(verdicts))
    config = run.config
    missing = common.not_measured(
        {subject: encoders[subject]},
        suite.attacks,
        has_recognizer=bool(recognizers),
        has_identities="reid_rank1" in chance,
    )
    write_page(
        run.path / "report.html",
        f"Audit of the {subject} encoder",
        [*lead(verdicts, people), *notes, carried(encoders)],
        [
            *_images(run, suite, encoders, verdicts),
            Section(
                "How much leaks",
                [table, *closures(verdicts)],
                _HOW.format(common.seen_in_training_note(dataset), config.metrics.replicates),
            ),
            Section(
                "The strongest attacks",
                [strongest(verdicts, suite)],
                _convergence(verdicts, encoders),
            ),
            *_differences(verdicts),
            *_by_recognizer(verdicts, recognizers),
            *audit_sections.sections(
                encoders,
                suite.attacks,
                repeats=config.audit.repeats,
                domain=config.audit.domain,
                searched=config.attack.white_box,
            ),
            Section(
                "What was tried",
                [tried(encoders[subject], suite.attacks)],
                " ".join([*missing, _LIMITS]),
            ),
        ],
        common.details(run, dataset),
        _cards(encoders, verdicts, chance),
    )
    return table


def duration_note(settings: Audit, encoders: Sequence[str]) -> str:
    """Returns a line that says that training decoders takes long, and how to leave them out.

    Empty if no decoder is trained.
    """
    if not (settings.decoders and settings.losses):
        return ""
    if "residual" in settings.decoders:
        way_out = "--config.audit.decoders=figure6 leaves out the large decoder"
    else:
        way_out = "--config.audit.decoders= leaves them out"
    return (
        f"decoders ({', '.join(settings.decoders)}) are trained on {len(encoders)} encoders "
        f"({', '.join(encoders)}), which takes long without a GPU: {way_out}"
    )


def lead(verdicts: Verdicts, people: int) -> list[str]:
    """Returns in plain words what an attacker learns, and how far that can be relied on.

    Args:
        verdicts: encoder -> measure -> the largest leak; those of the audited encoder come first.
        people: number of people in the test images.
    """
    subject = verdicts[next(iter(verdicts))]
    ends = {"without protection": UNPROTECTED, "with hard predictions only": HARD_PREDICTIONS}

    def beside(key: str, say: Callable[[float], str]) -> str:
        """The same measure of both ends of the scale."""
        found = {words: verdicts.get(name, {}).get(key) for words, name in ends.items()}
        said = [f"{words} {say(each.score.value)}" for words, each in found.items() if each]
        return f"; {', '.join(said)}" if said else ""

    found = []
    if "linkage_rank1" in subject:
        linked = subject["linkage_rank1"].score.value
        others = beside("linkage_rank1", lambda share: f"in {tries(share)}")
        found.append(
            f"Whoever sees the features of two images of one person links them, among {people:,} "
            f"people, in {tries(linked)}{others}."
        )
    if "pixels" in subject:
        error, others = subject["pixels"].score.value, beside("pixels", "it is {:.3f}".format)
        found.append(
            f"Reconstructions of the image have a mean squared error of {error:.3f} (pixels from "
            f"-1 to 1){others}."
        )
    if not all(verdict.is_converged for verdict in subject.values()):
        found.append("Some attacks had not converged: with more steps they would find more.")
    return found


def carried(encoders: Encoders) -> str:
    """Returns how many bits the feature of each encoder carries at most, in a sentence."""
    found = [f"{label(name).name} {each.bits:,.0f}" for name, each in encoders.items()]
    return (
        f"A feature carries at most so many bits: {', '.join(found)}. No attacker can learn more, "
        f"even one with a trick that nobody has thought of."
    )


def leaks(encoders: Encoders, verdicts: Verdicts, chance: Mapping[str, float]) -> Table:
    """Returns the largest leak by each measure, a row for each encoder, and chance."""
    keys = _measured(verdicts)
    rows = _rows(verdicts, keys, _score)
    for name, row in zip(verdicts, rows, strict=True):
        row.insert(_UTILITY, _task(encoders[name].utility))
    guesses = {
        "rank1": chance.get("reid_rank1"),
        "auc": chance.get("verification_auc"),
        "attributes": 0.0,
    }
    chances = [guesses.get(key.rpartition("_")[2]) for key in keys]
    rows.append([Label("chance", "A guess without any feature."), *chances])
    rows[-1].insert(_UTILITY, 0.0)
    columns = [Column("encoder"), *map(column, keys)]
    columns.insert(_UTILITY, TASK_MCC)
    return Table("The largest leak", columns, rows)


def closures(verdicts: Verdicts) -> list[Table]:
    """Returns the closure by each measure, a row for each encoder but the ends, if there is any."""
    keys = _measured(verdicts)
    closed = {
        name: found
        for name, found in verdicts.items()
        if any(found[key].closure for key in keys if key in found)
    }
    rows = _rows(closed, keys, _share)
    columns = [Column(MEASURES[key].title, better="higher", format=".0%") for key in keys]
    return [Table("Closure", [Column("encoder"), *columns], rows)] if rows else []


def strongest(verdicts: Verdicts, suite: Suite) -> Table:
    """Returns the strongest attack by each measure, a row for each encoder."""

    def title(verdict: Verdict) -> str:
        mark = "" if verdict.is_converged else " (not converged)"
        return suite.attacks[verdict.attack].title + mark

    keys = _measured(verdicts)
    columns = [Column("encoder"), *(Column(MEASURES[key].title) for key in keys)]
    return Table("The strongest attack", columns, _rows(verdicts, keys, title))


def tried(encoder: EncoderResult, attacks: Attacks) -> Table:
    """Returns what each attack on an encoder recovered: a row for each attack with a result."""
    results = {
        Label(attacks[key].title, attacks[key].meaning + _seen_as(result)): result.metrics
        for key, result in encoder.attacks.items()
        if result.metrics
    }
    columns = [(MEASURES[key].metric, column(key)) for key in _ordered(MEASURES)]
    return comparison("Attacks, on test images", "attack", results, columns)


def _seen_as(result: AttackResult) -> str:
    return f" It chose the view {result.view!r} of the feature." if result.view else ""


def _measured(verdicts: Verdicts) -> list[str]:
    return _ordered({key for found in verdicts.values() for key in found})


def _ordered(keys: Collection[str]) -> list[str]:
    return [key for key in dict.fromkeys([*_FIRST, *MEASURES]) if key in keys]


def _rows(
    verdicts: Verdicts, keys: Sequence[str], cell_of: Callable[[Verdict], Cell]
) -> list[list[Cell]]:
    """A row for each encoder: its label, then a cell for each key; None without a verdict."""
    return [
        [label(name), *(cell_of(found[key]) if key in found else None for key in keys)]
        for name, found in verdicts.items()
    ]


def _score(verdict: Verdict) -> Estimate:
    return estimate(verdict.score)


def _share(verdict: Verdict) -> Estimate | None:
    closed = verdict.closure
    if closed is None or not math.isfinite(closed.value):
        return None
    return Estimate(closed.value, *closed.interval)


def _convergence(verdicts: Verdicts, encoders: Encoders) -> str:
    unfinished = []
    for name, found in verdicts.items():
        titles = [
            MEASURES[key].title for key in MEASURES if key in found and not found[key].is_converged
        ]
        if titles:
            unfinished.append(f"{name} ({', '.join(titles)})")
    if unfinished:
        return _NOT_CONVERGED.format("; ".join(unfinished))
    results = (result for encoder in encoders.values() for result in encoder.attacks.values())
    if not any(result.budget and not result.not_applicable for result in results):
        return "No decoder was trained: audit.decoders or audit.losses is empty."
    return _CONVERGED


def _by_recognizer(verdicts: Verdicts, recognizers: Sequence[Recognizer]) -> list[Section]:
    tables = []
    for other in recognizers[1:]:
        suffix = f"/{other.name}"
        keys = [key for key in MEASURES if any(key + suffix in v for v in verdicts.values())]
        rows = _rows(verdicts, [key + suffix for key in keys], _score)
        tables.append(Table(other.name, [Column("encoder"), *map(column, keys)], rows))
    if not tables:
        return []
    text = "These recognizers were not used to train or select any attack."
    return [Section("Other recognizers", tables, text)]


def _differences(verdicts: Verdicts) -> list[Section]:
    """How the first encoder compares with the others, on the same people."""
    first, *others = [name for name in verdicts if name not in REFERENCES]
    keys = [key for key in MEASURES if key in verdicts[first]]
    rows = []
    for name in others:
        cells = []
        for key in keys:
            other = verdicts[name].get(key)
            if other is None:
                cells.append(None)
            else:
                value, interval = difference(verdicts[first][key].score, other.score)
                cells.append(Estimate(value, *interval))
        rows.append([f"{first} minus {name}", *cells])
    if not rows:
        return []
    table = Table("Differences", [Column("encoders"), *map(column, keys)], rows)
    text = "On the same resampled people. Two encoders differ where the interval does not hold 0."
    return [Section("Encoder against encoder", [table], text)]


def _images(run: RunFolder, suite: Suite, encoders: Encoders, verdicts: Verdicts) -> list[Section]:
    """The first test images, and what the strongest attack reconstructs."""
    if not run.config.report.pictures:
        return []
    rows = [("input", next(iter(suite.test.batches()))["images"][: run.config.report.examples])]
    for name, found in verdicts.items():
        images = (
            encoders[name].attacks[found["pixels"].attack].images if "pixels" in found else None
        )
        if images is not None:
            rows.append((label(name).name, images))
    png = figures.image_grid(rows, run.path / "reconstructions.png")
    caption = "Test images, and what the strongest attack reconstructs from what is sent."
    return [Section("What an attacker sees", [Figure("Reconstructions", png, caption)])]


def _cards(
    encoders: Encoders, verdicts: Verdicts, chance: Mapping[str, float | None]
) -> list[Card]:
    """The task and three measures of the first encoder, each between its ends."""
    subject = next(iter(verdicts))
    ends = {label(n).name: n for n in (HARD_PREDICTIONS, UNPROTECTED) if n in verdicts}
    task = [(title, _task(encoders[name].utility)) for title, name in ends.items()]
    values = [("chance", 0.0), *((title, cell.value) for title, cell in task if cell)]
    own = _task(encoders[subject].utility)
    cards = [Card(TASK_MCC, own, "", values)] if own else []
    for key in ("pixels", "guess_rank1", "linkage_rank1"):
        if key not in verdicts[subject]:
            continue
        verdict = verdicts[subject][key]
        closed = _share(verdict)
        note = f"closes {closed.value:.0%} of the gap (closure)" if closed else ""
        guess = chance.get(f"reid_{key.rpartition('_')[2]}")
        scale = [("chance", guess)] if guess is not None else []
        scale += [(t, verdicts[n][key].score.value) for t, n in ends.items() if key in verdicts[n]]
        cards.append(Card(column(key), estimate(verdict.score), note, scale))
    return cards


def _task(utility: Mapping) -> Estimate | None:
    """The Matthews correlation of the task, at tuned thresholds if there are any."""
    found = cell(task_mcc(utility), "mcc_task")
    return Estimate(found) if isinstance(found, float) else found
