"""What attacks recovered: the one result type for metrics.json, audit.json and the pages."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tfadv.config.files import atomic_write
from tfadv.evaluation.metrics.bootstrap import percentile_interval

Flat = dict[str, float | list[float]]


@dataclasses.dataclass(frozen=True)
class Score:
    """One metric of one attack.

    Attributes:
        value: on test images.
        replicates: on resampled test people, float64 [R]; empty where there is no interval. Equal
            positions are equal people for every attack, so that differences are paired.
        held_out: on held-out public images, by which attacks are chosen; NaN if not measured.
    """

    value: float
    replicates: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    held_out: float = math.nan

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval over test people; None where there is none."""
        return percentile_interval(self.replicates) if self.replicates.size else None


@dataclasses.dataclass(frozen=True)
class PairScores:
    """Similarities of genuine and impostor pairs, for figures.

    Attributes:
        roc: false and true accept rates, rising from 0 to 1.
        genuine: scores of some pairs of one person, ascending.
        impostor: scores of some pairs of two people, ascending.
    """

    roc: tuple[np.ndarray, np.ndarray]
    genuine: np.ndarray
    impostor: np.ndarray


@dataclasses.dataclass(frozen=True)
class Training:
    """How the training of an attack by gradients went.

    Attributes:
        steps: it trained for.
        converged: whether it ended because held-out images no longer improved.
        held_out_loss: at its best point.
        images_per_s: images trained on per second.
        curve: steps, and the loss on held-out public images at them.
    """

    steps: int
    converged: bool
    held_out_loss: float
    images_per_s: float
    curve: tuple[list[int], list[float]] = ((), ())


@dataclasses.dataclass(frozen=True)
class AttackResult:
    """What one attack recovered from one encoder.

    Attributes:
        scores: metric -> score; NaN where the attack diverged, empty if it does not apply.
        images: reconstructions of the first test images, uint8 [N, S, S, 3]; None without any.
        pairs: recognizer -> similarities of pairs; "" is the key where no recognizer is needed.
        examples: number of test images that were scored.
        held_out_loss: the loss that the attack's settings were chosen by; NaN if there is none.
        training: of an attack that is trained by gradients.
        family: the name that one attack has in common at all budgets; empty without budgets.
        budget: how many times the smallest budget this attack had; 0 without budgets.
        view: the name of the view of features that the attack chose; empty if it chose none.
        not_applicable: why the attack does not apply; empty if it does.
        diverged: why its training ended early; empty if it did not.
    """

    scores: Mapping[str, Score] = dataclasses.field(default_factory=dict)
    images: np.ndarray | None = None
    pairs: Mapping[str, PairScores] = dataclasses.field(default_factory=dict)
    examples: int = 0
    held_out_loss: float = math.nan
    training: Training | None = None
    family: str = ""
    budget: int = 0
    view: str = ""
    not_applicable: str = ""
    diverged: str = ""

    @property
    def metrics(self) -> Flat:
        """The finite numbers on test images, by the names of metrics.json; NAME_ci95: interval."""
        flat: Flat = {}
        for name, score in self.scores.items():
            if math.isfinite(score.value):
                flat[name] = score.value
                if score.interval is not None:
                    flat[f"{name}_ci95"] = list(score.interval)
        if self.examples:
            flat["test_examples"] = self.examples
        if math.isfinite(self.held_out_loss):
            flat["held_out_loss"] = self.held_out_loss
        return flat

    def save(self, path: Path) -> None:
        """Writes everything to an .npz file, whole or not at all."""
        arrays = {}
        for name, score in self.scores.items():
            arrays[f"scores/{name}"] = np.array([score.value, score.held_out])
            arrays[f"replicates/{name}"] = score.replicates
        for name, pairs in self.pairs.items():
            arrays[f"roc/{name}"] = np.stack(pairs.roc)
            arrays[f"genuine/{name}"], arrays[f"impostor/{name}"] = pairs.genuine, pairs.impostor
        if self.images is not None:
            arrays["images"] = self.images
        facts = {name: getattr(self, name) for name in _FACTS}
        facts["training"] = self.training and dataclasses.asdict(self.training)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial, partial.open("wb") as file:
            np.savez(file, facts=np.array(json.dumps(facts)), **arrays)

    @classmethod
    def load(cls, path: Path) -> "AttackResult":
        """Returns what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        facts = json.loads(str(arrays.pop("facts")))
        if facts["training"]:
            facts["training"] = Training(**facts["training"])
        scores, pairs = {}, {}
        for key, values in arrays.items():
            kind, _, name = key.partition("/")
            if kind == "scores":
                value, held_out = map(float, values)
                scores[name] = Score(value, arrays[f"replicates/{name}"], held_out)
            elif kind == "roc":
                pairs[name] = PairScores(
                    tuple(values), arrays[f"genuine/{name}"], arrays[f"impostor/{name}"]
                )
        return cls(scores=scores, pairs=pairs, images=arrays.get("images"), **facts)


_FACTS = ("examples", "held_out_loss", "family", "budget", "view", "not_applicable", "diverged")


@dataclasses.dataclass(frozen=True)
class EncoderResult:
    """What all attacks recovered from one encoder.

    Attributes:
        attacks: name of an attack -> its result.
        utility: of the encoder with its classifier, by the names of metrics.json.
        separation: how far apart people lie in feature space, by the names of metrics.json.
        public_images: number of public images that attacks learned from.
        bits: that one feature carries at most; see `capacity.most_bits`.
        is_random: whether the same image has another feature each time.
        fewer_images: number of public images -> results of the quick attacks with no more images.
        fewer_queries: number of queries per image -> results of the quick attacks on the mean of
            so many features; of a random encoder only.
        other_domain: results of the quick attacks that learned from another domain only.
        dfil: Fisher information of the encoder's Gaussian noise, as its training measured it.
    """

    attacks: Mapping[str, AttackResult]
    utility: Flat
    separation: Flat = dataclasses.field(default_factory=dict)
    public_images: int = 0
    bits: float = math.nan
    is_random: bool = False
    fewer_images: Mapping[int, Mapping[str, AttackResult]] = dataclasses.field(default_factory=dict)
    fewer_queries: Mapping[int, Mapping[str, AttackResult]] = dataclasses.field(
        default_factory=dict
    )
    other_domain: Mapping[str, AttackResult] = dataclasses.field(default_factory=dict)
    dfil: float | None = None
