"""What an attack is: what it needs, what it means, and what it gives once it is fitted."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tfadv.evaluation.results import Training

if TYPE_CHECKING:
    from tfadv.attacks.knowledge import Knowledge, KnownImages


class NotApplicableError(Exception):
    """The attack does not apply to this encoder or this data; the message says why."""


@dataclasses.dataclass(frozen=True)
class AttributeScores:
    """Attributes that are inferred from features.

    Attributes:
        score: features [N, ...] to scores, float [N, A].
        columns: of the A attributes among the labels of the data set.
        names: of the A attributes.
        mcc_thresholds: scores above which the MCC on held-out images is highest, float [A].
        accuracy_thresholds: scores above which their accuracy is highest, float [A].
        majority: the more frequent label of each attribute among training images, [A].
    """

    score: Callable[[np.ndarray], np.ndarray]
    columns: Sequence[int]
    names: Sequence[str]
    mcc_thresholds: np.ndarray
    accuracy_thresholds: np.ndarray
    majority: np.ndarray


@dataclasses.dataclass(frozen=True)
class FittedAttack:
    """An attack that has learned. It has one of the first five; scoring measures that.

    Attributes:
        reconstruct: features [N, ...] to images, float32 [N, S, S, 3] in [-1, 1].
        embed: features to guessed face embeddings, float32 [N, E].
        link: features to codes that are compared by cosine, float32 [N, K].
        attributes: what infers attributes.
        neighbours: features to positions of public images, int [N]; these images are the
            reconstructions.
        neighbour_images: for `neighbours`, the public images.
        examples: `reconstruct` is slow, so that only so many first images are scored; 0: all.
        mean_embedding: for `embed`, the mean embedding of public images, float32 [E].
        critic_scale: for `link`, the scale of the InfoNCE critic; None if there is none.
        held_out_loss: the loss that the attack's settings were chosen by.
        training: how training went, of an attack that is trained by gradients.
        view: the name of the view of features that was chosen, of an attack that chooses one.
    """

    reconstruct: Callable[[np.ndarray], np.ndarray] | None = None
    embed: Callable[[np.ndarray], np.ndarray] | None = None
    link: Callable[[np.ndarray], np.ndarray] | None = None
    attributes: AttributeScores | None = None
    neighbours: Callable[[np.ndarray], np.ndarray] | None = None
    neighbour_images: "KnownImages | None" = None
    examples: int = 0
    mean_embedding: np.ndarray | None = None
    critic_scale: float | None = None
    held_out_loss: float = float("nan")
    training: Training | None = None
    view: str = ""


class Attack:
    """One attack. A subclass sets these and has `fit`; `registry` lists all attacks.

    Attributes:
        title: its name in a table.
        meaning: what it does, in one plain sentence.
        needs: what it cannot do without, of `leakage_measures`' RECOGNIZER, IDENTITIES and LABELS.
        diverges_in: of an attack that is trained by gradients, the metrics that it would give; a
            divergence makes no verdict by these converge. Empty: by any.
        is_quick: whether it learns in seconds.
        family: the name that one attack has in common at all budgets; empty without budgets.
        budget: its multiple of the smallest budget; 0 without budgets.
    """

    title: str
    meaning: str
    needs: ClassVar[frozenset[str]] = frozenset()
    diverges_in: ClassVar[tuple[str, ...]] = ()
    is_quick: bool = True
    family: str = ""
    budget: int = 0

    def fit(self, knowledge: "Knowledge", folder: Path) -> FittedAttack:
        """Learns from what the attacker knows of one encoder; checkpoints go into the folder.

        Raises:
            NotApplicableError: the attack does not apply.
            TrainingError: its training diverges.
        """
        raise NotImplementedError
