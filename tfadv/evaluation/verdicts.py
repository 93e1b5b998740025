"""From the results of attacks to the verdicts of an audit."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from tfadv.evaluation.closure import Closure, closure, is_converged
from tfadv.evaluation.leakage_measures import (
    HARD_PREDICTIONS,
    MEASURES,
    UNPROTECTED,
    UTILITIES,
    VERSION,
    Measure,
)
from tfadv.evaluation.results import AttackResult, EncoderResult, Flat, Score

Results = Mapping[str, AttackResult]  # name of an attack -> its result


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The largest leak of one encoder by one measure.

    Attributes:
        attack: the strongest attack.
        score: its score.
        closure: of the gap between the ends of the scale; None for the ends themselves.
        is_converged: whether all attacks that were trained had trained enough.
    """

    attack: str
    score: Score
    closure: Closure | None
    is_converged: bool


Verdicts = Mapping[str, Mapping[str, Verdict]]  # encoder -> measure -> verdict


def strongest(results: Results, measure: Measure) -> tuple[str, Score] | None:
    """Returns the attack that leaked most on held-out public images, with its score.

    An attack without a finite held-out score does not count; None if there is no other.
    """
    scores = {name: _finite(result, measure) for name, result in results.items()}
    return choose({name: score for name, score in scores.items() if score}, measure.sign)


def choose(scores: Mapping[str, Score], sign: int = 1) -> tuple[str, Score] | None:
    """Returns the name with the highest (or, with sign -1, lowest) held-out score; None of none."""
    if not scores:
        return None
    name = max(scores, key=lambda name: sign * scores[name].held_out)
    return name, scores[name]


def describe(result: AttackResult) -> str:
    """Returns in a few words what an attack got on test images, or why it got nothing."""
    if result.not_applicable:
        return f"does not apply: {result.not_applicable}"
    if result.diverged:
        return f"diverged: {result.diverged}"
    measured = [
        f"{measure.title} {result.scores[measure.metric].value:.4g}"
        for measure in MEASURES.values()
        if measure.metric in result.scores
    ]
    if not measured:
        return "nothing measured: no two test images show the same person"
    return ", ".join(measured) + (f"; seen as {result.view}" if result.view else "")


def conclude(
    encoders: Mapping[str, EncoderResult], other_recognizers: Sequence[str] = ()
) -> dict[str, dict[str, Verdict]]:
    """Returns encoder -> measure -> verdict; a measure that no attack measured is left out.

    Args:
        encoders: results of each encoder. Without both ends of the scale there is no closure.
        other_recognizers: names of recognizers that no attack learned from. A measure by one of
            them is called MEASURE/NAME. It shows the attack that the first recognizer chose.
    """
    verdicts: dict[str, dict[str, Verdict]] = {}
    for name, encoder in encoders.items():
        verdicts[name] = {}
        for key, measure in MEASURES.items():
            found = strongest(encoder.attacks, measure)
            if found is None:
                continue
            attack, score = found
            converged = have_converged(encoder.attacks, measure, most_gained(encoders, measure))
            verdicts[name][key] = Verdict(attack, score, None, converged)
            for other in other_recognizers:
                by_other = encoder.attacks[attack].scores.get(f"{measure.metric}/{other}")
                if by_other is not None:
                    verdicts[name][f"{key}/{other}"] = Verdict(attack, by_other, None, converged)
    ends = verdicts.get(UNPROTECTED, {}), verdicts.get(HARD_PREDICTIONS, {})
    for name in verdicts.keys() - {UNPROTECTED, HARD_PREDICTIONS}:
        for key, verdict in verdicts[name].items():
            if all(key in end for end in ends):
                scores = (verdict.score, *(end[key].score for end in ends))
                closed = closure(*scores, MEASURES[key.partition("/")[0]])
                verdicts[name][key] = dataclasses.replace(verdict, closure=closed)
    return verdicts


def most_gained(encoders: Mapping[str, EncoderResult], measure: Measure) -> float:
    """Returns the most that the last doubling of a decoder's budget may gain on held-out images.

    For pixels it is a tenth of the gap between the ends of the scale: with few people an interval
    is so wide that it would hide half of the gap. For other measures there is no such bound.
    """
    if measure is not MEASURES["pixels"] or not {UNPROTECTED, HARD_PREDICTIONS} <= encoders.keys():
        return math.inf
    ends = [strongest(encoders[end].attacks, measure) for end in (UNPROTECTED, HARD_PREDICTIONS)]
    if not all(ends):
        return math.inf
    unprotected, hard_predictions = (score.held_out for _, score in ends)
    return abs(unprotected - hard_predictions) / 10


def have_converged(results: Results, measure: Measure, most: float = math.inf) -> bool:
    """Returns whether all attacks that were trained had trained enough.

    A decoder with several budgets has if its last doubling gained little: `closure.is_converged`,
    with the same `most`. Another attack has if it ended by itself, not if it diverged.
    """
    budgets: dict[str, dict[int, Score | None]] = {}
    for result in results.values():
        if result.diverged and not result.scores:  # it is not known what it would have measured
            return False
        if measure.metric not in result.scores:
            continue
        if result.budget:
            budgets.setdefault(result.family, {})[result.budget] = _finite(result, measure)
        elif result.diverged or (result.training and not result.training.converged):
            return False
    return all(
        None not in scores.values()
        and is_converged([scores[budget] for budget in sorted(scores)], measure, most)
        for scores in budgets.values()
    )


def as_json(
    verdicts: Verdicts,
    encoders: Mapping[str, EncoderResult],
    *,
    dataset: str,
    identities_are_known: bool,
    limits: Sequence[str],
) -> dict:
    """Returns the content of audit.json; docs/audit.schema.json describes it.

    Args:
        verdicts: from `conclude`.
        encoders: the results that the verdicts were drawn from.
        dataset: name of the data set.
        identities_are_known: whether it is known that no identity is in two splits.
        limits: each MEASURE:VALUE, from `audit.fail_above`.
    """
    return {
        "version": VERSION,
        "dataset": dataset,
        "identities_in_two_splits": 0 if identities_are_known else None,
        "encoders": {
            title: {
                **{name: _number(encoder.utility.get(name)) for name in UTILITIES},
                **{f"{name}_interval": encoder.utility.get(f"{name}_ci95") for name in UTILITIES},
                "bits": _number(encoder.bits),
                "random": encoder.is_random,
                "measures": {key: _verdict(each) for key, each in verdicts[title].items()},
                "attacks": {key: _attack(each) for key, each in encoder.attacks.items()},
            }
            for title, encoder in encoders.items()
        },
        "limits": list(limits),
    }


def flat(verdicts: Verdicts) -> Flat:
    """Returns the numbers of metrics.json: plain names of the first encoder, NAME/... of others."""
    values: Flat = {}
    for i, (name, measures) in enumerate(verdicts.items()):
        prefix = f"{name}/" if i else ""
        for key, verdict in measures.items():
            values[f"{prefix}{key}"] = verdict.score.value
            values[f"{prefix}{key}_ci95"] = list(verdict.score.interval)
            if verdict.closure is not None and np.isfinite(verdict.closure.value):
                values[f"{prefix}closure/{key}"] = verdict.closure.value
                values[f"{prefix}closure/{key}_ci95"] = list(verdict.closure.interval)
    return values


def _finite(result: AttackResult, measure: Measure) -> Score | None:
    """An attack's score by a measure, if it has a finite one on held-out images."""
    score = result.scores.get(measure.metric)
    return score if score is not None and math.isfinite(score.held_out) else None


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _verdict(verdict: Verdict) -> dict:
    closed = verdict.closure
    return {
        "attack": verdict.attack,
        "value": _number(verdict.score.value),
        "interval": [_number(end) for end in verdict.score.interval],
        "held_out": _number(verdict.score.held_out),
        "converged": verdict.is_converged,
        "closure": None if closed is None else _number(closed.value),
        "closure_interval": None if closed is None else [_number(e) for e in closed.interval],
    }


def _attack(result: AttackResult) -> dict:
    if result.not_applicable:
        return {"not_applicable": result.not_applicable}
    if result.diverged:
        return {"diverged": result.diverged}
    return {metric: _number(score.value) for metric, score in result.scores.items()}
