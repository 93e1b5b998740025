"""One device or several: the strategy of a run, its batches, and passes over all devices.

A run happens in the scope of its strategy, which `tf.distribute.get_strategy()` then returns. A
step's losses are means over a replica's share of the batch. Gradients, moving statistics and
logged values are means over the replicas. Shares are equal, so that these are the means over the
whole batch, for any number of replicas.
"""

import functools
import json
import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfadv.config.errors import UserError
from tfadv.config.schema import Runtime
from tfadv.training.tf_errors import error_line


def make_strategy(runtime: Runtime) -> tf.distribute.Strategy:
    """Returns the strategy that a config names; TensorFlow's default if there is one device.

    `mirrored` uses all visible GPUs, or all logical CPUs if there is no GPU. `multi_worker` uses
    those of all processes in TF_CONFIG.

    Raises:
        UserError: TF_CONFIG is missing or incomplete, or the workers can't connect.
    """
    if runtime.strategy == "multi_worker":
        return _multi_worker()
    if runtime.strategy == "mirrored":
        return _mirrored()
    return tf.distribute.get_strategy()


# Cached, because TensorFlow connects workers only once per process, and confuses the reductions of
# two strategies over the same devices.
@functools.cache
def _mirrored() -> tf.distribute.Strategy:
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    devices = tf.config.list_logical_devices(kind)
    if len(devices) < 2:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([device.name for device in devices])


@functools.cache
def _multi_worker() -> tf.distribute.Strategy:
    addresses, index = _cluster(os.environ.get("TF_CONFIG", ""))
    if len(addresses) == 1:
        return _mirrored()
    others = ", ".join(addresses[:index] + addresses[index + 1 :])
    print(f"worker {index} at {addresses[index]} waits for {others}", flush=True)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, ValueError) as error:
        raise UserError(
            f"worker {index} at {addresses[index]} can't work with {others}: {error_line(error)}"
        ) from None


def _cluster(config: str) -> tuple[list[str], int]:
    """Returns the workers' addresses in TF_CONFIG, and the index of this worker."""
    try:
        content = json.loads(config)
        cluster, task = content["cluster"], content["task"]
        addresses, index = cluster["worker"], task["index"]
        is_worker = [*cluster] == ["worker"] and task["type"] == "worker"
    except (ValueError, KeyError, TypeError):
        is_worker, addresses, index = False, None, None
    if not is_worker:
        fault = "names no workers" if config else "is not set"
    elif not isinstance(addresses, list) or not all(map(_is_address, addresses)):
        fault = f"has no list of HOST:PORT in cluster.worker, but {addresses!r}"
    elif len(set(addresses)) < len(addresses):
        fault = f"has the same worker twice in {', '.join(addresses)}"
    elif type(index) is not int or not 0 <= index < len(addresses):
        fault = f"has task.index {index!r}; it must be from 0 to {len(addresses) - 1}"
    else:
        return addresses, index
    raise UserError(
        f"runtime.strategy=multi_worker needs the environment variable TF_CONFIG, which {fault}; "
        f'example: {{"cluster": {{"worker": ["HOST:PORT", "HOST:PORT"]}}, "task": {{"type": '
        f'"worker", "index": 0}}}}, with a different index on each host'
    )


def _is_address(address: Any) -> bool:
    return isinstance(address, str) and re.fullmatch(r"[^\s/]+:\d{1,5}", address) is not None


def replicas() -> int:
    """Returns the number of devices, of all workers, that share a batch."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def workers() -> int:
    """Returns the number of processes that train together."""
    resolver = tf.distribute.get_strategy().cluster_resolver
    tasks = resolver.cluster_spec().as_dict().get("worker", ()) if resolver else ()
    return max(1, len(tasks))


def worker() -> int:
    """Returns the index of this worker; the run's results are those that worker 0 writes."""
    return tf.distribute.get_strategy().cluster_resolver.task_id if workers() > 1 else 0


def mean_over_workers(value: float) -> float:
    """Returns the mean over all workers of a number, once all of them have called this."""
    if workers() == 1:
        return value
    return float(_mean(tf.distribute.get_strategy())(tf.constant(value, tf.float64)))


@functools.cache
def _mean(strategy: tf.distribute.Strategy) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a mean over replicas that is traced once, because every trace uses up memory."""

    @tf.function(input_signature=[tf.TensorSpec([], tf.float64)])
    def mean(value):
        values = strategy.run(tf.identity, args=(value,))
        return strategy.reduce(tf.distribute.ReduceOp.MEAN, values, axis=None)

    return mean


def check_batch(batch: int) -> None:
    """Raises a UserError unless the replicas can share a batch equally."""
    if batch % replicas():
        raise UserError(
            f"train.batch is {batch}; it must be a multiple of the number of devices, {replicas()} "
            f"(or set --config.runtime.strategy=one)"
        )


def distribute(batches: tf.data.Dataset):
    """Returns batches for `run`, which each replica gets an equal share of, in order.

    Args:
        batches: endless; this worker's share of each batch. All tensors have the same first
            dimension, a multiple of this worker's replicas.
    """
    strategy = tf.distribute.get_strategy()
    count = replicas() // workers()
    if strategy.num_replicas_in_sync == 1:
        return batches

    def shares(batch):
        def split(tensor):
            return tf.reshape(tensor, (count, -1, *tensor.shape[1:]))

        return tf.data.Dataset.from_tensor_slices(tf.nest.map_structure(split, batch))

    endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    return strategy.distribute_datasets_from_function(
        lambda context: batches.flat_map(shares).apply(endless).prefetch(2 * count)
    )


def run(function: Callable[[Any], dict[str, tf.Tensor]], batch: Any) -> dict[str, tf.Tensor]:
    """Calls a function on each replica with its share; returns the means of its results."""
    strategy = tf.distribute.get_strategy()
    if strategy.num_replicas_in_sync == 1:
        return function(batch)
    measured = strategy.run(function, args=(batch,))
    return {
        name: strategy.reduce(tf.distribute.ReduceOp.MEAN, value, axis=None)
        for name, value in measured.items()
    }


def all_reduce_mean(values: Any) -> Any:
    """Returns the means over all replicas, with gradients; to be called in a replica."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    return context.all_reduce(tf.distribute.ReduceOp.MEAN, values)


def uniform_by_row(rows: tf.Tensor | int, columns: int, seed: tf.Tensor) -> tf.Tensor:
    """Returns random numbers in [0, 1), a row for each image of a replica's share.

    A row depends on the seed and on the image's place in the whole batch, not on the number of
    replicas. To be called in a replica.

    Args:
        rows: N, the images of this replica.
        columns: K, the numbers in a row.
        seed: int [2].

    Returns:
        float32 [N, K].
    """
    context = tf.distribute.get_replica_context()
    batch = tf.random.stateless_uniform((context.num_replicas_in_sync * rows, columns), seed)
    start = context.replica_id_in_sync_group * rows
    return batch[start : start + rows]


def over_devices(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Returns a function, of NumPy batches of any size, that runs on all devices.

    Args:
        function: from tensors [N, ...] to tensors [N, ...], row by row; tensors or dicts of them.

    Returns:
        The same function from and to NumPy arrays.
    """
    call = _on_shares(function)

    def rows(batch):
        results = [
            tf.nest.map_structure(lambda value: value.numpy(), result)
            for result, count in call(batch)
            if count
        ]
        if len(results) == 1:
            return results[0]
        return tf.nest.map_structure(lambda *parts: np.concatenate(parts), *results)

    return rows


def mean_over_devices(
    function: Callable[[Any], dict[str, tf.Tensor]],
) -> Callable[[Any], dict[str, float]]:
    """Returns a function, of NumPy batches of any size, that runs on all devices.

    Args:
        function: from tensors [N, ...] to means over N.

    Returns:
        A function from NumPy arrays to the means over the whole batch.
    """
    call = _on_shares(function)

    def means(batch):
        results = call(batch)
        total = sum(count for _, count in results)
        return {
            name: sum(float(result[name]) * count for result, count in results) / total
            for name in results[0][0]
        }

    return means


def _on_shares(function: Callable[[Any], Any]) -> Callable[[Any], list[tuple[Any, int]]]:
    """Returns a function from a batch to each device's result and its number of rows.

    Each of several workers computes the whole batch. Devices without a row get the first row; their
    number of rows is 0.
    """
    strategy = tf.distribute.get_strategy()
    devices = replicas() // workers()
    options = {"reduce_retracing": True, "autograph": False}
    if strategy.num_replicas_in_sync == 1:
        compiled = tf.function(function, **options)
        return lambda batch: [(compiled(_tensors(batch)), _rows(batch))]
    compiled = tf.function(lambda shares: strategy.run(function, args=(shares,)), **options)

    def call(batch):
        rows = np.arange(_rows(batch))
        parts = np.array_split(rows, devices)
        filled = [part if len(part) else rows[:1] for part in parts]
        shares = strategy.experimental_distribute_values_from_function(
            lambda context: _tensors(batch, filled[context.replica_id_in_sync_group % devices])
        )
        results = compiled(shares)
        return [
            (_local(strategy, results, replica), len(part)) for replica, part in enumerate(parts)
        ]

    return call


def _local(strategy: tf.distribute.Strategy, results: Any, replica: int) -> Any:
    """Returns the results of one replica."""
    return tf.nest.map_structure(
        lambda value: strategy.experimental_local_results(value)[replica], results
    )


def _rows(batch: Any) -> int:
    return len(tf.nest.flatten(batch)[0])


def _tensors(batch: Any, rows: np.ndarray | slice = slice(None)) -> Any:
    return tf.nest.map_structure(
        lambda values: tf.convert_to_tensor(np.asarray(values)[rows]), batch
    )
