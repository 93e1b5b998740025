"""The sections of an audit's page beside its verdicts: attackers who have less, or more."""

import math
from collections.abc import Mapping

from tfadv.attacks.registry import MEMBERS, WHITE_BOX
from tfadv.config import run_folder
from tfadv.evaluation.closure import Score, strongest
from tfadv.evaluation.leakage_measures import ENDS, MEASURES, Measure
from tfadv.evaluation.metrics.fisher import mse_bound
from tfadv.evaluation.verdicts import Results
from tfadv.reporting import figures
from tfadv.reporting.glossary import Column, describe
from tfadv.reporting.page import Estimate, Figure, Label, Section, Table

UNPROTECTED, ANSWERS, LOGITS = ENDS
NAMES = {
    UNPROTECTED: Label("unprotected", "The same encoder without defence: the upper end."),
    ANSWERS: Label(
        "answers only",
        "What is sent are f's yes and no to each attribute, and no "
        "feature: the lower end. A feature that this f answers from can't leak less.",
    ),
    LOGITS: Label("logits only", "What is sent are f's logits, and no feature."),
}


def sections(run: run_folder.RunFolder, audited: Mapping) -> list[Section]:
    """Returns the sections that there is something to say in.

    Args:
        run: the run's folder.
        audited: encoder -> what was found out.
    """
    return [
        *_few(audited),
        *_queries(run, audited),
        *_elsewhere(run, audited),
        *_information(audited),
        *_fisher(audited),
        *_beyond(run, audited),
    ]


def _few(audited: Mapping) -> list[Section]:
    counts = {name: found.few | {found.public: found.results} for name, found in audited.items()}
    return _curves(
        counts,
        "public pictures",
        "With fewer public pictures",
        "What the attackers that learn in seconds get with so many public pictures, of as few "
        "people as can be; the one that counts is chosen anew at each.",
    )


def _queries(run: run_folder.RunFolder, audited: Mapping) -> list[Section]:
    counts = {
        name: found.queries | {run.config.audit.repeats: found.results}
        for name, found in audited.items()
        if found.is_random
    }
    return _curves(
        counts,
        "queries a picture",
        "With fewer queries",
        "The encoder is random: what the attackers that learn in seconds get from the mean of so "
        "many features of each picture.",
    )


def _curves(counts: Mapping, x: str, title: str, text: str) -> list[Section]:
    """Curves of leakage, of encoder -> number -> results."""
    items = []
    for measure in MEASURES.values():
        series = {}
        for name, results in counts.items():
            points = {count: _best(results[count], measure) for count in sorted(results)}
            points = {count: score.test for count, score in points.items() if score is not None}
            if len(points) > 1:
                series[name] = list(points), list(points.values())
        if series:
            items.append(Figure(measure.title, figures.curve_figure(series, x, measure.title)))
    return [Section(title, items, text)] if items else []


def _elsewhere(run: run_folder.RunFolder, audited: Mapping) -> list[Section]:
    """What attackers get who learn from another domain alone, beside what they get otherwise."""
    found = {name: each for name, each in audited.items() if each.elsewhere}
    keys = [
        key
        for key, measure in MEASURES.items()
        if any(_best(each.elsewhere, measure) for each in found.values())
    ]
    if not keys:
        return []
    rows = []
    for name, each in found.items():
        for suffix, results in (("", each.results), (", from there", each.elsewhere)):
            best = [_best(results, MEASURES[key]) for key in keys]
            label = NAMES[name].name if name in NAMES else name
            rows.append([label + suffix, *(score and estimate(score) for score in best)])
    domain = run.config.audit.domain
    return [
        Section(
            "With pictures of another domain",
            [Table(domain, [Column("sent"), *map(column, keys)], rows)],
            f"What the attackers that learn in seconds get, and what they get if they learn from "
            f"the pictures of {domain} alone. How hard to regularise is chosen on held-out public "
            f"pictures all the same.",
        )
    ]


def _information(audited: Mapping) -> list[Section]:
    """What linkage shows that features say of who it is, in bits."""
    rows = [
        [NAMES.get(name, name), estimate(found.results["linkage"]["info_nce_bits"])]
        for name, found in audited.items()
        if "info_nce_bits" in found.results.get("linkage", ())
    ]
    if not rows:
        return []
    columns = [Column("sent"), Column("bits", describe("info_nce_bits").meaning, "lower", ".2f")]
    return [
        Section(
            "Information on identity",
            [Table("InfoNCE", columns, rows)],
            "Estimates of a lower bound on the mutual information of a feature and the person, by "
            "linkage's codes: the lower end of an interval is what has been shown. A small value "
            "proves nothing.",
        )
    ]


def _fisher(audited: Mapping) -> list[Section]:
    """What the noise of encoders promises against unbiased attackers."""
    rows = [
        [NAMES.get(name, name), found.dfil, float(mse_bound(found.dfil))]
        for name, found in audited.items()
        if found.dfil
    ]
    if not rows:
        return []
    columns = [
        Column("sent"),
        Column("dFIL", "Fisher information on a value of the picture.", "lower", ".3g"),
        Column("squared error, at least", "Of values from -1 to 1.", "higher", ".3g"),
    ]
    return [
        Section(
            "What the noise promises",
            [Table("Fisher information", columns, rows)],
            "A bound for unbiased reconstructions, by Gaussian noise, of 16 test pictures. Whoever "
            "knows what faces look like is not bound by it: it compares strengths of noise.",
        )
    ]


def _beyond(run: run_folder.RunFolder, audited: Mapping) -> list[Section]:
    """What attackers get who have more than a black box."""
    rows = [
        [NAMES.get(name, name), estimate(found.beyond["white_box"]["mse"])]
        for name, found in audited.items()
        if "white_box" in found.beyond
    ]
    if not rows:
        return []
    return [
        Section(
            "Beyond a black box",
            [Table(WHITE_BOX.title, [Column("sent"), column("pixels")], rows)],
            f"{WHITE_BOX.meaning} Of the first {run.config.attack.white_box} test pictures. Only "
            f"who has the encoder's weights can do that; it counts in no verdict.",
        )
    ]


def _best(results: Results, measure: Measure) -> Score | None:
    """What the strongest of those that learn in seconds got."""
    quick = {
        member: scores[measure.metric]
        for member, scores in results.items()
        if measure.metric in scores and member in MEMBERS and MEMBERS[member].is_quick
    }
    finite = {member: score for member, score in quick.items() if math.isfinite(score.held_out)}
    return finite[strongest(finite, measure)] if finite else None


def column(key: str) -> Column:
    """A column of a measure."""
    measure = MEASURES[key]
    direction = "lower" if measure.leaks_upwards else "higher"
    meaning = describe(measure.metric).meaning
    return Column(measure.title, meaning, direction, "z.1%" if key.endswith("rank1") else ".3f")


def estimate(score: Score) -> Estimate:
    """What a table shows of a score."""
    return Estimate(score.test, *score.interval)
