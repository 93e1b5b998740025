"""The attackers of an audit: each learns from public pairs, and is then measured on any others.

`MEMBERS` declares them. A member takes a `Target` and returns what measures it: on held-out public
pictures, to choose by, and on test pictures, to report.
"""

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tfadv.closed_form import ClosedFormDecoder, NearestNeighbour, RandomFeatures, Ridge, whiten
from tfadv.config import Config
from tfadv.data import Dataset, normalise
from tfadv.distribution import over_devices
from tfadv.linkage import Linkage
from tfadv.metrics.info_nce import choose_scale
from tfadv.metrics.utility import tuned_thresholds
from tfadv.modes import inversion
from tfadv.modes.leakage import EvaluationSet, Finding
from tfadv.pairs import BlackBox, FirstPairs, Pairs, vectors
from tfadv.perceptual import VGGFeatures
from tfadv.probes import Examples, Scorer, linear_probe, mlp_probe
from tfadv.recognition import FaceFeatures
from tfadv.training import TrainingError
from tfadv.whitening import Whitening, to_vectors
from tfadv.workdir import write_json

BUDGETS = (1, 2, 4)  # times `audit.steps`
RATES = (3e-4, 1e-3, 3e-3)
_ARCHITECTURES = {"figure6": "the decoder of Figure 6", "residual": "larger, of residual blocks"}
_LOSSES = {
    "pixels": ("pixels", {"mu1": 0.0, "mu2": 0.0}),
    "gan": ("pixels against a discriminator", {"mu1": 0.1, "mu2": 0.0}),
    "perceptual": ("pixels and VGG19's features", {"mu1": 0.0, "mu2": 1.0}),
    "recognizer": ("pixels and the recogniser's embedding", {"mu1": 0.0, "mu2": 1.0}),
}

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
    """

    title: str
    meaning: str
    attack: Callable[[Target], Measurement]
    needs_embeddings: bool = False
    needs_labels: bool = False
    is_quick: bool = True


def closed_form(target: Target, random_features: int = 0) -> Measurement:
    """Ridge regression to pixels."""
    seed = target.config.runtime.seed
    decode = ClosedFormDecoder(
        target.train,
        target.held_out,
        target.dataset.size,
        random_features,
        seed,
        target.whitening,
    )
    return _of_pictures(decode)


def random_features(target: Target) -> Measurement:
    """Ridge regression to pixels from random features of the feature."""
    return closed_form(target, target.config.attack.random_features)


def nearest_neighbour(target: Target) -> Measurement:
    """The public picture whose feature is nearest."""
    search = NearestNeighbour(target.train, target.held_out, target.whitening)
    return _of_pictures(lambda features: normalise(target.train.pictures(search(features))).numpy())


def feature_ridge(target: Target, random: int = 0) -> Measurement:
    """Ridge regression to face embeddings."""
    expand = to_vectors
    if random:
        features = RandomFeatures(target.whitening, random, target.config.runtime.seed)

        def expand(batch):
            return features(to_vectors(batch))

    parts = _with_embeddings(target, expand)
    ridge = Ridge(*parts, None if random else target.whitening)
    return _of_guesses(target, lambda features: ridge(expand(features)))


def feature_random_ridge(target: Target) -> Measurement:
    """Ridge regression to face embeddings from random features of the feature."""
    return feature_ridge(target, target.config.attack.random_features)


def feature_map(target: Target) -> Measurement:
    """M, a network to face embeddings."""
    inverter, _ = inversion.guess_embeddings(
        target.train,
        target.embeddings[0],
        target.held_out,
        target.embeddings[1],
        target.config,
        target.folder / "feature_map",
        f"M on {target.name}",
    )
    return _of_guesses(target, over_devices(inverter))


def linkage(target: Target) -> Measurement:
    """A metric learned on public people, and features compared with features."""
    metric = Linkage(
        vectors(target.train),
        target.identities[0],
        vectors(target.held_out),
        target.identities[1],
        target.whitening,
    )
    scale = critic_scale(metric(vectors(target.held_out)), target.identities[1])
    return lambda pairs, seen: seen.of_codes(metric(vectors(pairs)), scale)


def critic_scale(codes: np.ndarray, identities: np.ndarray) -> float | None:
    """Returns the scale of a critic of codes [N, K], chosen on people held out; None of too few."""
    try:
        return choose_scale(codes, identities)
    except ValueError as error:
        print(f"information on identity isn't measured: {error}", flush=True)
        return None


def linkage_through_guesses(target: Target) -> Measurement:
    """Guessed face embeddings compared with guessed ones: no picture of the gallery needed."""
    ridge = Ridge(*_with_embeddings(target, to_vectors), target.whitening)
    centre = target.embeddings[0].mean(0)
    return lambda pairs, seen: seen.of_codes(ridge(vectors(pairs)) - centre)


def linear_attributes(target: Target) -> Measurement:
    """Attributes that the task doesn't train, by ridge regression."""
    return _of_scores(target, linear_probe(*_examples(target), target.whitening))


def attributes(target: Target) -> Measurement:
    """Attributes that the task doesn't train, by a network."""
    seed = target.config.runtime.seed
    return _of_scores(target, mlp_probe(*_examples(target), target.whitening, seed))


def white_box(target: Target) -> Measurement:
    """Search by gradients through the encoder itself."""

    def search(pairs, seen):
        parts = target.train, target.held_out, pairs
        found = inversion.search_inputs(target.box, *parts, seen, target.config)
        if found is None:
            raise ValueError("no gradient can be had")
        return found

    return search


MEMBERS = {
    "ridge": Member(
        "linear decoder", "Ridge regression from features to pixels, in closed form.", closed_form
    ),
    "random_features": Member(
        "random-features decoder",
        "Ridge regression from features and random ReLU features of them to pixels.",
        random_features,
    ),
    "nearest_neighbour": Member(
        "nearest neighbour",
        "Answers with the public picture whose feature is nearest.",
        nearest_neighbour,
    ),
    "feature_ridge": Member(
        "linear M(Z)",
        "Ridge regression from features to face embeddings.",
        feature_ridge,
        needs_embeddings=True,
    ),
    "feature_random_ridge": Member(
        "random-features M(Z)",
        "Ridge regression from features and random ReLU features of them to face embeddings.",
        feature_random_ridge,
        needs_embeddings=True,
    ),
    "feature_map": Member(
        "M(Z)",
        "A network that guesses the face embedding from the feature (Eq. 10).",
        feature_map,
        needs_embeddings=True,
        is_quick=False,
    ),
    "linkage": Member(
        "linkage", "Compares features by a metric learned on public people.", linkage
    ),
    "linkage_through_guesses": Member(
        "linkage by guessed faces",
        "Compares the face embeddings that are guessed from two features.",
        linkage_through_guesses,
        needs_embeddings=True,
    ),
    "linear_attributes": Member(
        "linear probe",
        "Ridge regression from features to attributes that the task doesn't train.",
        linear_attributes,
        needs_labels=True,
    ),
    "attributes": Member(
        "probe",
        "A network with one hidden layer, from features to attributes that the task doesn't train.",
        attributes,
        needs_labels=True,
    ),
}


# Beyond the paper's threat model, a black box: it is shown, and never the one that counts.
WHITE_BOX = Member(
    "search by gradients",
    "Looks for the picture whose feature is the same, by gradients through the encoder.",
    white_box,
    is_quick=False,
)


def decoders(config: Config) -> dict[str, Member]:
    """Returns a member for each decoder, loss, seed and budget that an audit asks for.

    Names are those of families with -x1, -x2 and -x4 behind them, for the budget.
    """
    found = {}
    for architecture, loss in itertools.product(config.audit.decoders, config.audit.losses):
        for seed in range(config.audit.seeds):
            family = f"{architecture}-{loss}" + (f"-{seed}" if config.audit.seeds > 1 else "")
            for times in BUDGETS:
                found[f"{family}-x{times}"] = Member(
                    f"{family} decoder, {times * config.audit.steps:,} steps",
                    f"A network, {_ARCHITECTURES[architecture]}, trained on {_LOSSES[loss][0]}.",
                    functools.partial(
                        decoder,
                        family=family,
                        architecture=architecture,
                        loss=loss,
                        seed=seed,
                        times=times,
                    ),
                    is_quick=False,
                )
    return found


def decoder(
    target: Target, *, family: str, architecture: str, loss: str, seed: int, times: int
) -> Measurement:
    """Dec^a with a budget; the rate decays to 0 over it, and the best point on the way counts.

    The smallest budget is tried at each of `RATES`; the others take the rate that left the least
    error on held-out pictures.
    """
    g = target.faces if loss == "recognizer" else target.g
    if loss == "recognizer" and g is None:
        raise ValueError("gradients reach only a recogniser that --mode=recognizer made")
    steps = times * target.config.audit.steps
    rates = target.folder / f"{family}-rates.json"
    tried = json.loads(rates.read_text()) if rates.exists() else {}
    chosen = [min(tried, key=tried.get)] if times > 1 and tried else map(str, RATES)
    best = None
    for rate in chosen:
        config = dataclasses.replace(
            target.config,
            model=dataclasses.replace(target.config.model, decoder=architecture),
            loss=dataclasses.replace(target.config.loss, **_LOSSES[loss][1]),
            train=dataclasses.replace(
                target.config.train,
                steps=steps,
                learning_rate=float(rate),
                evaluate_every=max(1, steps // 8),
                checkpoint_every=max(1, steps // 2),
            ),
            runtime=dataclasses.replace(target.config.runtime, seed=seed),
        )
        name = f"{family}-x{times}-{rate}"
        try:
            inverter, effort = inversion.invert_pictures(
                target.train,
                target.held_out,
                target.dataset,
                config,
                target.split,
                g,
                target.folder / name,
                f"{name} on {target.name}",
                decays=True,
            )
        except TrainingError as error:
            if times > 1:
                raise
            print(f"{name} on {target.name} diverged: {error}", flush=True)
            continue
        if times == 1:
            tried[rate] = effort.held_out_loss
            write_json(rates, tried)
        if best is None or effort.held_out_loss < best[0]:
            best = effort.held_out_loss, inverter
    if best is None:
        raise ValueError("it diverged at every learning rate")
    return _of_pictures(over_devices(best[1]))


def with_less(target: Target, count: int) -> Target:
    """Returns a target of whose public pictures to learn from only some are known.

    Whole people are taken, in the order of their numbers, until there are so many pictures: an
    attacker who has few pictures has few people.
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


def _with_embeddings(target: Target, expand: Callable[[np.ndarray], np.ndarray]):
    """What `Ridge` takes, of the pairs to learn from and of those held out."""

    def batches(pairs, embeddings):
        for batch in pairs.batches():
            yield expand(batch["features"]), embeddings[batch["index"]]

    parts = zip((target.train, target.held_out), target.embeddings, strict=True)
    return [functools.partial(batches, *part) for part in parts]


def _examples(target: Target) -> tuple[Examples, Examples]:
    parts = zip((target.train, target.held_out), target.labels, strict=True)
    return tuple(Examples(vectors(pairs), labels) for pairs, labels in parts)


def _of_scores(target: Target, score: Scorer) -> Measurement:
    thresholds = tuned_thresholds(target.labels[1], score(vectors(target.held_out)))
    return lambda pairs, seen: seen.of_scores(score(vectors(pairs)), target.hidden, thresholds)


def _of_pictures(decode: Callable[[np.ndarray], np.ndarray]) -> Measurement:
    return lambda pairs, seen: seen.of_pictures(
        pairs.batches(), lambda batch: decode(batch["features"])
    )


def _of_guesses(target: Target, guess: Callable[[np.ndarray], np.ndarray]) -> Measurement:
    centre = target.embeddings[0].mean(0)

    def measure(pairs, seen):
        guesses = [guess(batch["features"]) for batch in pairs.batches()]
        return seen.of_guesses(np.concatenate(guesses), centre)

    return measure
