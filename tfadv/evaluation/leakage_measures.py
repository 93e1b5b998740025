"""The measures of leakage of an audit, and limits on them. Nothing here imports NumPy."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from tfadv.config.errors import UserError

# The reference rows of every audit. The first two are the ends of the scale.
UNPROTECTED, HARD_PREDICTIONS, LOGITS = "unprotected", "hard_predictions", "logits"
REFERENCES = (UNPROTECTED, HARD_PREDICTIONS, LOGITS)

# What a measure, or an attack, can need.
RECOGNIZER, IDENTITIES, LABELS = "recognizer", "identities", "labels"


@dataclasses.dataclass(frozen=True)
class Measure:
    """A way in which features leak.

    Attributes:
        title: its heading in a table.
        metric: its name among an attack's metrics.
        more_is_worse: whether a higher value is a larger leak.
        needs: what it cannot be measured without.
    """

    title: str
    metric: str
    more_is_worse: bool = True
    needs: frozenset[str] = frozenset()

    @property
    def sign(self) -> int:
        """1 where a higher value is a larger leak, else -1."""
        return 1 if self.more_is_worse else -1


_FACES = frozenset({RECOGNIZER, IDENTITIES})

MEASURES = {
    "pixels": Measure("reconstruction (MSE)", "mse", more_is_worse=False),
    "face_rank1": Measure(
        "re-identification by reconstruction, rank 1", "reid_rank1_centred", needs=_FACES
    ),
    "face_auc": Measure(
        "verification by reconstruction, AUC", "verification_auc_centred", needs=_FACES
    ),
    "guess_rank1": Measure(
        "re-identification by guessed embedding, rank 1", "feature_reid_rank1", needs=_FACES
    ),
    "guess_auc": Measure(
        "verification by guessed embedding, AUC", "feature_verification_auc", needs=_FACES
    ),
    "linkage_rank1": Measure("linkage, rank 1", "linkage_rank1", needs=frozenset({IDENTITIES})),
    "linkage_auc": Measure("linkage, AUC", "linkage_auc", needs=frozenset({IDENTITIES})),
    "attributes": Measure("attribute inference (MCC)", "attribute_mcc", needs=frozenset({LABELS})),
}


@dataclasses.dataclass(frozen=True)
class Limit:
    """A leak that must not be exceeded.

    Attributes:
        measure: its name in `MEASURES`.
        value: the most that is allowed; the least, for a measure where less is worse.
    """

    measure: str
    value: float

    def is_exceeded_by(self, value: float) -> bool:
        """Returns whether a measured value is a larger leak than allowed."""
        sign = MEASURES[self.measure].sign
        return sign * value > sign * self.value


class LimitExceededError(Exception):
    """A leak is larger than `audit.fail_above` allows; the audit itself is finished."""


def parse_limit(text: str) -> Limit:
    """Returns the limit that MEASURE:VALUE names.

    Raises:
        UserError: it is not of that form, or there is no such measure.
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


_MISSING = {
    RECOGNIZER: "but there is no face recognizer: name one with --config.recognizer.path",
    LABELS: "but the task has all attributes of the dataset: no other attribute can be inferred",
    IDENTITIES: "but no identity is known in the dataset: prepare it with identities",
}


def check_measurable(limits: Iterable[str], missing: Iterable[str]) -> None:
    """Raises a UserError if a limit, MEASURE:VALUE, is on a measure that cannot be measured.

    `missing` is what the audit has not got, of RECOGNIZER, LABELS and IDENTITIES.
    """
    for limit in map(parse_limit, limits):
        for need in sorted(MEASURES[limit.measure].needs.intersection(missing)):
            raise UserError(f"audit.fail_above names {limit.measure}, {_MISSING[need]}")


def check_limits(report: dict[str, Any], limits: Iterable[str]) -> None:
    """Compares the content of audit.json with limits, each MEASURE:VALUE.

    The reference rows may exceed the limits.

    Raises:
        LimitExceededError: an encoder leaks more, or its attacks had not converged.
        UserError: a measure was not measured.
    """
    exceeded = []
    for name, encoder in report["encoders"].items():
        for limit in map(parse_limit, () if name in REFERENCES else limits):
            verdict = encoder["measures"].get(limit.measure)
            if verdict is None or verdict["value"] is None:
                raise UserError(f"audit.fail_above names {limit.measure}, which was not measured")
            value = verdict["value"]
            message = f"{name}: {limit.measure} is {value:.4g}, the limit is {limit.value:g}"
            if limit.is_exceeded_by(value):
                exceeded.append(message)
            elif not verdict["converged"]:
                exceeded.append(f"{message}, but the attacks had not converged")
    if exceeded:
        raise LimitExceededError("; ".join(exceeded))
