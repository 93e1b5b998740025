"""Sections of an audit's page: attackers with less knowledge or with more, and bounds."""

import math
from collections.abc import Mapping

from tfadv.attacks.attack import Attack
from tfadv.attacks.registry import GRADIENT_SEARCH, LINKAGE
from tfadv.evaluation.leakage_measures import HARD_PREDICTIONS, LOGITS, MEASURES, UNPROTECTED
from tfadv.evaluation.metrics.fisher import mse_bound
from tfadv.evaluation.results import EncoderResult, Score
from tfadv.evaluation.verdicts import Results, strongest
from tfadv.reporting import figures
from tfadv.reporting.glossary import Column, describe
from tfadv.reporting.page import Figure, Label, Section, Table
from tfadv.reporting.tables import estimate

Encoders = Mapping[str, EncoderResult]
Attacks = Mapping[str, Attack]

_LABELS = {
    UNPROTECTED: Label("unprotected", "The same encoder without defence: the upper end."),
    HARD_PREDICTIONS: Label(
        "hard predictions only",
        "The service sends yes or no for each attribute and no feature: the lower end. A feature "
        "from which this classifier predicts cannot leak less.",
    ),
    LOGITS: Label("logits only", "The service sends the classifier's logits and no feature."),
}


def sections(
    encoders: Encoders, attacks: Attacks, *, repeats: int, domain: str, searched: int
) -> list[Section]:
    """Returns the sections that have content.

    Args:
        encoders: results of each encoder and reference.
        attacks: name -> attack.
        repeats: number of queries per image of a random encoder.
        domain: name of the data set of another domain; empty if there is none.
        searched: number of test images that the search by gradients was for.
    """
    fewer_images = {
        name: dict(each.fewer_images) | {each.public_images: each.attacks}
        for name, each in encoders.items()
    }
    fewer_queries = {
        name: dict(each.fewer_queries) | {repeats: each.attacks}
        for name, each in encoders.items()
        if each.is_random
    }
    return [
        *_curves(
            fewer_images,
            attacks,
            "public images",
            "With fewer public images",
            "The quick attacks with so many public images, which show as few people as possible. "
            "The strongest attack is chosen anew for each number.",
        ),
        *_curves(
            fewer_queries,
            attacks,
            "queries per image",
            "With fewer queries",
            "The encoder is random. The quick attacks use the mean of so many features per image.",
        ),
        *_other_domain(encoders, attacks, domain),
        *_information(encoders),
        *_fisher(encoders),
        *_gradient_search(encoders, attacks, searched),
    ]


def label(name: str) -> Label:
    """Returns the label of a row: a reference's with its meaning, else the encoder's name."""
    return _LABELS.get(name, Label(name))


def column(key: str) -> Column:
    """Returns the column of a measure."""
    measure = MEASURES[key]
    direction = "lower" if measure.more_is_worse else "higher"
    meaning = describe(measure.metric).meaning
    return Column(measure.title, meaning, direction, "z.1%" if key.endswith("rank1") else ".3f")


def _curves(
    results: Mapping[str, Mapping[int, Results]], attacks: Attacks, x: str, title: str, text: str
) -> list[Section]:
    """Curves of the largest leak; `results` is encoder -> number -> results."""
    items = []
    for measure in MEASURES.values():
        series = {}
        for name, by_number in results.items():
            points = {
                number: _quick_best(by_number[number], attacks, measure)
                for number in sorted(by_number)
            }
            points = {number: score.value for number, score in points.items() if score is not None}
            if len(points) > 1:
                series[name] = list(points), list(points.values())
        if series:
            items.append(Figure(measure.title, figures.curve_figure(series, x, measure.title)))
    return [Section(title, items, text)] if items else []


def _other_domain(encoders: Encoders, attacks: Attacks, domain: str) -> list[Section]:
    """What quick attacks get that learn from another domain only, and what they get otherwise."""
    found = {name: each for name, each in encoders.items() if each.other_domain}
    keys = [
        key
        for key, measure in MEASURES.items()
        if any(_quick_best(each.other_domain, attacks, measure) for each in found.values())
    ]
    if not keys:
        return []
    rows = []
    for name, each in found.items():
        for suffix, results in (("", each.attacks), (f", from {domain}", each.other_domain)):
            best = [_quick_best(results, attacks, MEASURES[key]) for key in keys]
            rows.append([label(name).name + suffix, *(score and estimate(score) for score in best)])
    table = Table(domain, [Column("encoder"), *map(column, keys)], rows)
    text = (
        f"The quick attacks, and the same attacks when they learn from the images of {domain} "
        f"only. Their settings are chosen on held-out public images in both cases."
    )
    return [Section("With images of another domain", [table], text)]


def _information(encoders: Encoders) -> list[Section]:
    """What linkage shows about the information on identity, in bits."""
    rows = [
        [label(name), estimate(each.attacks[LINKAGE].scores["info_nce_bits"])]
        for name, each in encoders.items()
        if LINKAGE in each.attacks and "info_nce_bits" in each.attacks[LINKAGE].scores
    ]
    if not rows:
        return []
    columns = [Column("encoder"), Column("bits", describe("info_nce_bits").meaning, "lower", ".2f")]
    text = (
        "How many bits of information on the identity a feature holds at least, by the linkage "
        "attack (InfoNCE, a lower bound on the mutual information). Rely on the lower end of the "
        "interval. A small value proves nothing."
    )
    return [Section("Information on identity", [Table("Lower bound", columns, rows)], text)]


def _fisher(encoders: Encoders) -> list[Section]:
    """What Gaussian noise promises against unbiased attackers."""
    rows = [
        [label(name), each.dfil, float(mse_bound(each.dfil))]
        for name, each in encoders.items()
        if each.dfil
    ]
    if not rows:
        return []
    columns = [
        Column("encoder"),
        Column("dFIL", "Fisher information on a value of the image.", "lower", ".3g"),
        Column("squared error, at least", "Of pixels from -1 to 1.", "higher", ".3g"),
    ]
    text = (
        "A bound for unbiased reconstructions, by Gaussian noise, on 16 test images. An attacker "
        "who knows what faces look like is not bound by it. Use it to compare strengths of noise."
    )
    return [Section("What the noise promises", [Table("Fisher information", columns, rows)], text)]


def _gradient_search(encoders: Encoders, attacks: Attacks, searched: int) -> list[Section]:
    """What an attacker gets who has the encoder's weights."""
    rows = [
        [label(name), estimate(each.attacks[GRADIENT_SEARCH].scores["mse"])]
        for name, each in encoders.items()
        if GRADIENT_SEARCH in each.attacks and each.attacks[GRADIENT_SEARCH].scores
    ]
    if not rows:
        return []
    attack = attacks[GRADIENT_SEARCH]
    table = Table(attack.title, [Column("encoder"), column("pixels")], rows)
    text = f"{attack.meaning} Here: the first {searched}. It counts in no verdict."
    return [Section("Beyond a black box", [table], text)]


def _quick_best(results: Results, attacks: Attacks, measure) -> Score | None:
    """The score of the strongest quick attack."""
    quick = {name: each for name, each in results.items() if attacks[name].is_quick}
    best = strongest(quick, measure)
    return best[1] if best and math.isfinite(best[1].value) else None
