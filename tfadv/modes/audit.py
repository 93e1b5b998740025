"""--mode=audit: the strongest attack counts, between no defence and hard predictions only."""

import dataclasses
import itertools
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from tfadv.attacks import registry
from tfadv.attacks.black_box import BlackBox, PredictionsEncoder, SavedClassifier
from tfadv.config.errors import UserError
from tfadv.config.files import write_json
from tfadv.config.run_folder import RunFolder
from tfadv.config.schema import Config, Data
from tfadv.data.dataset import PRIVATE, PUBLIC, TEST, Dataset
from tfadv.evaluation import verdicts
from tfadv.evaluation.leakage_measures import (
    HARD_PREDICTIONS,
    IDENTITIES,
    LABELS,
    LOGITS,
    RECOGNIZER,
    REFERENCES,
    UNPROTECTED,
    check_gate,
    check_measurable,
    read_baseline,
)
from tfadv.evaluation.recognition.recognizer import Recognizer
from tfadv.models import build
from tfadv.modes import loading
from tfadv.modes.scope import in_scope
from tfadv.reporting import audit as page
from tfadv.reporting import common
from tfadv.training import trainer

_FEWEST_HELD_OUT = 20  # people
_LEAST_AUC = 0.9  # of a recognizer, on real images


@in_scope
def run(run: RunFolder) -> None:
    """Audits each encoder and the reference rows, and reports.

    Raises:
        LimitExceededError: at the very end, if the audit does not pass its gate.
    """
    config = run.config
    precision = trainer.set_up(config.runtime)
    dataset = Dataset(config.data)
    if config.audit.baseline:  # a mistake shows before the attacks
        read_baseline(config.audit.baseline, dataset.description["name"])
    paths = name_encoders(config)
    encoders, classifiers = loading.load_encoders(paths, config.black_box, dataset)
    # Predictions only are those of the unprotected encoder, else of the first with a classifier.
    served = next((name for name in (UNPROTECTED, *encoders) if name in classifiers), None)
    recognizers = loading.load_recognizers(config.recognizer, config.data.dataset)
    people = count_people(dataset)
    task = classifiers[served].attributes if served else config.task.attributes
    check_measurable(config.audit.fail_above, missing(dataset, recognizers, people, task))
    other_domain = load_other_domain(config.data, config.audit.domain)
    attacks = registry.build_audit_attacks(config, partial(build.measure_scale, dataset=dataset))
    suite = loading.start(run, dataset, precision, encoders, recognizers, attacks)
    identities_are_known = all(people.values())
    counts = ", ".join(f"{count:,} {name}" for name, count in people.items())
    compared = "0 in two splits" if identities_are_known else "not compared"
    print(f"people: {counts}; {compared}", flush=True)
    held_out = len(np.unique(suite.held_out.identities[suite.held_out.identities >= 0]))
    auc = suite.test.score_real_images().metrics.get("verification_auc")
    known = "" if auc is None else f"; the recognizer knows real test images, AUC {auc:.3f}"
    print(f"attacks are chosen on {held_out:,} held-out people{known}", flush=True)
    notes = missing_rows(encoders, served) + weaknesses(held_out, auc)
    print(*notes, sep="\n", end="\n" if notes else "", flush=True)
    subjects = dict(encoders)
    if served:
        subjects |= predictions_only(encoders[served], classifiers[served])
    if note := page.duration_note(config.audit, list(subjects)):
        print(note, flush=True)
    results = {}
    for name, encoder in subjects.items():
        found = suite.run(
            name,
            encoder,
            run.path / "encoders" / name,
            classify=classifiers.get(name),
            task=task,
            repeats=config.audit.repeats,
            fewer_images=tuple(map(int, config.audit.few)),
            other_domain=other_domain,
            in_new_process=True,
        )
        bound = measured_dfil(paths[name]) if name in paths else None
        results[name] = dataclasses.replace(found, dfil=bound)
    if served:
        for name in (HARD_PREDICTIONS, LOGITS):  # predictions are as useful as their encoder
            utility = results[served].utility
            results[name] = dataclasses.replace(results[name], utility=utility)
    concluded = verdicts.conclude(results, [recognizer.name for recognizer in recognizers[1:]])
    report = verdicts.as_json(
        concluded,
        results,
        dataset=dataset.description["name"],
        identities_are_known=identities_are_known,
        limits=config.audit.fail_above,
    )
    write_json(run.path / "audit.json", report)
    table = page.write(run, dataset, suite, results, concluded, recognizers, notes)
    run.finish(verdicts.flat(concluded))
    common.print_results(run, table)
    check_gate(report, config.audit)


def name_encoders(config: Config) -> dict[str, str]:
    """Returns the encoders to audit by name, the unprotected one last, if there is one.

    The unprotected encoder is `audit.unprotected`, or the one trained beside the first encoder, or
    the first unprotected one among the encoders.

    Raises:
        UserError: there is only an unprotected encoder.
    """
    without_defence = (path for path in config.encoder if loading.trained_as(path) == UNPROTECTED)
    unprotected = (
        config.audit.unprotected
        or loading.baseline_of(config.encoder[0])
        or next(without_defence, None)
    )
    reserved = (*REFERENCES, "closure")  # metrics.json has closure/MEASURE
    if not unprotected:
        return loading.name_encoders(config.encoder, reserved)
    place = Path(unprotected).resolve()
    subjects = [path for path in config.encoder if Path(path).resolve() != place]
    if not subjects:
        raise UserError(
            f"{unprotected} is the unprotected encoder, which is one end of the scale: name an "
            f"encoder to audit, or use --mode=attack"
        )
    return loading.name_encoders(subjects, reserved) | {UNPROTECTED: unprotected}


def missing_rows(encoders: Mapping[str, BlackBox], served: str | None) -> list[str]:
    """Returns which rows of reference an audit lacks, and how to get them, in sentences.

    Args:
        encoders: those that are audited, the unprotected one among them if there is one.
        served: the encoder whose predictions are audited; None if none has a classifier.
    """
    notes = []
    if UNPROTECTED not in encoders:
        notes.append(
            "There is no unprotected encoder, so there is no closure: train one with "
            "--config.baseline, or name one with --config.audit.unprotected=PATH."
        )
    if served is None:
        notes.append(
            "No encoder has a classifier beside it, in a folder called classifier: there are no "
            "rows of hard predictions and logits, no closure, and no measure of the task."
        )
    elif served != UNPROTECTED:
        notes.append(
            f"Hard predictions and logits are those of {served}: no unprotected encoder has a "
            f"classifier beside it."
        )
    return notes


def weaknesses(held_out: int, auc: float | None) -> list[str]:
    """Returns why numbers of an audit may mean little, in sentences.

    Args:
        held_out: number of known held-out people, by whom attacks are chosen; 0 if none is known.
        auc: the recognizer's verification AUC on real test images; None without a recognizer.
    """
    notes = []
    if 0 < held_out < _FEWEST_HELD_OUT:
        notes.append(
            f"Attacks are chosen on {held_out} held-out people, and fewer than {_FEWEST_HELD_OUT} "
            f"choose by chance: a stronger attack may stand in the table of what was tried. Raise "
            f"--config.data.held_out, or add public people."
        )
    if auc is not None and auc < _LEAST_AUC:
        notes.append(
            f"The recognizer knows real test images with an AUC of {auc:.3f}, and below "
            f"{_LEAST_AUC} its measures of identity understate the leak: use a better recognizer."
        )
    return notes


def predictions_only(encoder: BlackBox, classify: SavedClassifier) -> dict[str, BlackBox]:
    """Returns what sends an encoder's predictions and no feature."""
    return {
        LOGITS: PredictionsEncoder(encoder, classify, hard=False),
        HARD_PREDICTIONS: PredictionsEncoder(encoder, classify, hard=True),
    }


def count_people(dataset: Dataset) -> dict[str, int]:
    """Returns the number of known people in each split.

    Raises:
        UserError: a person is in two splits.
    """
    splits = {name: dataset.annotations(name)[0] for name in (PRIVATE, PUBLIC, TEST)}
    known = {name: set(people[people >= 0].tolist()) for name, people in splits.items()}
    shared = sum(len(one & other) for one, other in itertools.combinations(known.values(), 2))
    if shared:
        raise UserError(
            f"{shared:,} people are in two of the splits private, public and test of "
            f"{dataset.description['name']}, which would help the attacks: prepare the dataset "
            f"with the scheme identity"
        )
    return {name: len(people) for name, people in known.items()}


def missing(
    dataset: Dataset, recognizers: list[Recognizer], people: dict[str, int], task: tuple[str, ...]
) -> list[str]:
    """Returns what the audit has not got: of RECOGNIZER, LABELS and IDENTITIES."""
    is_missing = {
        RECOGNIZER: not recognizers,
        LABELS: set(dataset.attributes) <= set(task),
        IDENTITIES: not (people[PUBLIC] and people[TEST]),
    }
    return [need for need, missing in is_missing.items() if missing]


def load_other_domain(data: Data, name: str) -> Dataset | None:
    """Returns the data set with another domain's images among its public ones, if it is named."""
    if not name:
        return None
    try:
        return Dataset(dataclasses.replace(data, extra=(*data.extra, name)))
    except UserError as error:
        raise UserError(str(error).replace("data.extra", "audit.domain")) from None


def measured_dfil(encoder: str) -> float | None:
    """Returns the Fisher information that an encoder's protect run measured, if it did."""
    try:
        return json.loads((Path(encoder).parent / "metrics.json").read_text()).get("dfil")
    except (OSError, ValueError, AttributeError):  # no metrics.json, or another program's
        return None
