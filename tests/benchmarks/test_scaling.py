import json
import subprocess
import sys

import pytest

from benchmarks import runner
from tfadv.models.decoder import Decoder


def test_a_protect_step_is_timed_on_two_devices():
    options = {"what": "protect", "size": 32, "depth": 18, "width": 0.1, "devices": 2}
    options |= {"batch": 4, "steps": 1}
    result = runner.run(runner.python_module("benchmarks.scaling_side", sys.executable, **options))
    assert result["images_per_s"] > 0
    assert result["reductions"] > 0


@pytest.mark.slow
def test_two_devices_bring_the_gradients_of_all_weights_together(tmp_path):
    options = {"what": "attack", "sizes": 32, "depths": 18, "width": 0.1, "devices": 2}
    options |= {"batch": 4, "steps": 1, "rounds": 1, "json": tmp_path / "rows.json"}
    command = runner.python_module("benchmarks.scaling", sys.executable, **options)
    subprocess.run(command, cwd=runner.ROOT, check=True, capture_output=True)
    one, two = json.loads((tmp_path / "rows.json").read_text())
    assert (one["devices"], two["devices"]) == (1, 2)
    assert (one["ratio"], one["of_shares"], one["reductions"]) == (1, 1, 0)
    assert two["ratio"] == two["images_per_s"] / one["images_per_s"]
    decoder = Decoder((1000,), 32, width=0.1)
    decoder.build((None, 1000))
    weights = decoder.trainable_weights
    gradients = 4 * sum(variable.value.shape.num_elements() for variable in weights)
    # Statistics of batch normalisation and losses come on top.
    assert gradients < two["reduced_mib"] * 2**20 < 1.05 * gradients
