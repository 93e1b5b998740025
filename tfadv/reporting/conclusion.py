"""What an attack run shows, in the sentences that a person would say."""

from collections.abc import Mapping
from typing import NamedTuple

from tfadv.attacks.references import CHANCE
from tfadv.evaluation.closure import closure
from tfadv.evaluation.leakage_measures import HARD_PREDICTIONS, UNPROTECTED, Measure
from tfadv.evaluation.results import AttackResult, EncoderResult, Score
from tfadv.reporting.attack_tables import strongest
from tfadv.reporting.tables import task_mcc

Encoders = Mapping[str, EncoderResult]

# What a reader thinks of first, with its words for the closure.
_MEASURES = {
    "re-identification": Measure("re-identification", "reid_rank1"),
    "reconstruction": Measure("reconstruction", "psnr"),
}
_BARELY, _PARTLY = 0.25, 0.75


class Conclusion(NamedTuple):
    """Three texts, in the order in which a terminal shows them; some may be empty."""

    task: str
    attacker: str
    following: str


def conclude(
    encoders: Encoders, references: Mapping[str, AttackResult], people: int, following: str
) -> Conclusion:
    """Returns what the task lost, what an attacker still gets, and what to try next.

    Args:
        encoders: results, those of the attacked encoder first.
        references: results that need no features.
        people: number of people in the test images.
        following: what to try next.
    """
    return Conclusion(_task(encoders), _attacker(encoders, references, people), following)


def _task(encoders: Encoders) -> str:
    """How well the task works, and how well it worked without protection."""
    subject = next(iter(encoders))
    value = task_mcc(encoders[subject].utility).get("mcc_task")
    if value is None:
        return ""
    task = f"The task works with a Matthews correlation (MCC) of {value:.3f}"
    before = task_mcc(encoders[UNPROTECTED].utility) if UNPROTECTED in encoders else {}
    if before and subject != UNPROTECTED:
        task += f"; without protection it is {before['mcc_task']:.3f}"
    return f"{task} (1 is perfect, 0 is chance)."


def _attacker(encoders: Encoders, references: Mapping[str, AttackResult], people: int) -> str:
    """How often an attacker finds the person, and how much of that the defence prevents."""
    subject = next(iter(encoders))
    rates = {name: _score(result, "re-identification") for name, result in encoders.items()}
    if rates[subject] is None or CHANCE not in references:
        return _defence(encoders, subject)
    compared = [f"by chance in {tries(references[CHANCE].metrics['reid_rank1'])}"]
    for name, condition in (
        (HARD_PREDICTIONS, "with hard predictions only"),
        (UNPROTECTED, "without protection"),
    ):
        if name != subject and rates.get(name) is not None:
            compared.insert(0, f"{condition} in {tries(rates[name].value)}")
    return (
        f"An attacker who holds other images of {people} people, or their features, finds the "
        f"right person for a feature in {tries(rates[subject].value)}; {', '.join(compared)}. "
        f"{_defence(encoders, subject)}"
    ).strip()


def _defence(encoders: Encoders, subject: str) -> str:
    """How much of the gap between no protection and hard predictions only is closed."""
    if subject == UNPROTECTED or not {UNPROTECTED, HARD_PREDICTIONS} <= encoders.keys():
        return ""
    closed = {}
    for name, measure in _MEASURES.items():
        scores = [_score(encoders[n], name) for n in (subject, UNPROTECTED, HARD_PREDICTIONS)]
        if None not in scores:
            found = closure(*scores, measure)
            if found.value == found.value:  # NaN where there is no gap
                closed[name] = found
    if not closed:
        return ""
    worst = min(each.value for each in closed.values())
    share = "the smaller share" if len(closed) > 1 else "the share"
    if worst < _BARELY:
        verdict = f"barely helps ({share} is below {_BARELY:.0%})"
    elif worst < _PARTLY:
        verdict = f"helps in part ({share} is below {_PARTLY:.0%})"
    else:
        verdict = f"helps ({share} is at least {_PARTLY:.0%})"
    shares = " and ".join(
        f"{each.value:.0%} ({each.interval[0]:.0%} to {each.interval[1]:.0%}) in {name}"
        for name, each in closed.items()
    )
    return (
        f"The defence {verdict}: of the gap between no protection and hard predictions only, it "
        f"closes {shares}."
    )


def _score(result: EncoderResult, measure: str) -> Score | None:
    found = strongest(result, _MEASURES[measure].metric)
    return found and found[1]


def tries(share: float) -> str:
    """Returns a share as a person says it: 3 of 4 tries (74%)."""
    if share < 0.1:
        return f"1 of {1 / share:,.0f} tries ({share:.1%})" if share else "no try"
    for of in (2, 3, 4, 5, 10, 20):
        count = round(share * of)
        if count < of and abs(count / of - share) <= share / 20:
            return f"{count} of {of} tries ({share:.0%})"
    return "every try" if share == 1 else f"{share:.1%} of all tries"
