"""From examples to batches: mixed, shuffled without end, decoded.

An example is a dict: `image`, encoded, string; `labels` uint8 [A]; `identity` int64; `index` int64.
"""

import functools
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfadv.config.errors import UserError
from tfadv.data.images import decode_images
from tfadv.training.distribution import worker, workers


def concatenate(sources: Sequence[tf.data.Dataset]) -> tf.data.Dataset:
    """Returns the examples of several sources, one source after the other."""
    return functools.reduce(tf.data.Dataset.concatenate, sources)


def mix(sources: Sequence[tf.data.Dataset], counts: Sequence[int]) -> tf.data.Dataset:
    """Returns the examples of several sources, each source spread evenly over the whole.

    Args:
        sources: the examples of each source.
        counts: the number of examples of each source.
    """
    if len(sources) == 1:
        return sources[0]
    positions = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    order = np.repeat(np.arange(len(counts)), counts)[np.argsort(positions, kind="stable")]
    order = tf.data.Dataset.from_tensor_slices(order)
    return tf.data.Dataset.choose_from_datasets(sources, order, stop_on_empty_dataset=False)


def endless(
    examples: tf.data.Dataset, *, count: int, skip: int, buffer: int, seed: int
) -> tf.data.Dataset:
    """Returns epoch after epoch without end, each in an order of its own.

    Args:
        examples: one epoch, in a fixed order.
        count: number of examples in an epoch.
        skip: number of examples to leave out at the start of the endless sequence.
        buffer: number of examples in the shuffle buffer.
        seed: decides the order; the global seed does not.
    """
    first, offset = divmod(skip, count)

    def epoch(number):
        # In the graph of this function only, so that the order does not depend on the global seed.
        # With a seed of 0 TensorFlow would compare the other seed, a tensor here, with a number.
        tf.random.set_seed(seed + 1)
        shuffled = examples.shuffle(buffer, seed=number, reshuffle_each_iteration=False)
        return shuffled.skip(tf.where(number == first, np.int64(offset), np.int64(0)))

    return tf.data.Dataset.range(first, np.iinfo(np.int64).max).flat_map(epoch)


def decoded_batches(
    examples: tf.data.Dataset, *, size: int, batch: int, at_once: int, drop_remainder: bool = False
) -> tf.data.Dataset:
    """Returns batches of decoded images: `images`, `labels`, `identity` and `index`.

    Args:
        examples: with encoded images.
        size: S, pixels a side.
        batch: number of images in a batch.
        at_once: number of encoded images to read for decoding, where a batch takes too much memory.
        drop_remainder: whether to drop a last batch that is smaller.
    """

    def decode(examples):
        images = decode_images(examples["image"], size)
        return {"images": images} | {name: examples[name] for name in examples if name != "image"}

    # Each call decodes up to ten images in parallel.
    calls = max(2, (os.cpu_count() or 1) // 8)
    at_once = min(batch, at_once)
    batches = examples.batch(at_once).map(decode, num_parallel_calls=calls)
    if at_once < batch:
        batches = batches.rebatch(batch, drop_remainder)
    return batches.prefetch(2)


def in_memory_batches(
    arrays: dict[str, np.ndarray], batch: int, *, seed: int, start: int = 0
) -> tf.data.Dataset:
    """Returns shuffled full batches of rows of arrays, without end.

    Several workers hold the same arrays; each worker gets its share of the same batches.

    Args:
        arrays: each [N, ...].
        batch: number of rows in a batch, over all workers.
        seed: decides the order.
        start: number of batches to leave out at the start.

    Raises:
        UserError: there are fewer rows than in a batch.
    """
    count = len(next(iter(arrays.values())))
    check_batch(batch, count, "the part to train on")
    rows = endless(
        tf.data.Dataset.range(count), count=count, skip=start * batch, buffer=count, seed=seed
    )
    own = slice(worker() * batch // workers(), (worker() + 1) * batch // workers())
    names = list(arrays)

    def gather(indices):
        return tuple(arrays[name][indices] for name in names)

    def lookup(indices):
        # NumPy holds the arrays once; a tensor in the graph would be a second copy.
        values = tf.numpy_function(gather, [indices[own]], [arrays[name].dtype for name in names])
        for name, value in zip(names, values, strict=True):
            value.set_shape((batch // workers(), *arrays[name].shape[1:]))
        return dict(zip(names, values, strict=True))

    return rows.batch(batch, drop_remainder=True).map(lookup, num_parallel_calls=2).prefetch(2)


def check_batch(batch: int, count: int, part: str) -> None:
    """Raises a UserError if a part has fewer images than a batch."""
    if batch > count:
        raise UserError(
            f"{part} has {count} images, fewer than a batch of {batch}: lower train.batch (in "
            f"protect mode a batch of public images is train.decoder_steps times as large)"
        )
