"""Probes: attributes read from features that were never trained to hold them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier

from tfadv.closed_form import Ridge
from tfadv.metrics.utility import mcc, tuned_thresholds
from tfadv.whitening import Whitening

_HIDDEN = 256
_BLOCK = 512


class Examples(NamedTuple):
    """Features as vectors, float [N, D], and the attributes of their pictures, 0 or 1, [N, A]."""

    vectors: np.ndarray
    labels: np.ndarray


def probe_attributes(
    train: Examples, held_out: Examples, test: Examples, names: Sequence[str], seed: int
) -> dict[str, float]:
    """Measures how well attributes are read from features, by a linear and by an MLP probe.

    The linear probe is ridge regression on the labels, its strength chosen for each attribute on
    held-out pictures; the MLP has one hidden layer, and stops early. Each attribute's threshold
    comes from held-out pictures too.

    Args:
        train: public pictures to learn from.
        held_out: public pictures of other people.
        test: pictures to be measured on.
        names: of the A attributes.
        seed: of the MLP.

    Returns:
        `probe_linear/mcc`, `probe_linear/auc` and `probe_linear/accuracy`, means over attributes;
        `.../NAME` of each; the same of `probe_mlp`; and `probe_majority/accuracy`, what the
        commoner answer among the training pictures gets. An attribute that test pictures all have,
        or all lack, has MCC 0 and no AUC.
    """
    metrics = {}
    for probe, scores in (
        ("probe_linear", _linear(train, held_out, test)),
        ("probe_mlp", _mlp(train, held_out, test, seed)),
    ):
        thresholds = tuned_thresholds(held_out.labels, scores[0])
        correct = (scores[1] > thresholds) == test.labels
        metrics |= _named(f"{probe}/mcc", names, mcc(test.labels, scores[1], thresholds))
        metrics |= _named(f"{probe}/accuracy", names, correct.mean(0))
        metrics |= _named(f"{probe}/auc", names, _auc(test.labels, scores[1]))
    majority = train.labels.mean(0) > 0.5
    return metrics | _named("probe_majority/accuracy", names, (test.labels == majority).mean(0))


def _linear(train: Examples, held_out: Examples, test: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Scores of held-out and of test pictures, [N, A] each."""
    ridge = Ridge(lambda: _blocks(train), lambda: _blocks(held_out), per_target=True)
    return ridge(held_out.vectors), ridge(test.vectors)


def _blocks(examples: Examples):
    for start in range(0, len(examples.vectors), _BLOCK):
        rows = slice(start, start + _BLOCK)
        yield examples.vectors[rows], examples.labels[rows].astype(np.float32)


def _mlp(
    train: Examples, held_out: Examples, test: Examples, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of held-out and of test pictures, [N, A] each: log odds."""
    whitening = Whitening([train.vectors])
    # Standardised, in the eigenbasis; white, directions of noise would be as loud as any.
    scale = np.sqrt(whitening.variances).astype(np.float32)
    network = MLPClassifier(_HIDDEN, early_stopping=True, n_iter_no_change=5, random_state=seed)
    # One column of labels is read as classes, which may be one only; a constant one is ignored.
    labels = np.concatenate([train.labels, np.zeros_like(train.labels[:, :1])], axis=1)
    network.fit(whitening(train.vectors) * scale, labels)

    def scores(vectors):
        chances = network.predict_proba(whitening(vectors) * scale)[:, :-1]
        chances = np.clip(chances, 1e-7, 1 - 1e-7)
        return np.log(chances / (1 - chances))

    return scores(held_out.vectors), scores(test.vectors)


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
