"""The page of an audit: what an attacker learns, how that compares, what was tried and what not."""

import math
from collections.abc import Mapping, Sequence

from tfadv.attacks.decoder import decoders
from tfadv.attacks.registry import MEMBERS
from tfadv.attacks.scoring import EvaluationSet
from tfadv.config import run_folder
from tfadv.data.dataset import Dataset
from tfadv.evaluation.closure import difference
from tfadv.evaluation.leakage_measures import ENDS, MEASURES
from tfadv.evaluation.metrics import identity
from tfadv.evaluation.recognition.recognizer import Recognizer
from tfadv.reporting import audit_sections, figures, page, protect
from tfadv.reporting.attack_tables import LABELS
from tfadv.reporting.audit_sections import NAMES, column, estimate
from tfadv.reporting.glossary import Column
from tfadv.reporting.page import Card, Estimate, Figure, Label, Section, Table

UNPROTECTED, ANSWERS, LOGITS = ENDS
_HOW = (
    "Of all attackers the one that leaked most of held-out public pictures counts, and is shown "
    "with what it got on test pictures, {}. Intervals are 95%, from {:,} bootstrap samples of the "
    "test people. Closure is the share of the gap between the unprotected encoder and the answers "
    "alone that is closed: 0% is no defence, 100% as private as sending the answers; it is left "
    "out where that gap can't be told from none."
)
_CLOSURE = (
    "How much of the gap between the unprotected encoder and the answers alone is closed. "
    "Higher is more private."
)
_NOT = (
    "What this can't show: that a cleverer attacker, with other data or more of it, learns no "
    "more. It says nothing of whether somebody is in the training data, nor of attackers who have "
    "the encoder's weights. Numbers hold for people and pictures like the test ones."
)


def write(
    run: run_folder.RunFolder,
    dataset: Dataset,
    audited: Mapping,
    verdicts: Mapping,
    recognizers: Sequence[Recognizer],
    test: EvaluationSet,
) -> Table:
    """Writes report.html; returns a table for the terminal.

    Args:
        run: the run's folder.
        dataset: what was attacked.
        audited: encoder -> what was found out.
        verdicts: encoder -> measure -> the largest leak.
        recognizers: C; attackers learned from the first.
        test: the test pictures.
    """
    table = leaks(audited, verdicts, identity.chance(test.identities))
    subject = next(iter(verdicts))
    sections = [
        *_pictures(run, audited, verdicts, test),
        Section(
            "How much leaks",
            [table, closures(verdicts)],
            _HOW.format(protect.strangers(dataset), run.config.metrics.replicates),
        ),
        Section("Who learned most", [strongest(run, verdicts)], _effort(run, verdicts)),
        *_differences(verdicts),
        *_by_recognizer(verdicts, recognizers),
        *audit_sections.sections(run, audited),
        Section(
            "What was tried",
            [tried(run, audited)],
            _NOT if recognizers else f"{protect.NO_RECOGNIZER} {_NOT}",
        ),
    ]
    page.write_page(
        run.path / "report.html",
        f"Audit of the {subject} encoder",
        lead(verdicts[subject], verdicts[UNPROTECTED], verdicts[ANSWERS]),
        sections,
        run_folder.summary(run.mode, run.config, dataset.description),
        _cards(verdicts[subject]),
    )
    return table


def lead(subject: Mapping, unprotected: Mapping, answers: Mapping) -> str:
    """Says in plain words what an attacker learns."""
    said = []
    if all("linkage_rank1" in found for found in (subject, unprotected, answers)):
        ends = [found["linkage_rank1"].score.test for found in (subject, unprotected, answers)]
        said.append(
            "Of the features of two pictures an attacker tells that they show the same person, "
            "first among all others, for {:.1%} of the test pictures; without defence for {:.1%}, "
            "from the answers alone for {:.1%}.".format(*ends)
        )
    if all("pixels" in found for found in (subject, unprotected, answers)):
        ends = [found["pixels"].score.test for found in (subject, unprotected, answers)]
        said.append(
            "The picture is rebuilt with a mean squared error of {:.3f} (of values from -1 to 1); "
            "without defence {:.3f}, from the answers alone {:.3f}.".format(*ends)
        )
    if not all(verdict.is_converged for verdict in subject.values()):
        said.append("Some attackers were still learning: more steps would find more.")
    return " ".join(said)


def leaks(audited: Mapping, verdicts: Mapping, chance: Mapping) -> Table:
    """A row for each encoder, a column for each measure: the strongest attacker's; and chance."""
    keys = [key for key in MEASURES if any(key in found for found in verdicts.values())]
    columns = [
        Column("sent"),
        Column(
            "MCC",
            "Matthews correlation, mean over the task's attributes, at thresholds tuned on "
            "held-out private pictures where they were. 1 is perfect, 0 is chance.",
            "higher",
        ),
    ]
    columns += [column(key) for key in keys]
    rows = []
    for name, found in verdicts.items():
        cells = [estimate(found[key].score) if key in found else None for key in keys]
        utility = audited[name].utility
        metric = "mcc_task_tuned" if "mcc_task_tuned" in utility else "mcc_task"
        mcc = Estimate(utility[metric], *utility[f"{metric}_ci95"]) if utility else None
        rows.append([NAMES.get(name, name), mcc, *cells])
    guessed = {
        "rank1": chance.get("reid_rank1"),
        "auc": chance.get("verification_auc"),
        "attributes": 0.0,
    }
    kinds = [key.rpartition("_")[2] for key in keys]
    rows.append([LABELS["chance"], 0.0, *(guessed.get(kind) for kind in kinds)])
    return Table("The largest leak", columns, rows)


def closures(verdicts: Mapping) -> Table:
    """A row for each encoder but the ends, a column for each measure: closure."""
    keys = [key for key in MEASURES if any(key in found for found in verdicts.values())]
    rows = []
    for name, found in verdicts.items():
        closed = [found[key].closure if key in found else None for key in keys]
        if any(closed):
            cells = [
                Estimate(each.value, *each.interval)
                if each is not None and math.isfinite(each.value)
                else None
                for each in closed
            ]
            rows.append([NAMES.get(name, name), *cells])
    columns = [Column(MEASURES[key].title, _CLOSURE, "higher", ".0%") for key in keys]
    return Table("Closure", [Column("sent"), *columns], rows)


def strongest(run: run_folder.RunFolder, verdicts: Mapping) -> Table:
    """Who the largest leak of each measure is from."""
    members = MEMBERS | decoders(run.config)

    def named(verdict):
        if verdict is None:
            return None
        mark = "" if verdict.is_converged else " (not converged)"
        return members[verdict.member].title + mark

    keys = [key for key in MEASURES if any(key in found for found in verdicts.values())]
    rows = [
        [NAMES.get(name, name), *(named(found.get(key)) for key in keys)]
        for name, found in verdicts.items()
    ]
    columns = [Column("sent"), *(Column(MEASURES[key].title) for key in keys)]
    return Table("The strongest attacker", columns, rows)


def tried(run: run_folder.RunFolder, audited: Mapping) -> Table:
    """All attackers, and what each got by its own measure of the first encoder."""
    subject = next(iter(audited.values()))
    rows = []
    for key, member in (MEMBERS | decoders(run.config)).items():
        found = subject.results.get(key)
        shown = None
        if found:
            shown = ", ".join(
                f"{measure.title} {found[measure.metric].test:.4g}"
                for measure in MEASURES.values()
                if measure.metric in found and math.isfinite(found[measure.metric].test)
            )
        missing = "diverged" if found and member.metrics else "couldn't be tried"
        rows.append([Label(member.title, member.meaning), shown or missing])
    return Table("Attackers", [Column("attacker"), Column("on test pictures")], rows)


def _effort(run: run_folder.RunFolder, verdicts: Mapping) -> str:
    open_ends = []
    for name, found in verdicts.items():
        keys = [key for key in MEASURES if key in found and not found[key].is_converged]
        if keys:
            titles = ", ".join(MEASURES[key].title for key in keys)
            open_ends.append(f"{name} ({titles})")
    if not open_ends:
        if not decoders(run.config):
            return "No decoder was trained (audit.decoders)."
        return (
            "Each trained decoder was given three budgets, each twice the one before; the last "
            "doubling gained less than half of the interval's width, and of pixels less than a "
            "tenth of the gap between the ends."
        )
    return (
        f"NOT CONVERGED: {'; '.join(open_ends)}. The last doubling of a decoder's budget still "
        f"gained more than half of the interval's width (of pixels, more than a tenth of the gap "
        f"between the ends), or diverged, or M(Z) was still improving at its last step: these "
        f"numbers are lower bounds and no verdict. Give them more with "
        f"--config.audit.steps and --config.feature_map.steps."
    )


def _by_recognizer(verdicts: Mapping, recognizers: Sequence[Recognizer]) -> list[Section]:
    tables = []
    for other in recognizers[1:]:
        suffix = f"/{other.name}"
        keys = [key for key in MEASURES if any(key + suffix in v for v in verdicts.values())]
        rows = [
            [
                NAMES.get(name, name),
                *(estimate(v[key + suffix].score) if key + suffix in v else None for key in keys),
            ]
            for name, v in verdicts.items()
        ]
        tables.append(Table(other.name, [Column("sent"), *map(column, keys)], rows))
    if not tables:
        return []
    return [
        Section(
            "As other recognisers see it",
            tables,
            "No attacker learned from these, and none was chosen by them.",
        )
    ]


def _differences(verdicts: Mapping) -> list[Section]:
    """How the first encoder compares with the others, on the same people."""
    first, *others = [name for name in verdicts if name not in ENDS]
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
        rows.append([f"{first} less {name}", *cells])
    if not rows:
        return []
    table = Table("Differences", [Column("encoders"), *map(column, keys)], rows)
    text = "On the same resampled people; an interval without 0 tells two encoders apart."
    return [Section("Encoder against encoder", [table], text)]


def _pictures(run, audited, verdicts, test) -> list[Section]:
    """What the strongest decoder made of the first test pictures."""
    if not run.config.report.pictures:
        return []
    rows = [("input", next(iter(test.batches()))["images"][: run.config.report.examples])]
    for name, found in verdicts.items():
        if "pixels" in found:
            label = NAMES[name].name if name in NAMES else name
            rows.append((label, audited[name].pictures[found["pixels"].member]))
    png = figures.picture_grid(rows, run.path / "reconstructions.png")
    caption = "Test pictures, and what the strongest decoder made of what is sent."
    return [Section("What an attacker sees", [Figure("Reconstructions", png, caption)])]


def _cards(subject: Mapping) -> list[Card]:
    cards = []
    for key in ("pixels", "guess_rank1", "linkage_rank1"):
        if key in subject:
            closed = subject[key].closure
            beside = ""
            if closed is not None and math.isfinite(closed.value):
                beside = f"closure {closed.value:.0%}"
            cards.append(Card(column(key), subject[key].score.test, beside))
    return cards
