import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

ROOT = Path(__file__).parents[2]
KILLS = 20
KILLS_OF_MODES = int(os.environ.get("TFADV_KILLS", "4"))


@pytest.mark.slow
def test_training_killed_at_random_moments_ends_with_the_very_same_weights(tmp_path):
    command = [sys.executable, "-m", "tests.killed", str(tmp_path), str(KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == f"killed {KILLS}\n", done.stderr[-2000:]
    whole, killed = (np.load(tmp_path / name / "weights.npz") for name in ("whole", "killed"))
    assert whole.files == killed.files
    for name in whole.files:
        np.testing.assert_array_equal(whole[name], killed[name])
    assert rows(tmp_path / "whole/history.jsonl") == rows(tmp_path / "killed/history.jsonl")


def rows(path):
    """Returns the logged rows without the speed."""
    logged = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: row[name] for name in row if name != "images_per_s"} for row in logged]


@pytest.mark.slow
def test_every_mode_killed_at_random_moments_ends_in_the_very_same_files(tmp_path):
    """A recognizer, an encoder, an attack on the encoder, and the page of the experiment."""
    command = [sys.executable, "-m", "tests.killed", str(tmp_path), str(KILLS_OF_MODES)]
    done = subprocess.run([*command, "experiment"], capture_output=True, text=True, cwd=ROOT)
    *_, last = done.stdout.splitlines()
    # The last process may find the run finished.
    assert 3 <= int(last.removeprefix("killed ")) <= KILLS_OF_MODES, done.stderr[-2000:]
    names, killed_names = (
        {str(path.relative_to(tmp_path / run)) for path in (tmp_path / run).rglob("*.*")}
        for run in ("whole", "killed")
    )
    names = {name for name in names if "tfevents" not in name}  # a restart begins another
    assert names == {name for name in killed_names if "tfevents" not in name}
    compared = Counter()
    for name in names:
        whole, killed = tmp_path / "whole" / name, tmp_path / "killed" / name
        compared[whole.name] += 1
        match whole.suffix:
            case ".index":  # checkpoints, and the variables of SavedModels
                assert_same_variables(whole.with_suffix(""), killed.with_suffix(""))
            case ".npz":
                assert_same_arrays(np.load(whole), np.load(killed))
            case ".jsonl":
                assert rows(whole) == rows(killed)
            case ".png":
                assert whole.read_bytes() == killed.read_bytes()
            case _ if whole.name == "metrics.json":
                assert without_speed(whole) == without_speed(killed)
            case _:
                compared[whole.name] -= 1
    assert compared["metrics.json"] == 4  # of the page, too
    assert compared["history.jsonl"] == 4
    assert compared["variables.index"] == 3
    assert sum(compared[name] for name in compared if name.startswith("ckpt")) == 8


def without_speed(path):
    """Returns the lines of metrics.json without the speed."""
    lines = path.read_text().splitlines()
    return [line for line in lines if "images_per_s" not in line]


def assert_same_variables(whole, killed):
    whole, killed = (tf.train.load_checkpoint(str(path)) for path in (whole, killed))
    names = whole.get_variable_to_shape_map().keys()
    assert names == killed.get_variable_to_shape_map().keys()
    for name in names - {"_CHECKPOINTABLE_OBJECT_GRAPH"}:
        np.testing.assert_array_equal(whole.get_tensor(name), killed.get_tensor(name), name)


def assert_same_arrays(whole, killed):
    assert whole.files == killed.files
    for name in whole.files:
        if name == "facts":
            assert _without_speed(whole[name]) == _without_speed(killed[name])
        else:
            np.testing.assert_array_equal(whole[name], killed[name], name)


def _without_speed(facts):
    """An attack's facts without how fast it trained."""
    facts = json.loads(str(facts))
    return facts | {"training": {**(facts["training"] or {}), "images_per_s": None}}
