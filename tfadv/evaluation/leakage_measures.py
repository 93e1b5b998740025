"""The measures of leakage of an audit, and limits on them. Nothing here imports NumPy."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tfadv.config.errors import UserError
from tfadv.config.schema import Audit

# The reference rows of every audit. The first two are the ends of the scale.
UNPROTECTED, HARD_PREDICTIONS, LOGITS = "unprotected", "hard_predictions", "logits"
REFERENCES = (UNPROTECTED, HARD_PREDICTIONS, LOGITS)

VERSION = 3  # of audit.json
Report = dict[str, Any]  # the content of audit.json

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


# How useful an encoder is, by the names of audit.json.
UTILITIES = ("mcc", "mcc_tuned", "mcc_task", "mcc_task_tuned")


@dataclasses.dataclass(frozen=True)
class Limit:
    """A leak that must not be exceeded, or a utility that must be reached.

    Attributes:
        name: of a measure in `MEASURES`, or of `UTILITIES`.
        value: the most that is allowed; the least, where less is worse.
        by_point: whether the value on test images is compared, and not the end of its interval.
    """

    name: str
    value: float
    by_point: bool = False

    @property
    def sign(self) -> int:
        """1 where a higher value is worse, else -1."""
        return MEASURES[self.name].sign if self.name in MEASURES else -1

    def compared(self, value: float, interval: Iterable[float | None] | None) -> float:
        """Returns what is compared: the end of the interval that is worse, if there is one."""
        low, high = interval or (None, None)
        end = high if self.sign > 0 else low
        return value if self.by_point or end is None else end

    def is_broken_by(self, value: float) -> bool:
        """Returns whether a value is worse than allowed."""
        return self.sign * value > self.sign * self.value


class LimitExceededError(Exception):
    """An audited encoder leaks more, or is less useful, than allowed; the audit is finished."""


def parse_limit(text: str, setting: str = "audit.fail_above") -> Limit:
    """Returns the limit that NAME:VALUE or NAME:VALUE:point gives.

    Args:
        text: the limit.
        setting: `audit.fail_above`, a limit on a measure, or `audit.fail_below`, on a utility.

    Raises:
        UserError: it is not of that form, or there is no such measure or utility.
    """
    name, _, rest = text.partition(":")
    value, _, end = rest.partition(":")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or end not in ("", "point"):
        raise UserError(f"{setting} has {text!r}; it must be NAME:VALUE or NAME:VALUE:point")
    known = MEASURES if setting == "audit.fail_above" else UTILITIES
    if name not in known:
        raise UserError(f"{setting} names {name}; it must be one of {', '.join(known)}")
    return Limit(name, number, bool(end))


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
        for need in sorted(MEASURES[limit.name].needs.intersection(missing)):
            raise UserError(f"audit.fail_above names {limit.name}, {_MISSING[need]}")


def check_gate(report: Report, settings: Audit) -> None:
    """Compares the content of audit.json with limits and with an earlier audit.

    The reference rows are not compared. With an earlier audit, a leak grew or the utility fell if
    both 95% intervals do not overlap: the audits may have other test people, so that differences
    are not paired.

    Args:
        report: the content of audit.json.
        settings: `fail_above`, `fail_below` and `baseline` of an audit.

    Raises:
        LimitExceededError: an encoder leaks more or is less useful, or its attacks had not
            converged.
        UserError: a measure was not measured, or the earlier audit is not one of this encoder on
            this data set.
    """
    limits = [parse_limit(each) for each in settings.fail_above]
    floors = [parse_limit(each, "audit.fail_below") for each in settings.fail_below]
    baseline = settings.baseline and read_baseline(settings.baseline, report["dataset"])
    failed = []
    for name, encoder in report["encoders"].items():
        if name in REFERENCES:
            continue
        for limit in limits:
            verdict = encoder["measures"].get(limit.name, {"value": None})
            failed += _broken(name, limit, verdict, "audit.fail_above", verdict.get("converged"))
        for floor in floors:
            failed += _broken(name, floor, _utility(encoder, floor.name), "audit.fail_below", True)
        if baseline:
            failed += _worse(name, encoder, baseline)
    if failed:
        raise LimitExceededError("; ".join(failed))


def read_baseline(path: str, dataset: str) -> Report:
    """Returns the content of an earlier audit.json.

    Raises:
        UserError: it is not the audit.json of an audit of this data set.
    """
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
        version, found = report["version"], report["dataset"]
        encoders = dict(report["encoders"])
    except OSError as error:
        raise UserError(f"audit.baseline: {path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError):
        raise UserError(f"audit.baseline: {path} is no audit.json") from None
    if version != VERSION or not encoders:
        raise UserError(
            f"audit.baseline: {path} is of version {version}, and this program writes version "
            f"{VERSION}: audit that encoder again"
        )
    if found != dataset:
        raise UserError(f"audit.baseline: {path} is an audit on {found}, and this one on {dataset}")
    return report


def _broken(
    name: str, limit: Limit, found: Mapping[str, Any], setting: str, converged: bool | None
) -> list[str]:
    """How an encoder breaks a limit, in one text; empty if it does not."""
    value = found["value"]
    if value is None:
        raise UserError(f"{setting} names {limit.name}, which was not measured")
    compared = limit.compared(value, found.get("interval"))
    at = "" if compared == value else f" (95% interval to {compared:.4g})"
    message = f"{name}: {limit.name} is {value:.4g}{at}, the limit is {limit.value:g}"
    if limit.is_broken_by(compared):
        return [message]
    return [] if converged else [f"{message}, but the attacks had not converged"]


def _utility(encoder: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {"value": encoder.get(name), "interval": encoder.get(f"{name}_interval")}


def _worse(name: str, encoder: Mapping[str, Any], baseline: Report) -> list[str]:
    """In what an encoder is worse than in an earlier audit, beyond both intervals."""
    earlier = baseline["encoders"].get(name)
    if earlier is None:
        known = ", ".join(each for each in baseline["encoders"] if each not in REFERENCES)
        raise UserError(f"audit.baseline has no encoder {name}; it has {known or 'none'}")
    pairs = [
        (Limit(key, 0.0), verdict, earlier["measures"][key])
        for key, verdict in encoder["measures"].items()
        if key in MEASURES and key in earlier["measures"]
    ]
    pairs += [
        (Limit(key, 0.0), _utility(encoder, key), _utility(earlier, key)) for key in UTILITIES
    ]
    failed = []
    for limit, new, old in pairs:
        if new["value"] is None or old["value"] is None:
            continue
        # The end of the new interval that is better, and the end of the old one that is worse.
        ends = [*(new.get("interval") or (new["value"],))]
        best = min(ends) if limit.sign > 0 else max(ends)
        worst = limit.compared(old["value"], old.get("interval"))
        if limit.sign * best > limit.sign * worst:
            failed.append(
                f"{name}: {limit.name} was {old['value']:.4g} in the earlier audit and is "
                f"{new['value']:.4g}"
            )
        elif not new.get("converged", True):
            failed.append(f"{name}: {limit.name} had not converged")
    return failed
