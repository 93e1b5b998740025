"""Attribute inference: probes for attributes that the task does not train."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.neural_network import MLPClassifier

from tfadv.attacks.attack import Attack, AttributeScores, FittedAttack, NotApplicableError
from tfadv.attacks.knowledge import Knowledge
from tfadv.attacks.ridge import Ridge
from tfadv.attacks.views import View
from tfadv.data.labels import UNKNOWN
from tfadv.evaluation.leakage_measures import LABELS
from tfadv.evaluation.metrics.utility import tuned_thresholds
from tfadv.evaluation.whitening import Whitening

_HIDDEN = 256
_PATIENCE = 10  # epochs without improvement before the MLP ends
_EPOCHS = 500  # at most
_BLOCK = 512

Probe = Callable[[np.ndarray], np.ndarray]  # vectors [N, D] to scores [N, A]


class Examples(NamedTuple):
    """Features as vectors, float [N, D], and the labels of their images, 0 or 1, [N, A]."""

    vectors: np.ndarray
    labels: np.ndarray


class LinearProbe(Attack):
    """Ridge regression from features to attributes."""

    title = "linear probe"
    meaning = "Ridge regression from features to attributes that the task does not train."
    needs = frozenset({LABELS})

    def fit(self, knowledge: Knowledge, folder: Path) -> FittedAttack:
        """Solves the regression in each view; the best on held-out images counts."""
        fits = [(_learned(knowledge, view, linear_probe), view) for view in knowledge.views]
        probe, view = min(fits, key=lambda each: each[0].held_out_error)
        return FittedAttack(
            attributes=inferred_attributes(knowledge, lambda x: probe(view.vectors(x))),
            view=view.name,
        )


class MlpProbe(Attack):
    """A network with one hidden layer, from features to attributes.

    Args:
        seed: of its initial weights.
    """

    title = "trained probe"
    meaning = (
        "A network with one hidden layer, from features to attributes that the task does not train."
    )
    needs = frozenset({LABELS})

    def __init__(self, seed: int = 0):
        self._seed = seed

    def fit(self, knowledge: Knowledge, folder: Path) -> FittedAttack:
        """Trains the network, on the view in which kernel ridge regression predicts best."""
        best = knowledge.kernel_settings.get("labels")
        view = best[0].view if best else knowledge.views[0]
        probe = _learned(knowledge, view, lambda *data: mlp_probe(*data, self._seed))
        return FittedAttack(
            attributes=inferred_attributes(knowledge, lambda x: probe(view.vectors(x))),
            view=view.name,
        )


def _learned(
    knowledge: Knowledge, view: View, learn: Callable[[Examples, Examples, Whitening], Probe]
) -> Probe:
    """A probe of one view's vectors."""
    train, held_out = (
        Examples(known.map(view.vectors), known.labels)
        for known in (knowledge.train, knowledge.held_out)
    )
    whitening = view.whitening
    is_known = (train.labels != UNKNOWN).all(axis=1)  # further data sets lack some attributes
    if not is_known.any():
        raise NotApplicableError("no public image has labels of these attributes")
    if not is_known.all():
        train = Examples(train.vectors[is_known], train.labels[is_known])
        whitening = Whitening([train.vectors])
    return learn(train, held_out, whitening)


def inferred_attributes(
    knowledge: Knowledge, score: Callable[[np.ndarray], np.ndarray]
) -> AttributeScores:
    """Returns what infers attributes by scores of features, with thresholds of held-out images."""
    labels, scores = knowledge.held_out.labels, knowledge.held_out.map(score)
    train = knowledge.train.labels
    train = train[(train != UNKNOWN).all(axis=1)]
    if not len(train):
        raise NotApplicableError("no public image has labels of these attributes")
    names, columns = knowledge.attributes
    return AttributeScores(
        score=score,
        columns=columns,
        names=names,
        mcc_thresholds=tuned_thresholds(labels, scores),
        accuracy_thresholds=accurate_thresholds(labels, scores),
        majority=train.mean(0) > 0.5,
    )


def linear_probe(train: Examples, held_out: Examples, whitening: Whitening) -> Probe:
    """Returns ridge regression on the labels, with a strength of its own for each attribute."""
    return Ridge(lambda: _blocks(train), lambda: _blocks(held_out), whitening, per_target=True)


def mlp_probe(train: Examples, held_out: Examples, whitening: Whitening, seed: int) -> Probe:
    """Returns a network with one hidden layer; scores are log odds.

    It ends when its log loss on held-out images no longer improves.
    """
    if not whitening.variances.size:  # features that never vary predict nothing
        return lambda vectors: np.zeros((len(vectors), train.labels.shape[1]))
    # Standardised, in the eigenbasis. White inputs would give noise the weight of any direction.
    scale = np.sqrt(whitening.variances).astype(np.float32)
    inputs, held_out_inputs = (whitening(each.vectors) * scale for each in (train, held_out))
    network = MLPClassifier(_HIDDEN, random_state=seed)
    # scikit-learn reads one column as classes, of which there may be one only. It ignores a
    # constant column.
    labels = np.concatenate([train.labels, np.zeros_like(train.labels[:, :1])], axis=1)
    classes = np.arange(labels.shape[1])

    def probabilities(inputs):
        return np.clip(network.predict_proba(inputs)[:, :-1], 1e-7, 1 - 1e-7)

    # Its own early stopping counts images with all attributes right: of forty, almost none.
    lowest, waited, best = np.inf, 0, None
    for _ in range(_EPOCHS):
        network.partial_fit(inputs, labels, classes=classes)
        loss = _log_loss(held_out.labels, probabilities(held_out_inputs))
        waited += 1
        if loss < lowest:
            lowest, waited = loss, 0
            best = [each.copy() for each in network.coefs_ + network.intercepts_]
        if waited == _PATIENCE:
            break
    layers = len(network.coefs_)
    network.coefs_, network.intercepts_ = best[:layers], best[layers:]

    def score(vectors):
        found = probabilities(whitening(vectors) * scale)
        return np.log(found / (1 - found))

    return score


def accurate_thresholds(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns the threshold of each attribute with the highest accuracy.

    Args:
        labels: 0 or 1, [N, A].
        scores: [N, A]; a score above the threshold predicts 1.

    Returns:
        float64 [A]; the lowest of equally good ones. Minus infinity where 1 is always best,
        infinity where 0 is.
    """
    order = np.argsort(scores, axis=0)
    ranked = np.take_along_axis(scores, order, axis=0).astype(np.float64)
    edge = np.full((1, ranked.shape[1]), np.inf)
    bounds = np.concatenate([-edge, ranked, edge])
    # How the number of right predictions changes if the k lowest scores predict 0.
    gains = np.where(np.take_along_axis(labels, order, axis=0), -1, 1).cumsum(axis=0)
    gains = np.concatenate([np.zeros((1, ranked.shape[1])), gains])
    gains = np.where(bounds[1:] > bounds[:-1], gains, -np.inf)  # no threshold parts equal scores
    best = gains.argmax(axis=0)[None]
    below, above = (np.take_along_axis(each, best, axis=0)[0] for each in (bounds[:-1], bounds[1:]))
    return np.where(np.isinf(above), above, np.where(np.isinf(below), below, (below + above) / 2))


def _blocks(examples: Examples):
    for start in range(0, len(examples.vectors), _BLOCK):
        rows = slice(start, start + _BLOCK)
        # Around 0, the threshold of an attribute that held-out images do not tune.
        yield examples.vectors[rows], examples.labels[rows].astype(np.float32) - 0.5


def _log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return float(-np.log(np.where(labels, probabilities, 1 - probabilities)).mean())
