"""The batches that a protector is trained on."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfadv.config.errors import UserError
from tfadv.config.schema import Train
from tfadv.data.dataset import PRIVATE, PUBLIC, TRAIN, WHOLE, Dataset
from tfadv.data.images import normalize
from tfadv.defences.terms import Defence, Excess, Reconstruction
from tfadv.models.build import measure_scale


def training_batches(
    dataset: Dataset,
    columns: Sequence[int],
    train: Train,
    *,
    seed: int,
    with_public: bool,
    inputs: Mapping[str, np.ndarray],
    start: int,
) -> tf.data.Dataset:
    """Returns the endless batches that `Protector.train_step` takes.

    Args:
        dataset: private and public images.
        columns: the task's attributes, as columns of the labels.
        train: batch size and decoder steps.
        seed: of the order.
        with_public: whether an adversary learns from public images.
        inputs: further inputs of the private images, one row each in the order of the train part:
            "identity" from `known_identities`, "embeddings" float32 [N, E].
        start: the step that the batches start at.
    """
    private = dataset.training_batches(PRIVATE, TRAIN, train.batch, seed=seed, start=start)
    private = private.map(_select(columns, inputs))
    if not with_public:
        return private.map(lambda batch: {"private": batch})
    public = dataset.training_batches(
        PUBLIC, WHOLE, train.batch * train.decoder_steps, seed=seed + 1, start=start
    )

    def pair(private, public):
        images = public["images"]
        images = tf.reshape(images, (-1, train.decoder_steps, *images.shape[1:]))
        return {"private": private, "public": {"images": images}}

    return tf.data.Dataset.zip(private, public).map(pair)


def adapt(
    defences: Sequence[Defence],
    dataset: Dataset,
    columns: Sequence[int],
    inputs: Mapping[str, np.ndarray],
) -> None:
    """Measures the statistics that defences need before the first step.

    Args are those of `training_batches`.
    """
    for defence in defences:
        if isinstance(defence, Reconstruction):
            measure_scale(defence.adversary, dataset)
        if isinstance(defence, Excess):
            batches = dataset.batches(PRIVATE, TRAIN).map(_select(columns, inputs))
            defence.adapt(batch | {"images": normalize(batch["images"])} for batch in batches)


def known_identities(dataset: Dataset) -> np.ndarray:
    """Returns the people of the private images to train on, 0 to K - 1, int64 [N]; -1 is unknown.

    Raises:
        UserError: fewer than two people are known.
    """
    identities, _ = dataset.annotations(PRIVATE, TRAIN)
    is_known = identities >= 0
    people = np.unique(identities[is_known])
    if len(people) < 2:
        raise UserError(
            f"loss.max_entropy needs at least two known people in the train part of split "
            f"{PRIVATE} of {dataset.description['name']}, which has {len(people)}; prepare the "
            f"dataset with identities, or set --config.loss.max_entropy=0"
        )
    return np.where(is_known, np.searchsorted(people, identities), -1)


def _select(columns: Sequence[int], inputs: Mapping[str, np.ndarray]) -> Callable[[Any], Any]:
    """Returns a function from a dataset's batch to the protector's private batch."""
    tables = {name: tf.constant(values) for name, values in inputs.items()}

    def select(batch):
        rows = {name: tf.gather(values, batch["index"]) for name, values in tables.items()}
        labels = tf.gather(batch["labels"], columns, axis=1)
        return {"images": batch["images"], "labels": labels, **rows}

    return select
