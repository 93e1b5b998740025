import json
import subprocess
import sys

import pytest

from benchmarks import runner
from benchmarks.evaluation import WHAT

FIELDS = ["what", "ours", "peer", "ratio", "ours_spread", "peer_spread", "difference"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmark") / "rows.json"
    options = {"people": 20, "features": 30, "size": 16, "rounds": 1, "json": path}
    command = runner.python_module("benchmarks.evaluation", sys.executable, **options)
    subprocess.run(command, cwd=runner.ROOT, check=True, capture_output=True)
    return json.loads(path.read_text())


def test_each_part_has_a_row_with_the_rates_of_both_sides(rows):
    assert [row["what"] for row in rows] == list(WHAT.values())
    for row in rows:
        assert list(row) == FIELDS
        assert row["ours"] > 0
        assert row["ratio"] == pytest.approx(row["ours"] / row["peer"])


def test_both_sides_compute_the_same_results(rows):
    differences = {row["what"]: row["difference"] for row in rows}
    # The two sides draw other resamples, and differ slightly in thresholds and strengths.
    assert differences.pop(WHAT["bootstrap"]) < 0.05
    assert differences.pop(WHAT["identify"]) < 0.02  # the peer does not interpolate EER
    assert differences.pop(WHAT["tuned_thresholds"]) < 1e-3
    assert max(differences.values()) < 1e-3, differences
