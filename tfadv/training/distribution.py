"""One device or many: the strategy of a run, its batches, and passes over all devices.

A run happens in the scope of its strategy, and whoever asks `tf.distribute.get_strategy()` finds
it there. A step's losses are means over the replica's share of the batch, and gradients, moving
statistics and what is logged are means over the replicas: equal shares make them those of the whole
batch, however many replicas there are.
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
    """Returns the strategy that a config names; with one device to use it is TensorFlow's default.

    `mirrored` takes all visible GPUs or, where there is none, all logical CPUs; `multi_worker`
    takes those of all processes that TF_CONFIG names.

    Raises:
        UserError: TF_CONFIG is missing or says too little.
    """
    if runtime.strategy == "multi_worker":
        return _multi_worker()
    if runtime.strategy == "mirrored":
        return _mirrored()
    return tf.distribute.get_strategy()


# One of each for a whole process: TensorFlow joins workers only once, and takes the reductions of
# two strategies over the same devices for each other's.
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
        what = f"worker {index} at {addresses[index]} can't work with {others}"
        raise UserError(f"{what}: {error_line(error)}") from None


def _cluster(config: str) -> tuple[list[str], int]:
    """Returns the workers' addresses by TF_CONFIG, and which of them this is."""
    try:
        told = json.loads(config)
        cluster, task = told["cluster"], told["task"]
        addresses, index = cluster["worker"], task["index"]
        is_worker = [*cluster] == ["worker"] and task["type"] == "worker"
    except (ValueError, KeyError, TypeError):
        is_worker, addresses, index = False, None, None
    if not is_worker:
        fault = "is not set" if not config else "doesn't say which workers there are"
    elif not isinstance(addresses, list) or not all(map(_is_address, addresses)):
        fault = f"has no list of HOST:PORT in cluster.worker, but {addresses!r}"
    elif len(set(addresses)) < len(addresses):
        fault = f"has the same worker twice in {', '.join(addresses)}"
    elif type(index) is not int or not 0 <= index < len(addresses):
        fault = f"has task.index {index!r}; of {len(addresses)} workers it is 0 to at most "
        fault += str(len(addresses) - 1)
    else:
        return addresses, index
    raise UserError(
        f"runtime.strategy=multi_worker needs the environment variable TF_CONFIG, which {fault}; "
        f'such as {{"cluster": {{"worker": ["HOST:PORT", "HOST:PORT"]}}, "task": {{"type": '
        f'"worker", "index": 0}}}}, with another index on each host'
    )


def _is_address(address: Any) -> bool:
    return isinstance(address, str) and re.fullmatch(r"[^\s/]+:\d{1,5}", address) is not None


def replicas() -> int:
    """Returns how many devices, of all workers, share a batch of the present strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def workers() -> int:
    """Returns how many processes train together."""
    resolver = tf.distribute.get_strategy().cluster_resolver
    tasks = resolver.cluster_spec().as_dict().get("worker", ()) if resolver else ()
    return max(1, len(tasks))


def worker() -> int:
    """Returns which of them this is, from 0 on; what 0 writes is what a run leaves."""
    return tf.distribute.get_strategy().cluster_resolver.task_id if workers() > 1 else 0


def agree(value: float) -> float:
    """Returns the mean over all workers of a number, the same in each; waits for all of them."""
    if workers() == 1:
        return value
    return float(_mean(tf.distribute.get_strategy())(tf.constant(value, tf.float64)))


@functools.cache
def _mean(strategy: tf.distribute.Strategy) -> Callable[[tf.Tensor], tf.Tensor]:
    """The mean over replicas, traced once: each trace stays, and takes keys of its own."""

    @tf.function(input_signature=[tf.TensorSpec([], tf.float64)])
    def mean(value):
        values = strategy.run(tf.identity, args=(value,))
        return strategy.reduce(tf.distribute.ReduceOp.MEAN, values, axis=None)

    return mean


def check_batch(batch: int) -> None:
    """Raises a UserError unless a batch can be divided equally among the replicas."""
    if batch % replicas():
        raise UserError(
            f"train.batch is {batch}; it must be a multiple of the {replicas()} devices that work "
            f"on it (or set --config.runtime.strategy=one)"
        )


def distribute(batches: tf.data.Dataset):
    """Returns batches for `run`: a replica gets an equal share of each, in order.

    Args:
        batches: endless, this worker's share of each: tensors whose first axis is as long in all of
            them, a multiple of this worker's replicas.
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
    """Calls a function on each replica with its share; returns the means of what it returns."""
    strategy = tf.distribute.get_strategy()
    if strategy.num_replicas_in_sync == 1:
        return function(batch)
    measured = strategy.run(function, args=(batch,))
    return {
        name: strategy.reduce(tf.distribute.ReduceOp.MEAN, value, axis=None)
        for name, value in measured.items()
    }


def all_reduce_mean(values: Any) -> Any:
    """In a replica: returns the means over all replicas, with gradients."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    return context.all_reduce(tf.distribute.ReduceOp.MEAN, values)


def uniform_by_row(rows: tf.Tensor | int, columns: int, seed: tf.Tensor) -> tf.Tensor:
    """In a replica: numbers in [0, 1), a row for each picture of its share.

    A row depends on the seed and on the picture's place in the whole batch, not on how many
    replicas there are.

    Args:
        rows: N, the pictures of this replica.
        columns: K, numbers a row.
        seed: int [2].

    Returns:
        float32 [N, K].
    """
    context = tf.distribute.get_replica_context()
    drawn = tf.random.stateless_uniform((context.num_replicas_in_sync * rows, columns), seed)
    start = context.replica_id_in_sync_group * rows
    return drawn[start : start + rows]


def over_devices(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Returns a function of a batch of any size that all devices work on.

    Args:
        function: of tensors [N, ...], to such row by row; a tensor, or a dict of them.

    Returns:
        The same from and to NumPy arrays.
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
    """Returns a function of a batch of any size that all devices work on.

    Args:
        function: of tensors [N, ...] to means over these N.

    Returns:
        From NumPy arrays to the means over the whole batch.
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
    """From a batch to each device's result, and to how many rows that it is of.

    Of several workers, each does the whole batch. Where there are fewer rows than devices, the
    first one fills up, and counts for nothing there.
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
        places = np.array_split(rows, devices)
        filled = [part if len(part) else rows[:1] for part in places]
        shares = strategy.experimental_distribute_values_from_function(
            lambda context: _tensors(batch, filled[context.replica_id_in_sync_group % devices])
        )
        results = compiled(shares)
        return [
            (_local(strategy, results, replica), len(part)) for replica, part in enumerate(places)
        ]

    return call


def _local(strategy: tf.distribute.Strategy, results: Any, replica: int) -> Any:
    """What one replica returned."""
    return tf.nest.map_structure(
        lambda value: strategy.experimental_local_results(value)[replica], results
    )


def _rows(batch: Any) -> int:
    return len(tf.nest.flatten(batch)[0])


def _tensors(batch: Any, rows: np.ndarray | slice = slice(None)) -> Any:
    return tf.nest.map_structure(lambda each: tf.convert_to_tensor(np.asarray(each)[rows]), batch)
