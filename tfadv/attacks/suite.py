"""The attack suite: fits attacks on an encoder, scores them, and keeps each result."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tfadv.attacks.attack import Attack, NotApplicableError
from tfadv.attacks.black_box import AveragedEncoder, BlackBox, SavedClassifier
from tfadv.attacks.knowledge import Knowledge, KnownImages, Pairs
from tfadv.attacks.repeats import (
    NEAR_COPIES,
    Change,
    RepeatedDataset,
    Variant,
    has_image_keyed_noise,
    near_copies,
    times_that_fit,
)
from tfadv.attacks.scoring import EvaluationSet, first_pairs
from tfadv.attacks.stability import Stability
from tfadv.data.dataset import HELD_OUT, PUBLIC, TEST, TRAIN, WHOLE, Dataset
from tfadv.evaluation.capacity import most_bits
from tfadv.evaluation.leakage_measures import IDENTITIES, LABELS, RECOGNIZER
from tfadv.evaluation.recognition.embedding_cache import cached_embeddings
from tfadv.evaluation.recognition.recognizer import Recognizer
from tfadv.evaluation.results import AttackResult, EncoderResult, Score
from tfadv.evaluation.verdicts import describe
from tfadv.models.vgg import VGGFeatures
from tfadv.training.trainer import TrainingError

Results = dict[str, AttackResult]

_FEWER_QUERIES = (1, 4)  # than all, of a random encoder
# What else attacks can get or learn from -> what it adds to their titles, and to their meanings.
_VARIANTS = {
    "queries-1": ("1 query", "It gets one feature of an image, and learns from all queries."),
    "queries-4": ("4 queries", "It gets the mean of four features of an image."),
    "near-copies": (
        "near copies",
        "It also learns from public images that are shifted by a pixel or went through JPEG.",
    ),
}

# What an attack can need -> whether public images have it, and the reason if they do not.
_NEEDS = {
    RECOGNIZER: (lambda known: known.embeddings is not None, "there is no face recognizer"),
    LABELS: (lambda known: known.labels is not None, "the task has all attributes of the data set"),
    IDENTITIES: (lambda known: (known.identities >= 0).any(), "no identity is known"),
}


_SHOWN_VALUES = 2**26  # of features that bits are counted of


class Suite:
    """Runs attacks on one encoder after the other; it loads a saved result instead of a new run.

    Args:
        dataset: public images to learn from and to choose by, test images to report.
        recognizers: C; attacks learn from the first.
        cache: folder for the embeddings of real images.
        attacks: name -> attack.
        g: VGG19, for the perceptual distance of decoders; None without.
        memory_mb: what each set of images and features may take in memory, in MiB.
        replicates: number of bootstrap samples of the people.
        seed: of the bootstrap.
        examples: number of first reconstructions that a result keeps for the page; 0: none.

    Attributes:
        attacks: name of a result -> its attack; variants of an attack have names of their own.
    """

    def __init__(
        self,
        dataset: Dataset,
        recognizers: Sequence[Recognizer],
        cache: Path,
        attacks: Mapping[str, Attack],
        *,
        g: VGGFeatures | None = None,
        memory_mb: float = 4096,
        replicates: int = 1000,
        seed: int = 0,
        examples: int = 8,
    ):
        self._attacks = dict(attacks)
        self.attacks = self._attacks | {
            f"{key}-{kind}": Variant(attack, kind, *texts)
            for kind, texts in _VARIANTS.items()
            for key, attack in attacks.items()
        }
        self._quick = {key: attack for key, attack in attacks.items() if attack.is_quick}
        self._dataset, self._recognizers, self._cache = dataset, recognizers, cache
        self._g, self._memory = g, memory_mb
        self._faces = recognizers[0].differentiable() if recognizers else None
        images = functools.partial(
            EvaluationSet, dataset, recognizers=recognizers, cache=cache, seed=seed
        )
        # Attacks are chosen by the values of held-out images, so that these need no interval.
        self.held_out = images(PUBLIC, HELD_OUT, replicates=1, examples=0)
        self.test = images(TEST, WHOLE, replicates=replicates, examples=examples)
        self._facts = {}

    def run(
        self,
        name: str,
        encoder: BlackBox,
        folder: Path,
        *,
        classify: SavedClassifier | None = None,
        task: Sequence[str] = (),
        repeats: int = 1,
        fewer_images: Sequence[int] = (),
        other_domain: Dataset | None = None,
        with_separation: bool = False,
        in_new_process: bool = False,
    ) -> EncoderResult:
        """Runs all attacks on one encoder; results, checkpoints and logs go into the folder.

        Args:
            name: of the encoder, for progress lines.
            encoder: the black box.
            folder: where to write.
            classify: the encoder's classifier, if there is one.
            task: the attributes that the encoder is for; attacks infer the others.
            repeats: number of queries per image if the encoder is random. Attacks get their mean,
                or the mean of four, or one feature; all results count.
            fewer_images: numbers of public images; the quick attacks also run with no more images.
            other_domain: a data set whose public images are those of `dataset`, then those of
                another domain; the quick attacks also run with the latter only.
            with_separation: whether to measure how far apart people lie in feature space.
            in_new_process: whether the encoder must give the same features in a new process.

        Raises:
            UserError: the encoder does not work, or its features depend on more than the image.
        """
        images = (batch["images"] for batch in self.test.batches())
        stability = Stability(name, encoder, images)
        stability.check_quickly()
        is_random = stability.is_random
        asked, served = encoder, None
        variants, fewer_queries = {}, {}
        if is_random and repeats > 1:
            asked = AveragedEncoder(encoder, repeats)
            served = self._pairs(encoder, self._dataset, TEST, WHOLE)  # a service asks once
            for count in (each for each in _FEWER_QUERIES if each < repeats):
                mean, times = AveragedEncoder(encoder, count), repeats if count == 1 else 1
                attacks = self._attacks if count == 1 else self._quick
                found = self._know(name, mean, task, classify, times)
                results = self._variants(f"queries-{count}", attacks, *found, folder)
                fewer_queries[count] = {
                    key: results[f"{key}-queries-{count}"] for key in self._quick
                }
                variants |= results
                del found  # the next ones need the memory
        elif not is_random and has_image_keyed_noise(encoder, self._some_public_images()):
            found = self._know(name, encoder, task, classify, NEAR_COPIES, near_copies)
            variants = self._variants("near-copies", self._quick, *found, folder)
            del found
        known, tested = self._know(name, asked, task, classify)
        results = self._run(self._attacks, known, tested, folder)
        fewer = {
            count: self._run(
                self._quick, known.with_fewer(count), tested, folder / f"fewer-{count}"
            )
            for count in sorted(fewer_images)
            if count < known.train.count
        }
        elsewhere = {}
        if other_domain is not None:
            train = self._known_images(asked, other_domain, TRAIN, known.attributes[1])
            places = np.arange(self._dataset.count(PUBLIC, TRAIN), train.count)
            away = dataclasses.replace(known, train=train.at(places))
            elsewhere = self._run(self._quick, away, tested, folder / "other-domain")
        attacked = None if is_random else first_pairs(tested, stability.kept)["features"]
        stability.check(attacked, in_new_process=in_new_process)
        return EncoderResult(
            attacks=results | variants,
            utility=self.test.utility(classify, served or tested),
            separation=self.test.separation(tested) if with_separation else {},
            public_images=known.train.count,
            bits=most_bits(self._some_features(served or tested)),
            is_random=is_random,
            fewer_images=fewer,
            fewer_queries=fewer_queries,
            other_domain=elsewhere,
        )

    @staticmethod
    def _some_features(pairs: Pairs) -> np.ndarray:
        """Features of the first test images, as many as fit 256 MiB."""
        count = max(2, _SHOWN_VALUES // max(1, math.prod(pairs.feature_shape)))
        return first_pairs(pairs, count)["features"]

    def _some_public_images(self) -> np.ndarray:
        return next(iter(self.held_out.batches()))["images"][:64]

    def _know(
        self,
        name: str,
        encoder: BlackBox,
        task: Sequence[str],
        classify: SavedClassifier | None,
        times: int = 1,
        change: Change | None = None,
    ) -> tuple[Knowledge, Pairs]:
        """What the attacker of an encoder knows, and the test images with their features.

        Public images to learn from are repeated up to `times` times, as far as the memory goes.
        """
        names = [each for each in self._dataset.attributes if each not in task]
        columns = [self._dataset.attributes.index(each) for each in names]
        knowledge = Knowledge(
            name=name,
            encoder=encoder,
            train=self._known_images(encoder, self._dataset, TRAIN, columns, times, change),
            held_out=self._known_images(encoder, self._dataset, HELD_OUT, columns),
            attributes=(names, columns),
            classifier=_of_features(classify, encoder),
            g=self._g,
            faces=self._faces,
        )
        return knowledge, self._pairs(encoder, self._dataset, TEST, WHOLE)

    def _known_images(
        self,
        encoder: BlackBox,
        dataset: Dataset,
        part: str,
        columns: Sequence[int],
        times: int = 1,
        change: Change | None = None,
    ) -> KnownImages:
        """Public images with their features, and what is known of these images."""
        if (dataset, part) not in self._facts:  # the same for every encoder
            embeddings = None
            if self._recognizers:
                first = self._recognizers[0]
                embeddings = cached_embeddings(first, dataset, PUBLIC, part, self._cache)
            self._facts[dataset, part] = *dataset.annotations(PUBLIC, part), embeddings
        identities, labels, embeddings = self._facts[dataset, part]
        known = KnownImages(
            self._pairs(encoder, dataset, PUBLIC, part),
            identities,
            embeddings,
            labels[:, columns] if columns else None,
        )
        if times > 1:
            bytes_each = 4 * math.prod(encoder.feature_shape) + 3 * dataset.size**2
            times = times_that_fit(known.count, bytes_each, self._memory * 2**20, times)
            repeated = RepeatedDataset(dataset, times, change)
            known = known.repeated(self._pairs(encoder, repeated, PUBLIC, part), times)
        return known

    def _pairs(self, encoder: BlackBox, dataset: Dataset, split: str, part: str) -> Pairs:
        return Pairs(encoder, dataset, split, part, self._memory)

    def _run(
        self, attacks: Mapping[str, Attack], knowledge: Knowledge, tested: Pairs, folder: Path
    ) -> Results:
        """The results of attacks, by their names."""
        return {
            key: self._attack(key, attack, knowledge, tested, folder)
            for key, attack in attacks.items()
        }

    def _variants(
        self,
        kind: str,
        attacks: Mapping[str, Attack],
        knowledge: Knowledge,
        tested: Pairs,
        folder: Path,
    ) -> Results:
        """The results of attacks that get or learn from something else, named as `self.attacks`."""
        variants = {key: self.attacks[f"{key}-{kind}"] for key in attacks}
        results = self._run(variants, knowledge, tested, folder / kind)
        return {f"{key}-{kind}": result for key, result in results.items()}

    def _attack(
        self, key: str, attack: Attack, knowledge: Knowledge, tested: Pairs, folder: Path
    ) -> AttackResult:
        """One attack's result, from its file if it was made before."""
        path = folder / "attacks" / f"{key}.npz"
        if path.exists():
            return AttackResult.load(path)
        result = self._fit_and_score(attack, knowledge, tested, folder / key)
        result = dataclasses.replace(result, family=attack.family, budget=attack.budget)
        print(f"{knowledge.name}: {attack.title}: {describe(result)}", flush=True)
        result.save(path)
        return result

    def _fit_and_score(
        self, attack: Attack, knowledge: Knowledge, tested: Pairs, folder: Path
    ) -> AttackResult:
        for need, (has, reason) in _NEEDS.items():
            if need in attack.needs and not has(knowledge.train):
                return AttackResult(not_applicable=reason)
        try:
            fitted = attack.fit(knowledge, folder)
        except NotApplicableError as error:
            return AttackResult(not_applicable=str(error))
        except TrainingError as error:
            scores = dict.fromkeys(attack.diverges_in, Score(math.nan))
            return AttackResult(scores, diverged=str(error))
        result = self.test.score(fitted, tested)
        scores = dict(result.scores)
        if not fitted.examples:  # an attack on a few images takes no part in the choice
            held_out = self.held_out.score(fitted, knowledge.held_out.pairs).scores
            for name in scores.keys() & held_out.keys():
                scores[name] = dataclasses.replace(scores[name], held_out=held_out[name].value)
        return dataclasses.replace(
            result,
            scores=scores,
            held_out_loss=fitted.held_out_loss,
            training=fitted.training,
            view=fitted.view,
        )


def _of_features(classify: object, encoder: BlackBox) -> SavedClassifier | None:
    """The classifier, if it is a saved one that reads the encoder's features."""
    fits = isinstance(classify, SavedClassifier) and (
        classify.feature_shape == tuple(encoder.feature_shape)
    )
    return classify if fits else None
