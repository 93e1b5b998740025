"""From what attackers got to what an audit says: verdicts, audit.json and metrics.json."""

import dataclasses
import math

import numpy as np

from tfadv.config.schema import Config
from tfadv.data.dataset import Dataset
from tfadv.evaluation import closure as audit
from tfadv.evaluation.closure import BUDGETS, Score
from tfadv.evaluation.leakage_measures import ENDS, MEASURES, Measure
from tfadv.evaluation.recognition.recognizer import Recognizer

UNPROTECTED, ANSWERS, _ = ENDS

Results = dict[str, dict[str, Score]]  # member -> metric -> what it got


@dataclasses.dataclass(frozen=True)
class Audited:
    """What was found out about one encoder, or one end of the scale.

    Attributes:
        results: of each attacker.
        few: number of public pictures -> the quick attackers' results with no more than those.
        queries: number of queries a picture -> their results with no more than those, of a random
            encoder.
        elsewhere: their results who learn from pictures of another domain alone.
        beyond: the results of attackers who have more than a black box.
        utility: of the encoder with its classifier, by the names of metrics.json.
        pictures: attacker -> reconstructions of the first test pictures, uint8 [N, S, S, 3].
        public: how many public pictures there are to learn from.
        is_random: whether the same picture has another feature each time.
        dfil: the Fisher information of an encoder's Gaussian noise, as protect measured it.
    """

    results: Results
    few: dict[int, Results]
    utility: dict[str, float | list[float]]
    pictures: dict[str, np.ndarray]
    public: int
    is_random: bool = False
    queries: dict[int, Results] = dataclasses.field(default_factory=dict)
    elsewhere: Results = dataclasses.field(default_factory=dict)
    beyond: Results = dataclasses.field(default_factory=dict)
    dfil: float | None = None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The largest leak of one encoder by one measure.

    Attributes:
        member: whose it is.
        score: what it got.
        closure: of the gap between the ends of the scale; None for the ends themselves.
        is_converged: whether every decoder that was tried had tried enough.
    """

    member: str
    score: Score
    closure: audit.Closure | None
    is_converged: bool


def conclude(
    audited: dict[str, Audited], recognizers: list[Recognizer]
) -> dict[str, dict[str, Verdict]]:
    """Returns encoder -> measure -> verdict; measures that nobody took are left out.

    Measures by a further recogniser are called MEASURE/NAME: the attacker that counts is the one
    that the first recogniser chose, so that nothing has seen the further one.
    """
    verdicts = {}
    for name, found in audited.items():
        verdicts[name] = {}
        for key, measure in MEASURES.items():
            scores = of_measure(found.results, measure)
            if not scores:
                continue
            member = audit.strongest(scores, measure)
            converged = is_converged(found.results, measure, most_gained(audited, measure))
            verdicts[name][key] = Verdict(member, scores[member], None, converged)
            for other in recognizers[1:]:
                seen = found.results[member].get(f"{measure.metric}/{other.name}")
                if seen is not None:
                    by_other = Verdict(member, seen, None, converged)
                    verdicts[name][f"{key}/{other.name}"] = by_other
    ends = verdicts[UNPROTECTED], verdicts[ANSWERS]
    for name in verdicts.keys() - {UNPROTECTED, ANSWERS}:
        for key, verdict in verdicts[name].items():
            scores = [verdict.score, *(end[key].score for end in ends if key in end)]
            if len(scores) == 3:
                closed = audit.closure(*scores, MEASURES[key.partition("/")[0]])
                verdicts[name][key] = dataclasses.replace(verdict, closure=closed)
    return verdicts


def of_measure(results: Results, measure: Measure) -> dict[str, Score]:
    """Returns member -> score, of those who took the measure."""
    return {
        member: scores[measure.metric]
        for member, scores in results.items()
        if measure.metric in scores and np.isfinite(scores[measure.metric].held_out)
    }


def most_gained(audited: dict[str, Audited], measure: Measure) -> float:
    """Returns what the last doubling of a decoder's budget may have gained, beside the interval.

    Of pixels, where gains are hardly chance: a tenth of the gap between the ends of the scale, or
    an interval that is wide for the lack of people would hide half of it.
    """
    if measure is not MEASURES["pixels"]:
        return math.inf
    ends = [of_measure(audited[end].results, measure) for end in (UNPROTECTED, ANSWERS)]
    if not all(ends):
        return math.inf
    values = [scores[audit.strongest(scores, measure)].held_out for scores in ends]
    return abs(values[0] - values[1]) / 10


def is_converged(results: Results, measure: Measure, most: float = math.inf) -> bool:
    """Returns whether all that train had enough: M, and each decoder with the last of its budgets.

    Who diverged hadn't.

    Args:
        results: of each attacker.
        measure: by which.
        most: as for `audit.is_converged`.
    """
    budgets: dict[str, dict[int, Score]] = {}
    taken = [scores[measure.metric] for scores in results.values() if measure.metric in scores]
    for member, scores in of_measure(results, measure).items():
        family, found, times = member.rpartition("-x")
        if found:
            budgets.setdefault(family, {})[int(times)] = scores
    if not all(score.is_finished for score in taken):
        return False
    return all(
        set(by) == set(BUDGETS)
        and audit.is_converged([by[times] for times in BUDGETS], measure, most)
        for by in budgets.values()
    )


def as_json(
    verdicts: dict[str, dict[str, Verdict]],
    audited: dict[str, Audited],
    dataset: Dataset,
    config: Config,
    *,
    people_are_known: bool,
) -> dict:
    """Returns what audit.json holds; docs/audit.schema.json describes it."""

    def number(value):
        return None if value is None or not np.isfinite(value) else float(value)

    def verdict_of(verdict):
        closed = verdict.closure
        return {
            "attacker": verdict.member,
            "value": number(verdict.score.test),
            "interval": [number(each) for each in verdict.score.interval],
            "held_out": number(verdict.score.held_out),
            "converged": verdict.is_converged,
            "closure": None if closed is None else number(closed.value),
            "closure_interval": None
            if closed is None
            else [number(each) for each in closed.interval],
        }

    return {
        "version": 1,
        "dataset": dataset.description["name"],
        "people_in_two_splits": 0 if people_are_known else None,
        "encoders": {
            name: {
                **{
                    metric: number(found.utility.get(metric))
                    for metric in ("mcc", "mcc_tuned", "mcc_task", "mcc_task_tuned")
                },
                "random": found.is_random,
                "measures": {key: verdict_of(each) for key, each in verdicts[name].items()},
                "attackers": {
                    member: {metric: number(score.test) for metric, score in scores.items()}
                    for member, scores in found.results.items()
                },
            }
            for name, found in audited.items()
        },
        "limits": list(config.audit.fail_above),
    }


def flat(verdicts: dict[str, dict[str, Verdict]]) -> dict[str, float | list[float]]:
    """Returns the first encoder's numbers by plain names, those of the others as NAME/...."""
    values = {}
    for i, (name, found) in enumerate(verdicts.items()):
        prefix = f"{name}/" if i else ""
        for key, verdict in found.items():
            values[f"{prefix}{key}"] = verdict.score.test
            values[f"{prefix}{key}_ci95"] = list(verdict.score.interval)
            if verdict.closure is not None and np.isfinite(verdict.closure.value):
                values[f"{prefix}closure/{key}"] = verdict.closure.value
                values[f"{prefix}closure/{key}_ci95"] = list(verdict.closure.interval)
    return values
