"""--mode=audit: every attacker on every encoder, the strongest counts, and what is left of it.

Beside the encoders stand the two ends of the scale: the encoder without defence, and f's answers.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfadv import training
from tfadv.audit import Score
from tfadv.config import Config, UserError
from tfadv.data import HELD_OUT, PUBLIC, TEST, TRAIN, WHOLE, Dataset
from tfadv.distribution import in_scope
from tfadv.embedding_cache import embed_split
from tfadv.encoders import SavedClassifier, SavedEncoder, load_classifier
from tfadv.measures import ENDS, MEASURES, check_limits, check_measurable
from tfadv.modes import attack, audit_page, models, pages
from tfadv.modes.leakage import EvaluationSet, Finding
from tfadv.modes.members import (
    MEMBERS,
    WHITE_BOX,
    Member,
    Target,
    decoders,
    with_less,
    with_places,
)
from tfadv.modes.verdicts import Audited, Results, as_json, conclude, flat
from tfadv.pairs import BlackBox, Pairs
from tfadv.perceptual import VGGFeatures
from tfadv.recognition import Recognizer
from tfadv.workdir import Workdir, write_json

UNPROTECTED, ANSWERS, LOGITS = ENDS


@in_scope
def run(workdir: Workdir) -> None:
    """Audits each encoder and both ends of the scale, and reports.

    Raises:
        LimitExceededError: After all else, if a leak is larger than allowed.
    """
    config = workdir.config
    precision = training.set_up(config.runtime)
    dataset = Dataset(config.data)
    paths = attack.named_encoders(config.encoder)
    if config.audit.unprotected:
        paths[UNPROTECTED] = config.audit.unprotected
    boxes, classifiers = load(paths, config, dataset)
    recognizers = attack.load_recognizers(config, dataset)
    others = set(dataset.attributes) - set(classifiers[UNPROTECTED].attributes)
    lacking = {"recognizer": not recognizers, "attributes": not others}
    check_measurable(config.audit.fail_above, [name for name in lacking if lacking[name]])
    g = models.load_g(config, workdir.mode)
    workdir.begin(
        dataset=dataset.description,
        precision=precision,
        encoders=paths,
        recognizers={recognizer.name: recognizer.description for recognizer in recognizers},
    )
    pages.print_start(dataset, precision)
    print(overlap(dataset), flush=True)
    auditor = Auditor(workdir, dataset, recognizers, g, classifiers[UNPROTECTED].attributes)
    audited = {name: auditor(name, box, classifiers.get(name)) for name, box in boxes.items()}
    verdicts = conclude(audited, recognizers)
    report = as_json(verdicts, audited, dataset, config)
    write_json(workdir.path / "audit.json", report)
    table = audit_page.write(workdir, dataset, audited, verdicts, recognizers, auditor.test)
    workdir.finish(flat(verdicts))
    pages.print_result(workdir, table)
    check_limits(report, config.audit.fail_above)


def load(
    paths: dict[str, str], config: Config, dataset: Dataset
) -> tuple[dict[str, BlackBox], dict[str, SavedClassifier]]:
    """Returns the encoders and the two ends as black boxes, and the classifiers beside encoders.

    Raises:
        UserError: There is no encoder without defence, or no classifier beside it.
    """
    if UNPROTECTED not in paths:
        raise UserError(
            "an audit needs the same encoder without defence, to compare: train with "
            "--config.baseline, or name one with --config.audit.unprotected=PATH"
        )
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
        hard: Whether they are 1 and -1, at f's tuned thresholds if it has some, or logits.
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


class Averaged:
    """A random encoder asked again and again: noise that is drawn anew averages away."""

    def __init__(self, encoder: BlackBox, repeats: int):
        self._encoder, self._repeats = encoder, repeats
        self.feature_shape, self.split = encoder.feature_shape, encoder.split

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns the mean of several answers."""
        total = self._encoder(images)
        for _ in range(self._repeats - 1):
            total = total + self._encoder(images)
        return total / self._repeats


class Auditor:
    """All attackers on one encoder after the other; what is done is kept and not done again.

    Args:
        workdir: of the run.
        dataset: public pictures to learn from and to choose by, test pictures to report.
        recognizers: C; attackers learn from the first.
        g: for the perceptual distance of decoders, or None.
        task: the attributes that the encoders are for.
    """

    def __init__(
        self,
        workdir: Workdir,
        dataset: Dataset,
        recognizers: list[Recognizer],
        g: VGGFeatures | None,
        task: Sequence[str],
    ):
        self._workdir, self._dataset, self._g = workdir, dataset, g
        self._config = workdir.config
        cache = models.cache_folder(workdir)
        self._public, self.test = (
            EvaluationSet(dataset, recognizers, self._config, cache, split, part)
            for split, part in ((PUBLIC, HELD_OUT), (TEST, WHOLE))
        )
        self._hidden = [i for i, name in enumerate(dataset.attributes) if name not in task]
        self._known = self._facts(dataset, recognizers, cache)
        self._faces = recognizers[0].differentiable() if recognizers else None
        self._domain = None
        if domain := self._config.audit.domain:
            extra = (*self._config.data.extra, domain)
            both = Dataset(dataclasses.replace(self._config.data, extra=extra))
            self._domain = both, self._facts(both, recognizers, cache)

    def _facts(self, dataset: Dataset, recognizers: list[Recognizer], cache: Path) -> dict:
        """What attackers know of public pictures, to learn from and held out."""
        parts = TRAIN, HELD_OUT
        people, labels = zip(*(dataset.annotations(PUBLIC, part) for part in parts), strict=True)
        facts = {"identities": people, "embeddings": None, "labels": None}
        if recognizers:
            facts["embeddings"] = tuple(
                embed_split(recognizers[0], dataset, PUBLIC, part, cache).embedding
                for part in parts
            )
        if self._hidden and not dataset.extra:  # whose labels aren't known
            facts["labels"] = tuple(each[:, self._hidden] for each in labels)
        return facts

    def __call__(self, name: str, box: BlackBox, classify: SavedClassifier | None) -> Audited:
        """Returns what was found out about an encoder."""
        some = next(iter(self.test.batches()))["images"][:8]
        one, other = box(some), box(some)
        # Some devices don't round alike twice.
        is_random = not np.allclose(one, other, rtol=1e-3, atol=1e-3 * np.abs(one).max())
        folder = self._workdir.path / "encoders" / name
        queries = {}
        if is_random:
            for count in (1, 4):
                if count < self._config.audit.repeats:
                    target, tested = self._aim(name, Averaged(box, count), folder)
                    queries[count] = self._quick(target, folder / f"queries-{count}", tested)
            box = Averaged(box, self._config.audit.repeats)
        target, tested = self._aim(name, box, folder)
        results, pictures = {}, {}
        for key, member in (MEMBERS | decoders(self._config)).items():
            found = self._try(target, key, member, folder / key, tested)
            if found is not None:
                results[key], pictures[key] = found
        few = {}
        for count in sorted(map(int, self._config.audit.few)):
            if count < target.train.count:
                less = with_less(target, count)
                few[count] = self._quick(less, folder / f"few-{count}", tested)
        elsewhere = {}
        if self._domain is not None:
            elsewhere = self._quick(self._from_domain(target), folder / "domain", tested)
        beyond = {}
        if self._config.attack.white_box and isinstance(box, SavedEncoder):
            found = self._try(target, "white_box", WHITE_BOX, folder / "white_box", tested)
            if found is not None:
                beyond["white_box"] = found[0]
        return Audited(
            results=results,
            few=few,
            utility=self.test.utility(classify, tested),
            pictures={key: each for key, each in pictures.items() if each is not None},
            public=target.train.count,
            is_random=is_random,
            queries=queries,
            elsewhere=elsewhere,
            beyond=beyond,
        )

    def _aim(self, name: str, box: BlackBox, folder: Path) -> tuple[Target, Pairs]:
        """What attackers have of an encoder, and the pairs that they are measured on."""
        shape, budget = box.feature_shape, self._config.attack.cache_mb
        train, held_out, tested = (
            Pairs(box, self._dataset, split, part, shape, budget)
            for split, part in ((PUBLIC, TRAIN), (PUBLIC, HELD_OUT), (TEST, WHOLE))
        )
        target = Target(
            name=name,
            train=train,
            held_out=held_out,
            **self._known,
            dataset=self._dataset,
            g=self._g,
            config=self._config,
            folder=folder,
            split=box.split,
            faces=self._faces,
            hidden=self._hidden,
            box=box,
        )
        return target, tested

    def _from_domain(self, target: Target) -> Target:
        """A target whose public pictures to learn from are those of `audit.domain` alone."""
        both, known = self._domain
        shape, budget = target.train.feature_shape, self._config.attack.cache_mb
        train = Pairs(target.box, both, PUBLIC, TRAIN, shape, budget)
        places = np.arange(self._dataset.count(PUBLIC, TRAIN), train.count)
        return with_places(dataclasses.replace(target, train=train, **known), places)

    def _quick(self, target: Target, folder: Path, tested: Pairs) -> Results:
        """What the attackers get that learn in seconds."""
        found = {
            key: self._try(target, key, member, folder / key, tested)
            for key, member in MEMBERS.items()
            if member.is_quick
        }
        return {key: each[0] for key, each in found.items() if each is not None}

    def _try(self, target: Target, key: str, member: Member, path: Path, tested: Pairs):
        """The scores of a member, and its pictures; None where it lacks something."""
        if member.needs_embeddings and target.embeddings is None:
            return None
        if member.needs_labels and target.labels is None:
            return None
        file = path.with_suffix(".npz")
        if not file.exists():
            try:
                measure = member.attack(target)
            except ValueError as error:
                print(f"{member.title} on {target.name} isn't measured: {error}", flush=True)
                return None
            found = measure(target.held_out, self._public), measure(tested, self.test)
            save(file, *found)
            value = found[1].metrics
            shown = [
                f"{m.title} {value[m.metric]:.4g}" for m in MEASURES.values() if m.metric in value
            ]
            print(f"{target.name}: {member.title}: {', '.join(shown)}", flush=True)
        return read(file)


def save(file: Path, held_out: Finding, test: Finding) -> None:
    """Writes what a member got, all or nothing."""
    arrays = {}
    for metric, values in test.replicates.items():
        arrays[f"replicates/{metric}"] = values
        arrays[f"test/{metric}"] = np.float64(test.metrics[metric])
        arrays[f"held_out/{metric}"] = np.float64(held_out.metrics.get(metric, np.nan))
    if test.pictures is not None:
        arrays["pictures"] = test.pictures
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    with partial.open("wb") as opened:
        np.savez(opened, **arrays)
    partial.replace(file)


def read(file: Path) -> tuple[dict[str, Score], np.ndarray | None]:
    """Returns what `save` wrote: metric -> score, and pictures."""
    with np.load(file, allow_pickle=False) as arrays:
        scores = {
            name.removeprefix("replicates/"): Score(
                float(arrays[name.replace("replicates/", "held_out/", 1)]),
                float(arrays[name.replace("replicates/", "test/", 1)]),
                arrays[name],
            )
            for name in arrays.files
            if name.startswith("replicates/")
        }
        return scores, arrays["pictures"] if "pictures" in arrays.files else None


def overlap(dataset: Dataset) -> str:
    """Says how many people are in two of the splits; the datasets of data_prep have none.

    Raises:
        UserError: Somebody is.
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
    counts = ", ".join(f"{len(people):,} {name}" for name, people in known.items())
    return f"people: {counts}; 0 in two splits"
