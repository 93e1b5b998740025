"""--mode=audit: every attacker on every encoder, the strongest counts, and what is left of it.

Beside the encoders stand the two ends of the scale: the encoder without defence, and f's answers.
"""

import dataclasses
from pathlib import Path

import numpy as np

from tfadv.attacks.black_box import SavedClassifier, SavedEncoder, load_classifier
from tfadv.attacks.pairs import BlackBox
from tfadv.attacks.suite import Auditor
from tfadv.config.errors import UserError
from tfadv.config.files import write_json
from tfadv.config.run_folder import RunFolder
from tfadv.config.schema import Config
from tfadv.data.dataset import PUBLIC, TEST, Dataset
from tfadv.evaluation.leakage_measures import ENDS, check_limits, check_measurable
from tfadv.evaluation.verdicts import as_json, conclude, flat
from tfadv.models import build
from tfadv.modes import attack
from tfadv.modes.scope import in_scope
from tfadv.reporting import audit, protect
from tfadv.training import trainer

UNPROTECTED, ANSWERS, LOGITS = ENDS


@in_scope
def run(workdir: RunFolder) -> None:
    """Audits each encoder and both ends of the scale, and reports.

    Raises:
        LimitExceededError: after all else, if a leak is larger than allowed.
    """
    config = workdir.config
    precision = trainer.set_up(config.runtime)
    dataset = Dataset(config.data)
    paths = name_encoders(config)
    boxes, classifiers = load(paths, config, dataset)
    recognizers = attack.load_recognizers(config, dataset)
    others = set(dataset.attributes) - set(classifiers[UNPROTECTED].attributes)
    people = count_people(dataset)
    lacking = {
        "recognizer": not recognizers,
        "attributes": not others or config.data.extra,
        "people": not (people[PUBLIC] and people[TEST]),
    }
    check_measurable(config.audit.fail_above, [name for name in lacking if lacking[name]])
    if recognizers:
        for name, box in boxes.items():
            attack.check_feature_map(config, name, box.feature_shape)
    g = build.load_g(config, workdir.mode)
    workdir.begin(
        dataset=dataset.description,
        precision=precision,
        encoders=paths,
        recognizers={recognizer.name: recognizer.description for recognizer in recognizers},
    )
    protect.print_start(dataset, precision)
    if not recognizers:
        print(protect.NO_RECOGNIZER, flush=True)
    counts = ", ".join(f"{count:,} {name}" for name, count in people.items())
    known = all(people.values())
    print(f"people: {counts}; {'0 in two splits' if known else 'not compared'}", flush=True)
    auditor = Auditor(workdir, dataset, recognizers, g, classifiers[UNPROTECTED].attributes)
    audited = {name: auditor(name, box, classifiers.get(name)) for name, box in boxes.items()}
    for end in (ANSWERS, LOGITS):  # f's answers are as good as they are
        audited[end] = dataclasses.replace(audited[end], utility=audited[UNPROTECTED].utility)
    verdicts = conclude(audited, recognizers)
    report = as_json(verdicts, audited, dataset, config, people_are_known=known)
    write_json(workdir.path / "audit.json", report)
    table = audit.write(workdir, dataset, audited, verdicts, recognizers, auditor.test)
    workdir.finish(flat(verdicts))
    protect.print_result(workdir, table)
    check_limits(report, config.audit.fail_above)


def name_encoders(config: Config) -> dict[str, str]:
    """Names the encoders to audit, and the one without defence, which ends the scale.

    That is `audit.unprotected`, or the one trained beside the first encoder, or the first without
    defence among them.

    Raises:
        UserError: there is none, or no other encoder.
    """
    plain = config.audit.unprotected or attack.beside(config.encoder[0])
    if not plain:
        titles = {path: attack.trained_as(Path(path)) for path in config.encoder}
        plain = next((path for path in titles if titles[path] == UNPROTECTED), None)
    if not plain:
        raise UserError(
            "an audit needs the same encoder without defence, to compare: train with "
            "--config.baseline, or name one with --config.audit.unprotected=PATH"
        )
    subjects = [path for path in config.encoder if Path(path).resolve() != Path(plain).resolve()]
    if not subjects:
        raise UserError(
            f"{plain} is the encoder without defence, which ends the scale: name one to audit, or "
            f"attack it with --mode=attack"
        )
    return attack.name_each(subjects, taken=ENDS) | {UNPROTECTED: plain}


def load(
    paths: dict[str, str], config: Config, dataset: Dataset
) -> tuple[dict[str, BlackBox], dict[str, SavedClassifier]]:
    """Returns the encoders and the two ends as black boxes, and the classifiers beside encoders.

    Raises:
        UserError: there is no classifier beside the encoder without defence.
    """
    boxes = {
        name: SavedEncoder(path, config.black_box, dataset.size) for name, path in paths.items()
    }
    found = {name: load_classifier(path) for name, path in paths.items()}
    classifiers = {name: each for name, each in found.items() if each is not None}
    classify = classifiers.get(UNPROTECTED)
    if classify is None:
        raise UserError(
            f"an audit needs the answers of the encoder without defence: there is no classifier "
            f"beside {paths[UNPROTECTED]}"
        )
    plain = boxes[UNPROTECTED]
    boxes[LOGITS] = Answering(plain, classify, hard=False)
    boxes[ANSWERS] = Answering(plain, classify, hard=True)
    return boxes, classifiers


class Answering:
    """What an attacker sees who is sent f's answers and no feature: uint8 [N, S, S, 3] to [N, A].

    Args:
        encoder: Enc.
        classify: f.
        hard: whether they are 1 and -1, at f's tuned thresholds if it has some, or logits.
    """

    def __init__(self, encoder: SavedEncoder, classify: SavedClassifier, *, hard: bool):
        self._encoder, self._classify, self._hard = encoder, classify, hard
        self.feature_shape = (len(classify.attributes),)
        self.split = None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns the answers to pictures, float32."""
        logits = self._classify(self._encoder(images))
        if not self._hard:
            return logits
        tuned = self._classify.thresholds
        return np.where(logits > (0.0 if tuned is None else tuned), 1, -1).astype(np.float32)


def count_people(dataset: Dataset) -> dict[str, int]:
    """Returns split -> how many people are known in it; those of data_prep share nobody.

    Raises:
        UserError: somebody is in two of them.
    """
    splits = {name: dataset.annotations(name)[0] for name in ("private", PUBLIC, TEST)}
    known = {name: set(people[people >= 0].tolist()) for name, people in splits.items()}
    names = list(known)
    shared = sum(
        len(known[one] & known[other]) for i, one in enumerate(names) for other in names[i + 1 :]
    )
    if shared:
        raise UserError(
            f"{shared:,} people are in two of the splits private, public and test of "
            f"{dataset.description['name']}: an audit would flatter its attackers; make the "
            f"dataset with the scheme identity"
        )
    return {name: len(people) for name, people in known.items()}
