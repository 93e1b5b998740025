"""Probes: attributes read from features that were never trained to hold them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier

from tfadv.attacks.ridge import Ridge
from tfadv.evaluation.metrics.utility import mcc, tuned_thresholds
from tfadv.evaluation.whitening import Whitening

_HIDDEN = 256
_PATIENCE = 10  # epochs without improvement before the MLP ends
_EPOCHS = 500  # a cap
_BLOCK = 512


Scorer = Callable[[np.ndarray], np.ndarray]  # vectors [N, D] to scores [N, A]


class Examples(NamedTuple):
    """Features as vectors, float [N, D], and the attributes of their pictures, 0 or 1, [N, A]."""

    vectors: np.ndarray
    labels: np.ndarray


def probe_attributes(
    train: Examples,
    held_out: Examples,
    test: Examples,
    names: Sequence[str],
    seed: int,
    whitening: Whitening | None = None,
) -> dict[str, float]:
    """Measures how well attributes are read from features, by a linear and by an MLP probe.

    The linear probe is ridge regression on the labels, its strength chosen for each attribute on
    held-out pictures; the MLP has one hidden layer, and ends when its log loss on held-out pictures
    no longer improves. Thresholds come from held-out pictures too: for MCC the one of the highest
    MCC, for accuracy that of the highest accuracy.

    Args:
        train: public pictures to learn from.
        held_out: public pictures of other people.
        test: pictures to be measured on.
        names: of the A attributes.
        seed: of the MLP.
        whitening: of the training vectors, where it is at hand.

    Returns:
        `probe_linear/mcc`, `probe_linear/auc` and `probe_linear/accuracy`, means over attributes;
        `.../NAME` of each; the same of `probe_mlp`; and `probe_majority/accuracy`, what the
        commoner answer among the training pictures gets. An attribute that test pictures all have,
        or all lack, has MCC 0 and no AUC.
    """
    metrics = {}
    whitening = whitening or Whitening([train.vectors])
    for probe, score in (
        ("probe_linear", linear_probe(train, held_out, whitening)),
        ("probe_mlp", mlp_probe(train, held_out, whitening, seed)),
    ):
        scores = score(held_out.vectors), score(test.vectors)
        thresholds = tuned_thresholds(held_out.labels, scores[0])
        metrics |= _named(f"{probe}/mcc", names, mcc(test.labels, scores[1], thresholds))
        correct = (scores[1] > accurate_thresholds(held_out.labels, scores[0])) == test.labels
        metrics |= _named(f"{probe}/accuracy", names, correct.mean(0))
        metrics |= _named(f"{probe}/auc", names, _auc(test.labels, scores[1]))
    majority = train.labels.mean(0) > 0.5
    return metrics | _named("probe_majority/accuracy", names, (test.labels == majority).mean(0))


def accurate_thresholds(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns the threshold of each attribute above which "yes" is right most often.

    Args:
        labels: 0 or 1, [N, A].
        scores: [N, A].

    Returns:
        float64 [A]; of equally good ones the lowest. Minus infinity where "yes" is always best,
        infinity where "no" is.
    """
    order = np.argsort(scores, axis=0)
    ranked = np.take_along_axis(scores, order, axis=0).astype(np.float64)
    edge = np.full((1, ranked.shape[1]), np.inf)
    bounds = np.concatenate([-edge, ranked, edge])
    # With the k lowest called "no": what changes is whether they are right.
    gains = np.where(np.take_along_axis(labels, order, axis=0), -1, 1).cumsum(axis=0)
    gains = np.concatenate([np.zeros((1, ranked.shape[1])), gains])
    gains = np.where(bounds[1:] > bounds[:-1], gains, -np.inf)  # equal scores can't be told apart
    best = gains.argmax(axis=0)[None]
    below, above = (np.take_along_axis(each, best, axis=0)[0] for each in (bounds[:-1], bounds[1:]))
    return np.where(np.isinf(above), above, np.where(np.isinf(below), below, (below + above) / 2))


def linear_probe(train: Examples, held_out: Examples, whitening: Whitening) -> Scorer:
    """Returns ridge regression on the labels, its strength chosen for each attribute."""
    return Ridge(lambda: _blocks(train), lambda: _blocks(held_out), whitening, per_target=True)


def _blocks(examples: Examples):
    for start in range(0, len(examples.vectors), _BLOCK):
        rows = slice(start, start + _BLOCK)
        # Around 0, where a threshold lies that held-out pictures don't tell.
        yield examples.vectors[rows], examples.labels[rows].astype(np.float32) - 0.5


def mlp_probe(train: Examples, held_out: Examples, whitening: Whitening, seed: int) -> Scorer:
    """Returns a network of one hidden layer; scores are log odds."""
    if not whitening.variances.size:  # features that never differ say nothing
        return lambda vectors: np.zeros((len(vectors), train.labels.shape[1]))
    # Standardised, in the eigenbasis; white, directions of noise would be as loud as any.
    scale = np.sqrt(whitening.variances).astype(np.float32)
    learned, asked = (whitening(examples.vectors) * scale for examples in (train, held_out))
    network = MLPClassifier(_HIDDEN, random_state=seed)
    # One column of labels is read as classes, which may be one only; a constant one is ignored.
    labels = np.concatenate([train.labels, np.zeros_like(train.labels[:, :1])], axis=1)
    classes = np.arange(labels.shape[1])

    def chances(inputs):
        return np.clip(network.predict_proba(inputs)[:, :-1], 1e-7, 1 - 1e-7)

    # Its own early stopping counts pictures with every attribute right: of forty, next to none.
    lowest, waited, best = np.inf, 0, None
    for _ in range(_EPOCHS):
        network.partial_fit(learned, labels, classes=classes)
        loss = _log_loss(held_out.labels, chances(asked))
        waited += 1
        if loss < lowest:
            lowest, waited = loss, 0
            best = [each.copy() for each in network.coefs_ + network.intercepts_]
        if waited == _PATIENCE:
            break
    layers = len(network.coefs_)
    network.coefs_, network.intercepts_ = best[:layers], best[layers:]

    def score(vectors):
        found = chances(whitening(vectors) * scale)
        return np.log(found / (1 - found))

    return score


def _log_loss(labels: np.ndarray, chances: np.ndarray) -> float:
    return float(-np.log(np.where(labels, chances, 1 - chances)).mean())


def _auc(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The area under each attribute's ROC curve, [A]; NaN where all have it, or none."""
    is_mixed = labels.min(0) < labels.max(0)
    return np.array(
        [
            roc_auc_score(labels[:, i], scores[:, i]) if is_mixed[i] else np.nan
            for i in range(labels.shape[1])
        ]
    )


def _named(metric: str, names: Sequence[str], values: np.ndarray) -> dict[str, float]:
    """The mean, and the value of each attribute that has one."""
    values = np.asarray(values, np.float64)
    each = {
        f"{metric}/{name}": float(value)
        for name, value in zip(names, values, strict=True)
        if not np.isnan(value)
    }
    return ({metric: float(np.nanmean(values))} if each else {}) | each
