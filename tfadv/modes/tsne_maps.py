"""t-SNE maps of the features of an experiment's encoders, for its page (Figure 4)."""

from collections.abc import Mapping, Sequence

import numpy as np

from tfadv.attacks.black_box import SavedEncoder
from tfadv.config.experiment import Part
from tfadv.data.dataset import TEST, WHOLE, Dataset
from tfadv.evaluation import tsne
from tfadv.evaluation.whitening import to_vectors
from tfadv.reporting.reproduce import Maps

_IMAGES = 2000  # on a map; some more to fill a batch


def compute(encoders: Mapping[str, Part], attributes: Sequence[str]) -> Maps:
    """Returns maps of the features of test images, and how well their classes are separated.

    An encoder whose features have no map, such as one that gives every image the same feature, is
    left out with a note.

    Args:
        encoders: row -> its finished protect run.
        attributes: the two whose combinations are the classes.
    """
    panels, separation, notes, count = {}, {}, [], 0
    for row, part in encoders.items():
        features, labels, identities = load_features(part, attributes)
        seed = part.config.runtime.seed
        try:
            points = tsne.embed(features, seed)
        except tsne.NoMapError as error:
            notes.append(f"{row} has no map: {error}.")
            continue
        count = len(features)
        panels[row] = (points, *tsne.combined(labels))
        found = tsne.separation(features, labels, seed, identities)
        notes += [f"{reason}." for reason in found.pop("left_out")]
        separation[row] = found
    return Maps(panels, separation, count, list(dict.fromkeys(notes)))


def load_features(
    part: Part, attributes: Sequence[str]
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Returns the features of the first test images, with their labels and identities.

    Args:
        part: a finished protect run.
        attributes: the attributes to return labels of.

    Returns:
        Features, float [N, D]; attribute -> labels, uint8 [N]; identities, int64 [N].
    """
    dataset = Dataset(part.config.data)
    encoder = SavedEncoder(str(part.path / "encoder"), part.config.black_box, dataset.size)
    features, count = [], 0
    for batch in dataset.batches(TEST, WHOLE):
        features.append(to_vectors(encoder(batch["images"].numpy())))
        count += len(features[-1])
        if count >= _IMAGES:
            break
    identities, labels = (each[:count] for each in dataset.annotations(TEST))
    columns = dataset.columns(attributes)
    named = {name: labels[:, column] for name, column in zip(attributes, columns, strict=True)}
    return np.concatenate(features), named, identities
