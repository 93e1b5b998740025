import json
import subprocess
import sys
from pathlib import Path

import cv2

from benchmarks import celeba_files
from data_prep import celeba

ROOT = Path(__file__).parents[2]
FIELDS = {"what", "images", "ours", "peer", "ratio", "ours_spread", "peer_spread"}


def test_preparation_is_compared_with_copying_on_a_source_and_on_a_quarter_of_the_source(tmp_path):
    arguments = ["--images=200", "--rounds=1", f"--json={tmp_path / 'rows.json'}"]
    command = [sys.executable, "-m", "benchmarks.data_prep", *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["images"] for row in rows] == [50, 200]
    for row in rows:
        assert set(row) == FIELDS | {"ours_peak_mib", "peer_peak_mib"}
        assert row["ours"] > 0
        assert row["ours_peak_mib"] > 0
    assert "prepare" in done.stdout


def test_synthetic_files_are_a_source_with_the_image_and_file_sizes_of_celeba(tmp_path):
    celeba_files.write_synthetic(tmp_path, 20)
    source = celeba.read_source(tmp_path, "identity")
    assert len(source.names) == 20
    paths = [source.root / name for name in source.names]
    assert {cv2.imread(str(path)).shape for path in paths} == {(218, 178, 3)}
    assert 6_000 < sum(path.stat().st_size for path in paths) / 20 < 8_000
