import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
KILLS = 20


@pytest.mark.slow
def test_training_killed_at_random_moments_ends_with_the_very_same_weights(tmp_path):
    command = [sys.executable, "-m", "tests.killed", str(tmp_path), str(KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == f"killed {KILLS}\n", done.stderr[-2000:]
    whole, killed = (np.load(tmp_path / name / "weights.npz") for name in ("whole", "killed"))
    assert whole.files == killed.files
    for name in whole.files:
        np.testing.assert_array_equal(whole[name], killed[name])
    rows, killed_rows = (
        [
            {name: value for name, value in json.loads(line).items() if name != "images_per_s"}
            for line in (tmp_path / name / "history.jsonl").read_text().splitlines()
        ]
        for name in ("whole", "killed")
    )
    assert rows == killed_rows
