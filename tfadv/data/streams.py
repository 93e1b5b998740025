"""Shuffled streams of examples without end, which can be entered at any batch."""

import numpy as np
import tensorflow as tf

from tfadv.config.errors import UserError
from tfadv.training.distribution import worker, workers


def endless(
    examples: tf.data.Dataset, *, count: int, skip: int, buffer: int, seed: int
) -> tf.data.Dataset:
    """Returns epoch after epoch, each in an order of its own, without end.

    Args:
        examples: one epoch, in its own order.
        count: of them.
        skip: examples of the whole stream that are left out at its start.
        buffer: examples to shuffle among.
        seed: of the order; the global seed has no part in it.
    """
    first, offset = divmod(skip, count)

    def epoch(number):
        # In this function's graph alone, so that the order doesn't depend on the global seed. With
        # a seed of 0 TensorFlow compares the other seed, a tensor here, as if it were a number.
        tf.random.set_seed(seed + 1)
        shuffled = examples.shuffle(buffer, seed=number, reshuffle_each_iteration=False)
        return shuffled.skip(tf.where(number == first, np.int64(offset), np.int64(0)))

    return tf.data.Dataset.range(first, np.iinfo(np.int64).max).flat_map(epoch)


def in_memory_batches(
    arrays: dict[str, np.ndarray], batch: int, *, seed: int, start: int = 0
) -> tf.data.Dataset:
    """Returns shuffled full batches of rows of arrays, as `Dataset.training_batches` does.

    Of several workers, which have the same arrays, each gets its share of the same batches.

    Raises:
        UserError: there are fewer rows than a batch takes.
    """
    count = len(next(iter(arrays.values())))
    check_batch(batch, count, "the part to train on")
    rows = endless(
        tf.data.Dataset.range(count),
        count=count,
        skip=start * batch,
        buffer=count,
        seed=seed,
    )
    own = slice(worker() * batch // workers(), (worker() + 1) * batch // workers())
    names = list(arrays)

    def gather(indices):
        return tuple(arrays[name][indices] for name in names)

    def lookup(indices):
        # NumPy holds the arrays once; a tensor of them inside the graph would be a second copy.
        values = tf.numpy_function(gather, [indices[own]], [arrays[name].dtype for name in names])
        for name, value in zip(names, values, strict=True):
            value.set_shape((batch // workers(), *arrays[name].shape[1:]))
        return dict(zip(names, values, strict=True))

    return rows.batch(batch, drop_remainder=True).map(lookup, num_parallel_calls=2).prefetch(2)


def check_batch(batch: int, count: int, what: str) -> None:
    """Raises a UserError if there are fewer pictures than a batch takes."""
    if batch > count:
        raise UserError(
            f"{what} has {count} pictures, fewer than a batch of {batch}: lower train.batch "
            f"(in protect mode a batch of public pictures is train.decoder_steps times as large)"
        )
