import json
import subprocess
import sys
from types import SimpleNamespace

import keras
import pytest

from benchmarks import input_pipeline_side, runner
from benchmarks.input_pipeline import PEERS

FIELDS = {"what", "size", "ours", "peer", "ratio", "ours_spread", "peer_spread"}


def test_reading_is_compared_with_decoding_on_synthetic_files(tmp_path):
    options = {"what": "batches", "images": 200, "size": 32, "rounds": 1}
    options["json"] = tmp_path / "rows.json"
    command = runner.python_module("benchmarks.input_pipeline", sys.executable, **options)
    done = subprocess.run(command, cwd=runner.ROOT, check=True, capture_output=True, text=True)
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert set(row) == FIELDS
    assert (row["what"], row["size"]) == ("batches", 32)
    assert row["ours"] > 0
    assert row["peer"] > 0
    assert "batches" in done.stdout


@pytest.mark.parametrize("side", input_pipeline_side.SIDES)
def test_each_side_of_each_row_is_timed(tiny_faces, side):
    options = {"what": side, "data_dir": tiny_faces.dir, "dataset": tiny_faces.dataset}
    options |= {"images": 64, "size": 32, "batch": 16, "steps": 1, "depth": 18, "width": 0.1}
    policy = keras.config.dtype_policy()
    try:
        assert input_pipeline_side.measure(SimpleNamespace(**options))["images_per_s"] > 0
    finally:
        keras.config.set_dtype_policy(policy)


def test_every_row_has_two_sides_that_can_be_timed():
    assert {*PEERS, *PEERS.values()} == set(input_pipeline_side.SIDES)
