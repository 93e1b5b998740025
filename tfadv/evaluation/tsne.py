"""Features in the plane, and how far their classes lie apart: what Figure 4 shows, with numbers."""

from collections.abc import Mapping

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.metrics import balanced_accuracy_score, silhouette_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from tfadv.evaluation.moments import is_informative
from tfadv.evaluation.whitening import to_vectors

PERPLEXITY = 30.0  # about as many neighbours count for each point
COMPONENTS = 50  # of PCA, before t-SNE
FOLDS = 5


class NoMapError(ValueError):
    """The features have no map: there are too few, or all are the same."""


def embed(features: np.ndarray, seed: int) -> np.ndarray:
    """Places features in the plane by t-SNE (van der Maaten and Hinton 2008), near ones near.

    Standardised per dimension, then the first 50 principal components, as there; perplexity 30, or
    a third of the other pictures where they are fewer than 90. On one thread, so that a seed gives
    the same points again on the same machine: sums in another order would end elsewhere.

    Args:
        features: float [N, D] or maps, [N, H, W, C], which become vectors as in `to_vectors`.
        seed: of the PCA and of t-SNE.

    Returns:
        float32 [N, 2].

    Raises:
        NoMapError: there are fewer than 4 pictures, or all features are the same.
        ValueError: features are not finite.
    """
    vectors = _standardised(features)
    if len(vectors) < 4:
        raise NoMapError(f"t-SNE needs at least 4 pictures, not {len(vectors)}")
    with threadpool_limits(1):
        components = PCA(min(COMPONENTS, *vectors.shape), random_state=seed).fit_transform(vectors)
        start = "pca" if components.shape[1] > 1 else "random"
        perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
        tsne = TSNE(perplexity=perplexity, init=start, random_state=seed)
        return tsne.fit_transform(components)


def combined(labels: Mapping[str, np.ndarray]) -> tuple[np.ndarray, list[str]]:
    """The classes that attributes make together, as in Figure 4: two make four.

    Args:
        labels: name of an attribute to 0 or 1, [N].

    Returns:
        The class of each picture, int [N], and the name of each of the 2^A classes, such as
        "no Eyeglasses, Smiling".

    Raises:
        ValueError: there are no attributes, they differ in length, or a label is neither 0 nor 1.
    """
    columns = [np.asarray(column) for column in labels.values()]
    shapes = {column.shape for column in columns}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise ValueError(f"labels must be of one shape [N], not {sorted(shapes)}")
    if not np.isin(columns, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    names = [""]
    classes = np.zeros(len(columns[0]), int)
    for name, column in zip(labels, columns, strict=True):
        classes = 2 * classes + column.astype(int)
        names = [f"{other}, {sign}{name}" for other in names for sign in ("no ", "")]
    return classes, [name.removeprefix(", ") for name in names]


def separation(
    features: np.ndarray,
    labels: Mapping[str, np.ndarray],
    seed: int,
    identities: np.ndarray | None = None,
) -> dict[str, float | list[str]]:
    """How well attributes are told apart in feature space: the numbers beside a plot.

    t-SNE can tear apart what is one, and pile up what is two; these are of the features themselves.

    Args:
        features: float [N, D] or maps, [N, H, W, C], which become vectors as in `to_vectors`.
        labels: name of an attribute to 0 or 1, [N].
        seed: of the folds.
        identities: who is in the pictures, integers, -1 unknown, [N]. With them nobody is in two
            folds: else who remembers a person knows whether they wear glasses.

    Returns:
        `balanced_accuracy/ATTRIBUTE`, of a logistic regression on standardised features, classes
        weighed alike, over the answers of 5 stratified folds: 0.5 is chance, 1 is perfect.
        `silhouette`, the mean over pictures, in [-1, 1], of how much nearer the other classes of
        `combined` are than the picture's own, in standardised features: 0 is mixed up.
        `left_out`, a sentence for each class with fewer pictures than folds (or people, where they
        are given): its attribute has no accuracy, and it takes no part in the silhouette, which is
        missing where fewer than two classes are left.

    Raises:
        ValueError: as `embed` and `combined`, or there isn't one label or identity per picture.
    """
    vectors = _standardised(features)
    classes, names = combined(labels)
    groups = _groups(identities, len(classes))
    if not len(vectors) == len(classes) == len(groups):
        raise ValueError(
            f"{len(vectors)} features, {len(classes)} labels and {len(groups)} identities "
            "must be as many"
        )
    unit = "pictures" if identities is None else "people"
    found, left_out = {}, []
    for name, column in labels.items():
        column = np.asarray(column).astype(int)
        rare = _rare(column, groups, [f"no {name}", name], unit)
        left_out += [f"{name} is not predicted: {why}" for why in rare.values()]
        if not rare:
            found[f"balanced_accuracy/{name}"] = _accuracy(vectors, column, groups, seed)
    rare = _rare(classes, np.arange(len(classes)), names, "pictures")
    left_out += [f"not in the silhouette: {why}" for why in rare.values()]
    kept = ~np.isin(classes, list(rare))
    if len(np.unique(classes[kept])) > 1:
        found["silhouette"] = float(silhouette_score(vectors[kept], classes[kept]))
    return found | {"left_out": left_out}


def _standardised(features: np.ndarray) -> np.ndarray:
    """Vectors of mean 0 and variance 1 in each dimension that moves, float64 [N, D]."""
    if np.ndim(features) < 2:
        raise ValueError(f"features {np.shape(features)} must be [N, D] or maps [N, H, W, C]")
    vectors = to_vectors(features).astype(np.float64)
    if not np.isfinite(vectors).all():
        raise ValueError(f"{(~np.isfinite(vectors)).sum()} features are not finite")
    mean, deviation = (vectors.mean(0), vectors.std(0)) if len(vectors) else (0.0, np.zeros(1))
    kept = is_informative(mean, deviation)
    if not kept.any():
        raise NoMapError("all features are the same")
    return (vectors[:, kept] - mean[kept]) / deviation[kept]


def _groups(identities: np.ndarray | None, count: int) -> np.ndarray:
    """What must stay together in a fold: a person's pictures; each unknown one is on its own."""
    if identities is None:
        return np.arange(count)
    identities = np.asarray(identities)
    return np.where(identities < 0, -1 - np.arange(len(identities)), identities)


def _rare(classes: np.ndarray, groups: np.ndarray, names: list[str], unit: str) -> dict[int, str]:
    """Classes that there are too few of to be in every fold, and why; a group is a `unit`."""
    counts = {i: len(np.unique(groups[classes == i])) for i in range(len(names))}
    return {
        i: f"{names[i]} has too few {unit}, {count} for {FOLDS} folds"
        for i, count in counts.items()
        if count < FOLDS
    }


def _accuracy(vectors: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int) -> float:
    """The balanced accuracy of answers to pictures that were not learned from."""
    classifier = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000)
    )
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    answers = cross_val_predict(classifier, vectors, labels, groups=groups, cv=folds)
    return float(balanced_accuracy_score(labels, answers))
