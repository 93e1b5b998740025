"""How fast pictures become TFRecords, beside copying the same bytes.

    python -m benchmarks.data_prep [--source=CELEBA] [--json=FILE] [--rounds=N]

Ours is `data_prep.celeba`: lists read, pictures checked, examples encoded, splits and metadata. The
peer reads the same files and writes their bytes to as many TFRecord files; it does nothing else.
Both are timed without the import of TensorFlow, on all of the source and on a quarter of it, which
shows whether memory grows with the source. Without `--source`, faces of CelebA's size are drawn.
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
            celeba_files.draw(whole, FLAGS.pictures)
        celeba_files.cut(whole, folder / "quarter", share=0.25)
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
    row = {"what": "prepare", "pictures": results["ours"][0]["pictures"]}
    return row | runner.compare(results, "pictures_per_s") | peaks


if __name__ == "__main__":
    runner.define_common_flags(rounds=3)
    flags.DEFINE_string("source", None, "Folder with CelebA's official files.")
    flags.DEFINE_integer("pictures", 16_384, "Faces to draw.", lower_bound=200)
    runner.start(main)
