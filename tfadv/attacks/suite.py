"""Every attacker of an audit on an encoder, each kept once it is done."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfadv.attacks.black_box import SavedClassifier, SavedEncoder
from tfadv.attacks.decoder import decoders
from tfadv.attacks.knowledge import Member, Target, with_less, with_places
from tfadv.attacks.pairs import BlackBox, Pairs
from tfadv.attacks.registry import MEMBERS, WHITE_BOX
from tfadv.attacks.scoring import EvaluationSet, Finding
from tfadv.config.errors import UserError
from tfadv.config.run_folder import RunFolder
from tfadv.data.dataset import HELD_OUT, PUBLIC, TEST, TRAIN, WHOLE, Dataset
from tfadv.evaluation.closure import Score
from tfadv.evaluation.leakage_measures import MEASURES
from tfadv.evaluation.recognition.embedding_cache import cache_folder, embed_split
from tfadv.evaluation.recognition.recognizer import Recognizer
from tfadv.evaluation.verdicts import Audited, Results
from tfadv.models.vgg import VGGFeatures
from tfadv.training.trainer import TrainingError


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
        workdir: RunFolder,
        dataset: Dataset,
        recognizers: list[Recognizer],
        g: VGGFeatures | None,
        task: Sequence[str],
    ):
        self._workdir, self._dataset, self._g = workdir, dataset, g
        self._config = workdir.config
        both = None
        if domain := self._config.audit.domain:
            extra = (*self._config.data.extra, domain)
            try:
                both = Dataset(dataclasses.replace(self._config.data, extra=extra))
            except UserError as error:
                raise UserError(str(error).replace("data.extra", "audit.domain")) from None
        cache = cache_folder(workdir)
        self._public, self.test = (
            EvaluationSet(dataset, recognizers, self._config, cache, split, part, is_centred=True)
            for split, part in ((PUBLIC, HELD_OUT), (TEST, WHOLE))
        )
        self._hidden = [i for i, name in enumerate(dataset.attributes) if name not in task]
        self._known = self._facts(dataset, recognizers, cache)
        self._faces = recognizers[0].differentiable() if recognizers else None
        self._domain = both and (both, self._facts(both, recognizers, cache))

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
        some = next(iter(self.test.batches()))["images"]
        is_random = differs(box(some), box(some))
        folder = self._workdir.path / "encoders" / name
        bound = dfil_of(Path(box.path)) if isinstance(box, SavedEncoder) else None
        queries, served = {}, None
        if is_random:
            served = self._aim(name, box, folder)[1]  # the service asks once
            for count in (1, 4):
                if count < self._config.audit.repeats:
                    target, tested = self._aim(name, Averaged(box, count), folder)
                    queries[count] = self._quick(target, folder / f"queries-{count}", tested)
            box = Averaged(box, self._config.audit.repeats)
        target, tested = self._aim(name, box, folder)
        results, pictures = {}, {}
        for key, member in (MEMBERS | decoders(self._config)).items():
            found = self._try(target, member, folder / key, tested)
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
        if self._config.attack.white_box:
            path = folder / "white_box"
            found = self._try(target, WHITE_BOX, path, tested, counts=False)
            if found is not None:
                beyond["white_box"] = found[0]
        return Audited(
            results=results,
            few=few,
            utility=self.test.utility(classify, served or tested),
            pictures={key: each for key, each in pictures.items() if each is not None},
            public=target.train.count,
            is_random=is_random,
            queries=queries,
            elsewhere=elsewhere,
            beyond=beyond,
            dfil=bound,
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
            key: self._try(target, member, folder / key, tested)
            for key, member in MEMBERS.items()
            if member.is_quick
        }
        return {key: each[0] for key, each in found.items() if each is not None}

    def _try(
        self, target: Target, member: Member, path: Path, tested: Pairs, *, counts: bool = True
    ):
        """The scores of a member, and its pictures; None where it lacks something.

        One that counts in no verdict needn't be measured on held-out pictures.
        """
        if member.needs_embeddings and target.embeddings is None:
            return None
        if member.needs_labels and target.labels is None:
            return None
        file = path.with_suffix(".npz")
        if not file.exists():
            found = self._measure(target, member, tested, counts)
            if found is None:
                return None
            save(file, *found, pictures=self._config.report.pictures)
        return read(file)

    def _measure(
        self, target: Target, member: Member, tested: Pairs, counts: bool
    ) -> tuple[Finding, Finding] | None:
        """What a member finds of held-out and of test pictures; NaN if its training diverges."""
        try:
            measure = member.attack(target)
        except ValueError as error:
            print(f"{member.title} on {target.name} isn't measured: {error}", flush=True)
            return None
        except TrainingError as error:
            print(f"{member.title} on {target.name} diverged: {error}", flush=True)
            unknown = dict.fromkeys(member.metrics, np.nan)
            replicates = {metric: np.full(1, np.nan) for metric in unknown}
            nothing = Finding(metrics=unknown, replicates=replicates, is_finished=False)
            return nothing, nothing
        held_out = measure(target.held_out, self._public) if counts else Finding()
        found = measure(tested, self.test)
        value = found.metrics
        shown = [f"{m.title} {value[m.metric]:.4g}" for m in MEASURES.values() if m.metric in value]
        print(f"{target.name}: {member.title}: {', '.join(shown)}", flush=True)
        return held_out, found


def differs(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether features of the same pictures differ by more than devices round.

    Each value beside how much it differs between pictures: one that is large hides no other.

    Args:
        one: of some pictures, float [N, ...].
        other: of the same.
    """
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    rounding = 1e-3 * one.std(0) + 1e-6 * np.abs(one).max(0)
    return bool((np.abs(one - other) > rounding).any())


def dfil_of(encoder: Path) -> float | None:
    """The Fisher information that the protect run of an encoder measured, if it did."""
    try:
        return json.loads((encoder.parent / "metrics.json").read_text()).get("dfil")
    except (OSError, ValueError, AttributeError):  # there is none, or another program's
        return None


def save(file: Path, held_out: Finding, test: Finding, *, pictures: bool) -> None:
    """Writes what a member got, all or nothing; with its reconstructions, or without."""
    arrays = {"is_finished": np.bool_(test.is_finished)}
    for metric, values in test.replicates.items():
        arrays[f"replicates/{metric}"] = values
        arrays[f"test/{metric}"] = np.float64(test.metrics[metric])
        arrays[f"held_out/{metric}"] = np.float64(held_out.metrics.get(metric, np.nan))
    if pictures and test.pictures is not None:
        arrays["pictures"] = test.pictures
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    with partial.open("wb") as opened:
        np.savez(opened, **arrays)
    partial.replace(file)


def read(file: Path) -> tuple[dict[str, Score], np.ndarray | None]:
    """Returns what `save` wrote: metric -> score, and pictures."""
    with np.load(file, allow_pickle=False) as arrays:
        is_finished = bool(arrays["is_finished"]) if "is_finished" in arrays.files else True
        scores = {
            name.removeprefix("replicates/"): Score(
                float(arrays[name.replace("replicates/", "held_out/", 1)]),
                float(arrays[name.replace("replicates/", "test/", 1)]),
                arrays[name],
                is_finished,
            )
            for name in arrays.files
            if name.startswith("replicates/")
        }
        return scores, arrays["pictures"] if "pictures" in arrays.files else None
