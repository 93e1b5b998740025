"""The ways in which features leak, and limits on them; nothing here imports NumPy."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from tfadv.config.errors import UserError

ENDS = ("unprotected", "answers", "logits")  # of the scale, in every audit


@dataclasses.dataclass(frozen=True)
class Measure:
    """A way in which features leak.

    Attributes:
        title: in a table.
        metric: its name in metrics.json.
        leaks_upwards: whether a higher value is a larger leak.
        needs: "recognizer", "attributes" and "people", those that it can't be taken without.
    """

    title: str
    metric: str
    leaks_upwards: bool = True
    needs: tuple[str, ...] = ()


_FACES = ("recognizer", "people")

MEASURES = {
    "pixels": Measure("pixels rebuilt (MSE)", "mse", leaks_upwards=False),
    "face_rank1": Measure("named from the rebuilt face", "reid_rank1", needs=_FACES),
    "face_auc": Measure("verified from the rebuilt face", "verification_auc", needs=_FACES),
    "guess_rank1": Measure("named by M(Z)", "feature_reid_rank1", needs=_FACES),
    "guess_auc": Measure("verified by M(Z)", "feature_verification_auc", needs=_FACES),
    "linkage_rank1": Measure("linked", "linkage_rank1", needs=("people",)),
    "linkage_auc": Measure("linked, AUC", "linkage_auc", needs=("people",)),
    "attributes": Measure("other attributes (MCC)", "probe_mcc", needs=("attributes",)),
}


@dataclasses.dataclass(frozen=True)
class Limit:
    """A leak that must not be exceeded.

    Attributes:
        measure: its name in `MEASURES`.
        value: the most that is allowed; for a measure that leaks downwards the least.
    """

    measure: str
    value: float

    def is_exceeded_by(self, value: float) -> bool:
        """Whether test pictures leak more than that."""
        if MEASURES[self.measure].leaks_upwards:
            return value > self.value
        return value < self.value


class LimitExceededError(Exception):
    """A leak is larger than `audit.fail_above` allows; the audit itself is finished."""


def parse_limit(text: str) -> Limit:
    """Returns the limit that MEASURE:VALUE names.

    Raises:
        UserError: it isn't of that form, or there is no such measure.
    """
    name, colon, value = text.partition(":")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not colon or not math.isfinite(number):
        raise UserError(f"audit.fail_above has {text!r}; it must be MEASURE:VALUE")
    if name not in MEASURES:
        raise UserError(f"audit.fail_above names {name}; it must be one of {', '.join(MEASURES)}")
    return Limit(name, number)


_LACKING = {
    "recognizer": "and there is no face recogniser: name one with --config.recognizer.path",
    "attributes": (
        "and the task has all attributes of the dataset, or data.extra adds pictures without any: "
        "there are no others to read"
    ),
    "people": "and nobody is known in the dataset's pictures: make it with identities",
}


def check_measurable(limits: Iterable[str], lacking: Iterable[str]) -> None:
    """Raises a UserError if a limit, MEASURE:VALUE, is on what can't be measured.

    Args:
        limits: each MEASURE:VALUE.
        lacking: what there is none of, as in `Measure.needs`.
    """
    for limit in map(parse_limit, limits):
        for need in MEASURES[limit.measure].needs:
            if need in lacking:
                raise UserError(f"audit.fail_above names {limit.measure}, {_LACKING[need]}")


def check_limits(report: dict[str, Any], limits: Iterable[str]) -> None:
    """Compares an audit with limits, MEASURE:VALUE each; the ends of the scale may exceed them.

    Args:
        report: what audit.json holds.
        limits: each MEASURE:VALUE.

    Raises:
        LimitExceededError: an encoder leaks more, or its attackers didn't try hard enough to tell.
        UserError: a measure wasn't taken.
    """
    exceeded = []
    for name, encoder in report["encoders"].items():
        for limit in map(parse_limit, () if name in ENDS else limits):
            found = encoder["measures"].get(limit.measure)
            if found is None or found["value"] is None:
                raise UserError(f"audit.fail_above names {limit.measure}, which wasn't measured")
            where = f"{name}: {limit.measure} is {found['value']:.4g}, the limit is {limit.value:g}"
            if limit.is_exceeded_by(found["value"]):
                exceeded.append(where)
            elif not found["converged"]:
                exceeded.append(f"{where}, but attackers had not converged")
    if exceeded:
        raise LimitExceededError("; ".join(exceeded))
