"""Times the input pipeline against bare decoding, and training against training from memory.

    python -m benchmarks.input_pipeline [--what=training_batches,batches,protect]
        [--data_dir=DIR --dataset=NAME] [--json=FILE] [--rounds=N]

Our side reads records from the disk, parses, decodes, crops, resizes, batches and normalises them:
shuffled in the row `training_batches`, in order in the row `batches`. The peer only decodes the
same bytes from memory with `cv2.imdecode`, in as many threads as there are cores. The row `protect`
trains the paper's networks; its peer repeats one batch from memory. Without `--data_dir`, synthetic
faces of CelebA's size are prepared first.
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
            dataset = _prepare_synthetic(Path(folder))
        names = ("size", "batch", "images", "steps", "depth", "width")
        options = {name: FLAGS[name].value for name in names}
        options |= {"data_dir": data_dir, "dataset": dataset}
        commands = {
            what: runner.python_module("benchmarks.input_pipeline_side", what=what, **options)
            for what in dict.fromkeys(side for row in FLAGS.what for side in (row, PEERS[row]))
        }
        results = runner.alternate(commands, FLAGS.rounds)
    rows = [
        {"what": what, "size": FLAGS.size}
        | runner.compare({"ours": results[what], "peer": results[PEERS[what]]}, "images_per_s")
        for what in FLAGS.what
    ]
    runner.report(rows, FLAGS.json)


def _prepare_synthetic(folder: Path) -> str:
    """Prepares synthetic faces, most of them in the split that is read; returns their name."""
    celeba_files.write_synthetic(folder / "source", FLAGS.images)
    command = runner.python_module(
        "data_prep.celeba", source=folder / "source", data_dir=folder, shares="0.8,0.1,0.1"
    )
    subprocess.run(command, cwd=runner.ROOT, check=True, capture_output=True)
    return "celeba/identity_80_10_10"


if __name__ == "__main__":
    runner.define_common_flags(rounds=5)
    flags.DEFINE_list("what", list(PEERS), "Rows to time.")
    flags.register_validator(
        "what",
        lambda chosen: set(chosen) <= set(PEERS),
        message=f"must be some of {', '.join(PEERS)}",
    )
    flags.DEFINE_integer("size", 64, "Side of the images in pixels.")
    flags.DEFINE_string("data_dir", None, "Folder of a dataset; without it, synthetic faces.")
    flags.DEFINE_string("dataset", None, "The dataset's name.")
    flags.register_multi_flags_validator(
        ["data_dir", "dataset"],
        lambda given: (given["data_dir"] is None) == (given["dataset"] is None),
        message="must be given together",
    )
    flags.DEFINE_integer("images", 4096, "Images to prepare and to time.", lower_bound=200)
    flags.DEFINE_integer("batch", 64, "Images in a training batch.", lower_bound=1)
    flags.DEFINE_integer("steps", 2, "Training steps in each of four passes.", lower_bound=1)
    flags.DEFINE_integer("depth", 50, "Depth of the ResNet; the paper's is 50.")
    flags.DEFINE_float("width", 1.0, "Width of the networks; the paper's is 1.")
    runner.start(main)
