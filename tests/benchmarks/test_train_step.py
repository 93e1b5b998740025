import json
import subprocess
import sys

import keras
import pytest

from benchmarks import runner, train_step_ours
from tfadv.models.decoder import Decoder
from tfadv.models.encoder import Encoder

FIELDS = ["what", "size", "batch", "precision", "ours", "ours_spread", "ours_mib", "gmacs"]


@pytest.fixture
def restored_policy():
    policy = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(policy)


def test_without_a_peer_our_side_is_timed_alone(tmp_path):
    options = {"what": "attack", "sizes": 32, "precisions": "float32", "batch": 2, "steps": 1}
    options |= {"matrix_side": 512, "rounds": 1, "json": tmp_path / "rows.json"}
    command = runner.python_module("benchmarks.train_step", sys.executable, **options)
    done = subprocess.run(command, cwd=runner.ROOT, check=True, capture_output=True, text=True)
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert list(row) == [*FIELDS, "of_limit"]
    assert row["ours"] > 0
    assert row["of_limit"] > 0
    assert "of_limit" in done.stdout


@pytest.mark.parametrize("precision", train_step_ours.PRECISIONS)
@pytest.mark.parametrize("what", train_step_ours.STEPS)
def test_each_step_is_timed_in_each_precision(what, precision, restored_policy):
    config = train_step_ours.make_config(32, 2, precision, depth=18, width=0.1)
    row = train_step_ours.measure(what, config, steps=1)
    assert row["images_per_s"] == 2 / row["step_s"]
    assert row["gmacs"] > 0
    assert keras.config.dtype_policy().name == precision


def test_multiply_adds_of_resnet50_are_those_of_the_literature():
    encoder = Encoder(50, dtype="float32")
    encoder.build((None, 224, 224, 3))
    assert train_step_ours.forward_multiply_adds(encoder) == pytest.approx(4.09e9, rel=0.01)


def test_multiply_adds_of_the_decoder_by_hand():
    decoder = Decoder((1000,), 64, dtype="float32")
    decoder.build((None, 1000))
    linear = 1000 * 2048 + 2048 * 2048 * 2**2
    sides, widths = (2, 4, 8, 16, 32), (2048, 1024, 512, 256, 64, 3)
    pairs = zip(sides, widths[:-1], widths[1:], strict=True)
    transposed = sum(side**2 * 9 * inputs * outputs for side, inputs, outputs in pairs)
    assert train_step_ours.forward_multiply_adds(decoder) == linear + transposed
