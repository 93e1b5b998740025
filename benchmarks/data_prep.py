"""Times the preparation of TFRecords against copying the same bytes.

    python -m benchmarks.data_prep [--source=CELEBA] [--json=FILE] [--rounds=N]

Our side is `data_prep.celeba`: it reads the lists, checks the images, encodes the examples, and
writes splits and metadata. The peer only copies the bytes of the same files into as many TFRecord
files. Both are timed without the import of TensorFlow, on the whole source and on a quarter of it:
that shows whether memory grows with the source. Without `--source`, synthetic faces of CelebA's
size are prepared.
"""

import tempfile
from pathlib import Path

from absl import flags

from benchmarks import celeba_files, runner

FLAGS = flags.FLAGS


def main() -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = Path(FLAGS.source) if FLAGS.source else folder / "whole"
        if not FLAGS.source:
            celeba_files.write_synthetic(whole, FLAGS.images)
        celeba_files.link_share(whole, folder / "quarter", share=0.25)
        rows = [_compare(source) for source in (folder / "quarter", whole)]
    runner.report(rows, FLAGS.json)


def _compare(source: Path) -> dict[str, object]:
    sides = {"ours": "prepare", "peer": "copy"}
    commands = {
        side: runner.python_module("benchmarks.data_prep_side", what=what, source=source)
        for side, what in sides.items()
    }
    results = runner.alternate(commands, FLAGS.rounds)
    peaks = {f"{side}_peak_mib": max(r["peak_mib"] for r in results[side]) for side in sides}
    row = {"what": "prepare", "images": results["ours"][0]["images"]}
    return row | runner.compare(results, "images_per_s") | peaks


if __name__ == "__main__":
    runner.define_common_flags(rounds=3)
    flags.DEFINE_string("source", None, "Folder with CelebA's official files.")
    flags.DEFINE_integer("images", 16_384, "Synthetic faces to prepare.", lower_bound=200)
    runner.start(main)
