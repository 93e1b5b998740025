"""How fast pictures are read, beside bare decoding, and whether training waits for them.

    python -m benchmarks.input_pipeline [--data_dir=DIR --dataset=NAME] [--json=FILE] [--rounds=N]

Ours is what training waits for: records from the disk, parsed, decoded, cut, resized, batched and
normalised; shuffled in `training_batches`, in order in `batches`. The peer is `cv2.imdecode` of the
same bytes, held in memory, in as many threads as there are cores; it does nothing else. The row
`protect` is training with the paper's networks, its peer the same with one batch kept in memory.
Without `--data_dir`, faces of CelebA's size are drawn first.
"""

import subprocess
import tempfile
from pathlib import Path

from absl import flags

from benchmarks import celeba_files, runner

FLAGS = flags.FLAGS
PEERS = {"training_batches": "decode", "batches": "decode", "protect": "protect_in_memory"}


def main() -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        data_dir, dataset = FLAGS.data_dir or folder, FLAGS.dataset
        if FLAGS.data_dir is None:
            dataset = _draw(Path(folder))
        options = {"data_dir": data_dir, "dataset": dataset, "size": FLAGS.size}
        options |= {"batch": FLAGS.batch, "pictures": FLAGS.pictures}
        options |= {"steps": FLAGS.steps, "width": FLAGS.width}
        commands = {
            what: runner.python_module("benchmarks.input_pipeline_side", what=what, **options)
            for what in dict.fromkeys(side for pair in PEERS.items() for side in pair)
        }
        results = runner.alternate(commands, FLAGS.rounds)
    rows = [
        {"what": what, "size": FLAGS.size}
        | runner.compare({"ours": results[what], "peer": results[peer]}, "pictures_per_s")
        for what, peer in PEERS.items()
    ]
    runner.report(rows, FLAGS.json)


def _draw(folder: Path) -> str:
    """Prepares drawn faces, most of them in the split that is read; returns the set's name."""
    celeba_files.draw(folder / "source", FLAGS.pictures)
    command = runner.python_module(
        "data_prep.celeba", source=folder / "source", data_dir=folder, shares="0.8,0.1,0.1"
    )
    subprocess.run(command, cwd=runner.ROOT, check=True, capture_output=True)
    return "celeba/identity_80_10_10"


if __name__ == "__main__":
    runner.define_common_flags(rounds=5)
    flags.DEFINE_integer("size", 64, "Side of the pictures in pixels.")
    flags.DEFINE_string("data_dir", None, "Folder of a prepared dataset; by default one is drawn.")
    flags.DEFINE_string("dataset", None, "The dataset's name.")
    flags.register_multi_flags_validator(
        ["data_dir", "dataset"],
        lambda given: (given["data_dir"] is None) == (given["dataset"] is None),
        message="go together",
    )
    flags.DEFINE_integer(
        "pictures", 4096, "Pictures to draw, and to time at most.", lower_bound=1000
    )
    flags.DEFINE_integer("batch", 64, "Pictures in a training batch.", lower_bound=1)
    flags.DEFINE_integer(
        "steps", 2, "Training steps in a pass; there are four passes.", lower_bound=1
    )
    flags.DEFINE_float("width", 1.0, "Of the networks that are trained; the paper's have 1.")
    runner.start(main)
