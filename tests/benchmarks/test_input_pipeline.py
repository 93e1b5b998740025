import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FIELDS = {"what", "size", "ours", "peer", "ratio", "ours_spread", "peer_spread"}


def test_reading_is_compared_with_decoding_and_with_memory(tiny_faces, tmp_path):
    arguments = [
        f"--data_dir={tiny_faces.dir}",
        f"--dataset={tiny_faces.dataset}",
        "--size=32",
        "--batch=16",
        "--rounds=1",
        "--steps=1",
        "--width=0.1",
        f"--json={tmp_path / 'rows.json'}",
    ]
    command = [sys.executable, "-m", "benchmarks.input_pipeline", *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["what"] for row in rows] == ["training_batches", "batches", "protect"]
    for row in rows:
        assert set(row) == FIELDS
        assert row["size"] == 32
        assert row["ours"] > 0
        assert row["peer"] > 0
        assert row["what"] in done.stdout
