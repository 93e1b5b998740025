"""What every attacker of an audit has of one encoder, and what an attacker is."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tfadv.attacks.pairs import BlackBox, FirstPairs, Pairs
from tfadv.attacks.ridge import whiten
from tfadv.attacks.scoring import EvaluationSet, Finding
from tfadv.config.schema import Config
from tfadv.data.dataset import Dataset
from tfadv.evaluation.recognition.recognizer import FaceFeatures
from tfadv.evaluation.whitening import Whitening
from tfadv.models.vgg import VGGFeatures

Measurement = Callable[[Pairs, EvaluationSet], Finding]


@dataclasses.dataclass(frozen=True)
class Target:
    """What every attacker has of one encoder.

    Attributes:
        name: of the encoder, for progress lines.
        train: public pairs to learn from.
        held_out: public pairs of other people, to stop and choose by.
        identities: who is in the former and in the latter, int64 [N] each, -1 where not known.
        embeddings: C(X) of the former and of the latter, float32 [N, E] each; None without C.
        dataset: where the pairs come from.
        g: for the perceptual distance; None without.
        config: of the run.
        folder: for checkpoints.
        split: the encoder's split point, if it has one of ours.
        faces: the recogniser as a `g` that gradients reach; None where there is no such.
        labels: 0 or 1, of the attributes that the task doesn't train, in pictures to learn from and
            in those held out, [N, A] each; None without any.
        hidden: the columns of these attributes in the dataset.
        box: the encoder, for whoever looks into it.
    """

    name: str
    train: Pairs
    held_out: Pairs
    identities: tuple[np.ndarray, np.ndarray]
    embeddings: tuple[np.ndarray, np.ndarray] | None
    dataset: Dataset
    g: VGGFeatures | None
    config: Config
    folder: Path
    split: str | None
    faces: FaceFeatures | None = None
    labels: tuple[np.ndarray, np.ndarray] | None = None
    hidden: Sequence[int] = ()
    box: BlackBox | None = None

    @functools.cached_property
    def whitening(self) -> Whitening:
        """What all but the networks start from."""
        return whiten(self.train)


@dataclasses.dataclass(frozen=True)
class Member:
    """An attacker.

    Attributes:
        title: in a table.
        meaning: in plain words.
        attack: from what it has to what measures it.
        needs_embeddings: whether it can't do without a face recogniser.
        needs_labels: whether it reads attributes that the task doesn't train.
        is_quick: whether it learns in seconds.
        metrics: of one that is trained by gradients, and so may diverge.
    """

    title: str
    meaning: str
    attack: Callable[[Target], Measurement]
    needs_embeddings: bool = False
    needs_labels: bool = False
    is_quick: bool = True
    metrics: tuple[str, ...] = ()


def with_less(target: Target, count: int) -> Target:
    """Returns a target of whose public pictures to learn from only some are known.

    They are of as few people as can be, in the order of their numbers: who has few pictures has
    few people.
    """
    people = target.identities[0]
    order = np.argsort(np.where(people < 0, np.iinfo(np.int64).max, people), kind="stable")
    return with_places(target, np.sort(order[:count]))


def with_places(target: Target, places: np.ndarray) -> Target:
    """Returns a target of whose public pictures to learn from only these are known, ascending."""

    def of_places(known):
        return known and (known[0][places], known[1])

    return dataclasses.replace(
        target,
        train=FirstPairs(target.train, places),
        identities=of_places(target.identities),
        embeddings=of_places(target.embeddings),
        labels=of_places(target.labels),
    )


def of_pictures(decode: Callable[[np.ndarray], np.ndarray]) -> Measurement:
    """Measures who rebuilds pictures [N, S, S, 3] in [-1, 1] from features [N, ...]."""
    return lambda pairs, seen: seen.of_pictures(
        pairs.batches(), lambda batch: decode(batch["features"])
    )
