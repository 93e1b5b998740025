"""Features in the plane by t-SNE (Figure 4), and how well their classes are separated."""

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

from tfadv.evaluation.identities import number_people
from tfadv.evaluation.moments import is_informative
from tfadv.evaluation.whitening import to_vectors

PERPLEXITY = 30.0  # about as many neighbours count for each point
COMPONENTS = 50  # of PCA, before t-SNE
FOLDS = 5


class NoMapError(ValueError):
    """The features cannot be mapped: there are too few, or all are the same."""


def embed(features: np.ndarray, seed: int) -> np.ndarray:
    """Places features in the plane by t-SNE: similar features are close.

    As van der Maaten and Hinton (2008): features are standardised per dimension and reduced to
    their first 50 principal components; perplexity 30, or a third of the other images if they are
    fewer than 90. It runs on one thread, so that a seed gives the same points again on the same
    machine.

    Args:
        features: float [N, D] or maps, [N, H, W, C], which become vectors as in `to_vectors`.
        seed: of the PCA and of t-SNE.

    Returns:
        float32 [N, 2].

    Raises:
        NoMapError: there are fewer than 4 images, or all features are the same.
        ValueError: features are not finite.
    """
    vectors = _standardised(features)
    if len(vectors) < 4:
        raise NoMapError(f"t-SNE needs at least 4 images, not {len(vectors)}")
    with threadpool_limits(1):
        components = PCA(min(COMPONENTS, *vectors.shape), random_state=seed).fit_transform(vectors)
        start = "pca" if components.shape[1] > 1 else "random"
        perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
        tsne = TSNE(perplexity=perplexity, init=start, random_state=seed)
        return tsne.fit_transform(components)


def combined(labels: Mapping[str, np.ndarray]) -> tuple[np.ndarray, list[str]]:
    """Returns the classes of all combinations of attributes, as in Figure 4: two give four.

    Args:
        labels: name of an attribute to 0 or 1, [N].

    Returns:
        The class of each image, int [N], and the name of each of the 2^A classes, such as
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
    """Returns how well attributes are separated in feature space: the numbers for a t-SNE plot.

    t-SNE can split one cluster and merge two; these numbers come from the features themselves.

    Args:
        features: float [N, D] or maps, [N, H, W, C], which become vectors as in `to_vectors`.
        labels: name of an attribute to 0 or 1, [N].
        seed: of the folds.
        identities: integers, -1 unknown, [N]. With them no person is in two folds: a classifier
            that remembers a person knows whether the person wears glasses.

    Returns:
        `balanced_accuracy/ATTRIBUTE` of a logistic regression on standardised features, with equal
        weight of both classes, over the predictions of 5 stratified folds: 0.5 is chance, 1 is
        perfect. `silhouette`, the mean silhouette coefficient of the classes of `combined` in
        standardised features, in [-1, 1]: 0 means mixed. `left_out`, a sentence for each class with
        fewer images than folds (or people, if identities are given): its attribute has no accuracy,
        and the silhouette leaves it out. There is no silhouette of fewer than two classes.

    Raises:
        ValueError: as `embed` and `combined`, or there is not one label or identity per image.
    """
    vectors = _standardised(features)
    classes, names = combined(labels)
    groups = number_people(np.full(len(classes), -1) if identities is None else identities)
    if not len(vectors) == len(classes) == len(groups):
        raise ValueError(
            f"{len(vectors)} features, {len(classes)} labels and {len(groups)} identities "
            "must have the same number"
        )
    unit = "images" if identities is None else "people"
    scores, left_out = {}, []
    for name, column in labels.items():
        column = np.asarray(column).astype(int)
        rare = _rare(column, groups, [f"no {name}", name], unit)
        left_out += [f"{name} is not predicted: {why}" for why in rare.values()]
        if not rare:
            scores[f"balanced_accuracy/{name}"] = _accuracy(vectors, column, groups, seed)
    rare = _rare(classes, np.arange(len(classes)), names, "images")
    left_out += [f"not in the silhouette: {why}" for why in rare.values()]
    kept = ~np.isin(classes, list(rare))
    if len(np.unique(classes[kept])) > 1:
        scores["silhouette"] = float(silhouette_score(vectors[kept], classes[kept]))
    return scores | {"left_out": left_out}


def _standardised(features: np.ndarray) -> np.ndarray:
    """Vectors of mean 0 and variance 1 in each informative dimension, float64 [N, D]."""
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


def _rare(classes: np.ndarray, groups: np.ndarray, names: list[str], unit: str) -> dict[int, str]:
    """Classes with fewer groups than folds, and a sentence that says so; a group is a `unit`."""
    counts = {i: len(np.unique(groups[classes == i])) for i in range(len(names))}
    return {
        i: f"{names[i]} has too few {unit}, {count} for {FOLDS} folds"
        for i, count in counts.items()
        if count < FOLDS
    }


def _accuracy(vectors: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int) -> float:
    """The balanced accuracy of cross-validated predictions."""
    classifier = make_pipeline(
        StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000)
    )
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    predictions = cross_val_predict(classifier, vectors, labels, groups=groups, cv=folds)
    return float(balanced_accuracy_score(labels, predictions))
