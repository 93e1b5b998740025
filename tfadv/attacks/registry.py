"""The attackers of an audit: each learns from public pairs, and is then measured on any others.

`MEMBERS` declares them, and `trained_decoders` those that are tried at several budgets. A member
takes a `Target` and returns what measures it: on held-out public pictures, to choose by, and on
test pictures, to report.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from tfadv.attacks import inversion
from tfadv.attacks.knowledge import Measurement, Member, Target, of_pictures
from tfadv.attacks.linkage import Linkage
from tfadv.attacks.pairs import vectors
from tfadv.attacks.probes import Examples, Scorer, linear_probe, mlp_probe
from tfadv.attacks.ridge import ClosedFormDecoder, NearestNeighbour, RandomFeatures, Ridge
from tfadv.attacks.scoring import critic_scale
from tfadv.data.images import normalize
from tfadv.evaluation.metrics.utility import tuned_thresholds
from tfadv.evaluation.whitening import to_vectors
from tfadv.training.distribution import over_devices


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
    return _with_loss(of_pictures(decode), decode.held_out_loss)


def random_features(target: Target) -> Measurement:
    """Ridge regression to pixels from random features of the feature."""
    return closed_form(target, target.config.attack.random_features)


def nearest_neighbour(target: Target) -> Measurement:
    """The public picture whose feature is nearest."""
    search = NearestNeighbour(target.train, target.held_out, target.whitening)
    return of_pictures(lambda features: normalize(target.train.pictures(search(features))).numpy())


def feature_ridge(target: Target, random: int = 0) -> Measurement:
    """Ridge regression to face embeddings."""
    expand = to_vectors
    if random:
        features = RandomFeatures(target.whitening, random, target.config.runtime.seed)

        def expand(batch):
            return features(to_vectors(batch))

    parts = _with_embeddings(target, expand)
    ridge = Ridge(*parts, None if random else target.whitening)
    measure = _of_guesses(target, lambda features: ridge(expand(features)))
    return _with_loss(measure, ridge.held_out_error)


def feature_random_ridge(target: Target) -> Measurement:
    """Ridge regression to face embeddings from random features of the feature."""
    return feature_ridge(target, target.config.attack.random_features)


def feature_map(target: Target) -> Measurement:
    """M, a network to face embeddings."""
    inverter, effort = inversion.guess_embeddings(
        target.train,
        target.embeddings[0],
        target.held_out,
        target.embeddings[1],
        target.config,
        target.folder / "feature_map",
        f"M on {target.name}",
    )
    measure = _of_guesses(target, over_devices(inverter))
    return lambda pairs, seen: dataclasses.replace(
        measure(pairs, seen), is_finished=effort.converged
    )


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
    return inversion.search_inputs(target.box, target.train, target.held_out, target.config)


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
        "PredictionOutput with the public picture whose feature is nearest.",
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
        metrics=("feature_reid_rank1", "feature_verification_auc"),
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


def _with_embeddings(target: Target, expand: Callable[[np.ndarray], np.ndarray]):
    """What `Ridge` takes, of the pairs to learn from and of those held out."""

    def batches(pairs, embeddings):
        for batch in pairs.batches():
            yield expand(batch["features"]), embeddings[batch["index"]]

    parts = zip((target.train, target.held_out), target.embeddings, strict=True)
    return [functools.partial(batches, *part) for part in parts]


def _with_loss(measure: Measurement, held_out_loss: float) -> Measurement:
    """The same, with the loss that its regularisation was chosen by."""

    def both(pairs, seen):
        finding = measure(pairs, seen)
        finding.metrics["held_out_loss"] = held_out_loss
        return finding

    return both


def _examples(target: Target) -> tuple[Examples, Examples]:
    parts = zip((target.train, target.held_out), target.labels, strict=True)
    return tuple(Examples(vectors(pairs), labels) for pairs, labels in parts)


def _of_scores(target: Target, score: Scorer) -> Measurement:
    thresholds = tuned_thresholds(target.labels[1], score(vectors(target.held_out)))
    return lambda pairs, seen: seen.of_scores(score(vectors(pairs)), target.hidden, thresholds)


def _of_guesses(target: Target, guess: Callable[[np.ndarray], np.ndarray]) -> Measurement:
    centre = target.embeddings[0].mean(0)

    def measure(pairs, seen):
        guesses = [guess(batch["features"]) for batch in pairs.batches()]
        return seen.of_guesses(np.concatenate(guesses), centre)

    return measure
