import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfadv.attacks.black_box import SavedEncoder
from tfadv.config.errors import UserError
from tfadv.config.schema import BlackBox, Runtime
from tfadv.training import distribution

ROOT = Path(__file__).parents[2]
EVERYTHING = {"lambda1": 1.0, "lambda2": 1.0, "mu1": 0.1, "mu2": 1.0}


def in_process(*arguments):
    """What a script printed in a process of its own."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


CASES = [
    ("protect", [2], "float32", EVERYTHING, 1e-4),
    ("protect", [4], "float32", EVERYTHING, 1e-4),
    ("protect", [1, 2], "float32", EVERYTHING, 1e-4),
    ("protect", [2, 1], "float32", EVERYTHING, 1e-4),
    ("protect", [2], "float32", {"lambda1": 0.0}, 1e-4),
    ("protect", [2], "mixed_bfloat16", EVERYTHING, 1e-2),
    ("attack", [2], "float32", EVERYTHING, 1e-4),
    ("recognizer", [2], "float32", {"lambda1": 0.0}, 1e-4),
]
MOVES = [[1, 2], [2, 1]]


def case(what, devices, precision="float32", loss=EVERYTHING, **more):
    """A case as `tests/replicas.py` takes it."""
    return json.dumps(
        {"what": what, "devices": devices, "precision": precision, "loss": loss} | more
    )


@pytest.fixture(scope="module")
def replicas():
    """The results of `tests/replicas.py` for each case."""
    cases = [case(*each[:4]) for each in CASES]
    cases += [case("attack", devices, adam=True) for devices in MOVES]
    results = {}
    for count in (2, 4):  # the most devices of a case: see `strategy_of`
        some = [each for each in cases if max(json.loads(each)["devices"]) == count]
        lines = in_process("tests/replicas.py", *some).splitlines()
        results |= zip(some, map(json.loads, lines), strict=True)
    assert results.keys() == set(cases)
    return results


@pytest.mark.slow
@pytest.mark.parametrize(("what", "devices", "precision", "loss", "bound"), CASES)
def test_several_devices_train_the_weights_that_one_trains(
    replicas, what, devices, precision, loss, bound
):
    results = replicas[case(what, devices, precision, loss)]
    # Relative to the weights' norm, and to their change in training.
    assert max(results.values()) < bound


@pytest.mark.slow
@pytest.mark.parametrize("devices", MOVES)
def test_adams_moments_move_between_numbers_of_devices(replicas, devices):
    assert replicas[case("attack", devices, adam=True)] == {"apart": 0.0, "least": 1.0}


def tiny_run(mode, faces, folder, **flags):
    """The arguments of a small run in a folder of its mode's name."""
    flags |= {
        "baseline": False,
        "loss.lambda1": 1.0,
        "bottleneck.predictions": "",
        "data.dir": faces.dir,
        "data.dataset": "synthetic/tiny",
        "data.size": 32,
        "data.held_out": 0.3,
        "model.depth": 18,
        "model.width": 0.125,
        "model.decoder_width": 0.125,
        "metrics.replicates": 10,
        "runtime.precision": "float32",
    }
    arguments = [f"--config.{name}={value}" for name, value in flags.items()]
    return [f"--mode={mode}", f"--workdir={folder / mode}", *arguments]


@pytest.mark.slow
def test_all_measures_are_the_same_on_three_devices(tiny_faces, tmp_path):
    """Trained and measured on one device, then measured on three; 3 does not divide the images."""
    flags = {"train.steps": 6, "train.batch": 12}

    def run(devices, modes):
        commands = [["--", *tiny_run(mode, tiny_faces, tmp_path, **flags)] for mode in modes]
        in_process("-m", "tests.several_devices", str(devices), *itertools.chain(*commands))

    def read(mode):
        return json.loads((tmp_path / mode / "metrics.json").read_text())

    modes = ("recognizer", "protect", "attack")
    run(1, modes)
    alone = {mode: read(mode) for mode in modes}
    for mode in modes:
        (tmp_path / mode / "metrics.json").unlink()
    shutil.rmtree(Path(tiny_faces.dir) / "embeddings", ignore_errors=True)  # by one device
    # The attack first, because a new export is another encoder or recognizer.
    run(3, reversed(modes))
    for mode, measures in alone.items():
        results = read(mode)
        assert results.keys() == measures.keys()
        for name, value in measures.items():
            np.testing.assert_allclose(results[name], value, rtol=1e-6, atol=1e-6, err_msg=name)


def start_workers(arguments, count, **environment):
    """Starts workers of one cluster; the last one gets more environment variables."""
    ports = free_ports(count)
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    processes = []
    for index in range(count):
        task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        more = environment if index == count - 1 else {}
        processes.append(
            subprocess.Popen(
                [sys.executable, *arguments],
                env=os.environ | {"TF_CONFIG": json.dumps(task)} | more,
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return processes


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def weights_of(folder):
    with np.load(folder / "weights.npz") as kept:
        return np.concatenate([kept[name].ravel() for name in kept.files])


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The weights that one process trains."""
    folder = tmp_path_factory.mktemp("alone")
    in_process("-m", "tests.workers", str(folder))
    return weights_of(folder)


@pytest.mark.slow
def test_two_processes_train_the_weights_that_one_trains(tmp_path, alone):
    for process in start_workers(["-m", "tests.workers", str(tmp_path)], 2):
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-2000:]
    results = weights_of(tmp_path)
    assert np.linalg.norm(results - alone) < 2e-5 * np.linalg.norm(alone)


@pytest.mark.slow
def test_if_a_worker_is_killed_the_others_end_and_all_resume(tmp_path, alone):
    script = ["-m", "tests.workers", str(tmp_path)]
    first, second = start_workers(script, 2, STOP_AT="10")
    assert second.wait(300) == -signal.SIGKILL
    _, errors = first.communicate(timeout=120)
    assert first.returncode not in (0, None)
    assert "another worker was lost" in errors
    assert not (tmp_path / "weights.npz").exists()
    first, second = start_workers(script, 2)
    _, errors = first.communicate(timeout=300)
    assert first.returncode == second.wait(60) == 0
    assert "resuming at step 10 of 20" in errors
    results = weights_of(tmp_path)
    assert np.linalg.norm(results - alone) < 2e-5 * np.linalg.norm(alone)


@pytest.mark.slow
def test_two_processes_protect_and_attack_and_leave_one_run(tiny_faces, tmp_path):
    flags = {"train.steps": 4, "train.batch": 8, "runtime.strategy": "multi_worker"}
    for mode in ("protect", "attack"):
        arguments = tiny_run(mode, tiny_faces, tmp_path, **flags)
        for process in start_workers(["run.py", *arguments], 2):
            _, errors = process.communicate(timeout=400)
            assert process.returncode == 0, errors[-2000:]
    assert {path.name for path in tmp_path.iterdir()} == {"protect", "attack"}
    utility = json.loads((tmp_path / "protect/metrics.json").read_text())
    results = json.loads((tmp_path / "attack/metrics.json").read_text())
    assert results["mcc"] == pytest.approx(utility["mcc"], abs=1e-6)
    assert results["attack_steps"] == 4
    encoder = SavedEncoder(str(tmp_path / "protect/encoder"), BlackBox(), 32)
    assert encoder.feature_shape == (1000,)


PASSES = """
import numpy as np, tensorflow as tf
from tfadv.training import distribution
from tfadv.config.errors import UserError
from tfadv.config.schema import Runtime

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 3)
alone = distribution.make_strategy(Runtime(strategy="one"))
assert alone.num_replicas_in_sync == 1
strategy = distribution.make_strategy(Runtime())
assert strategy.num_replicas_in_sync == 3

def rows(batch):
    return {"sum": tf.reduce_sum(batch, 1), "more": batch[:, None] + 1.0}
def means(batch):
    return {"x": tf.reduce_mean(batch["x"]), "y": tf.reduce_mean(batch["y"])}
def draw():
    return distribution.uniform_by_row(6 // distribution.replicas(), 2, (1, 2))
def batches():
    return tf.data.Dataset.from_tensors({"x": tf.range(6), "y": tf.reshape(tf.range(12), (6, 2))})

with strategy.scope():
    over, mean = distribution.over_devices(rows), distribution.mean_over_devices(means)
    for count in (1, 2, 3, 7):
        batch = np.arange(4.0 * count, dtype=np.float32).reshape(count, 4)
        results = over(batch)
        np.testing.assert_array_equal(results["sum"], batch.sum(1))
        np.testing.assert_array_equal(results["more"], batch[:, None] + 1.0)
        results = mean({"x": batch, "y": np.arange(count, dtype=np.float32)})
        np.testing.assert_allclose(results["x"], batch.mean(), rtol=1e-6)
        np.testing.assert_allclose(results["y"], np.arange(count).mean(), rtol=1e-6)
    drawn = strategy.experimental_local_results(tf.function(lambda: strategy.run(draw))())
    whole = tf.random.stateless_uniform((6, 2), (1, 2))
    np.testing.assert_array_equal(np.concatenate(drawn), whole)
    shares = next(iter(distribution.distribute(batches())))
    for replica, share in enumerate(strategy.experimental_local_results(shares["y"])):
        np.testing.assert_array_equal(share, np.arange(12).reshape(3, 2, 2)[replica])
    assert [int(x) for x in strategy.experimental_local_results(shares["x"])[2]] == [4, 5]
    distribution.check_batch(6)
    try:
        distribution.check_batch(7)
    except UserError as error:
        print(error)
"""


def test_batches_are_shared_and_results_are_combined():
    printed = in_process("-c", PASSES)
    assert printed.strip().endswith(
        "train.batch is 7; it must be a multiple of the number of devices, 3 (or set "
        "--config.runtime.strategy=one)"
    )


def test_one_device_needs_no_strategy():
    strategy = distribution.make_strategy(Runtime())
    assert strategy is tf.distribute.get_strategy()
    assert distribution.replicas() == 1
    batches = tf.data.Dataset.range(3)
    assert distribution.distribute(batches) is batches
    assert distribution.run(lambda batch: {"x": batch + 1}, 2) == {"x": 3}
    assert distribution.all_reduce_mean([1.0]) == [1.0]


def test_a_pass_over_one_device_takes_and_returns_numpy():
    results = distribution.over_devices(lambda batch: batch * 2.0)(np.ones((3, 2), np.float32))
    assert isinstance(results, np.ndarray)
    np.testing.assert_array_equal(results, np.full((3, 2), 2.0))


def task(workers='["a:1", "b:1"]', index="0", kind="worker", **others):
    more = "".join(f', "{name}": ["c:1"]' for name in others)
    task = f'"task": {{"type": "{kind}", "index": {index}}}'
    return f'{{"cluster": {{"worker": {workers}{more}}}, {task}}}'


CLUSTERS = {
    "": "is not set",
    "{": "names no workers",
    "[]": "names no workers",
    '{"cluster": {"worker": ["a:1"]}}': "names no workers",
    task(kind="chief"): "names no workers",
    task(chief=1): "names no workers",
    task('"a:1"'): "has no list of HOST:PORT in cluster.worker, but 'a:1'",
    task("[1, 2]"): "has no list of HOST:PORT in cluster.worker, but [1, 2]",
    task('["a:1", "b"]'): "has no list of HOST:PORT in cluster.worker, but ['a:1', 'b']",
    task('["a:1", "a:1"]'): "has the same worker twice in a:1, a:1",
    task(index="2"): "has task.index 2; it must be from 0 to 1",
    task(index="-1"): "has task.index -1;",
    task(index="true"): "has task.index True;",
    task(index='"0"'): "has task.index '0';",
}


@pytest.mark.parametrize("config", CLUSTERS)
def test_errors_name_what_is_wrong_with_the_cluster(config, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(UserError, match=re.escape(f"TF_CONFIG, which {CLUSTERS[config]}")):
        distribution.make_strategy(Runtime(strategy="multi_worker"))


def test_a_cluster_of_one_worker_is_one_machine(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", task('["127.0.0.1:1"]'))
    distribution._multi_worker.cache_clear()
    strategy = distribution.make_strategy(Runtime(strategy="multi_worker"))
    assert strategy is distribution.make_strategy(Runtime())


TAKEN = """
import os, socket
from tfadv.training import distribution
from tfadv.config.errors import UserError
from tfadv.config.schema import Runtime

with socket.socket() as taken:
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    address = "127.0.0.1:%d" % taken.getsockname()[1]
    task = '{"cluster": {"worker": ["%s", "127.0.0.1:1"]}, "task": {"type": "worker", "index": 0}}'
    os.environ["TF_CONFIG"] = task % address
    try:
        distribution.make_strategy(Runtime(strategy="multi_worker"))
    except UserError as error:
        print(str(error).replace(address, "HERE"))
"""


def test_an_error_names_a_worker_whose_port_is_taken():
    printed = in_process("-c", TAKEN).splitlines()
    printed[0] = re.sub(r"at \S+", "at HERE", printed[0])
    assert printed == [
        "worker 0 at HERE waits for 127.0.0.1:1",
        "worker 0 at HERE can't work with 127.0.0.1:1: Could not start gRPC server",
    ]
