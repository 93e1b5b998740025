"""Times the training steps against the same networks and updates in plain PyTorch.

    python -m benchmarks.train_step [--sizes=64,128,224] [--precisions=float32,mixed_bfloat16]
        [--what=protect,attack,attack_all] [--rounds=3] [--json=FILE] [--peer_python=PYTHON]

PYTHON is a Python that can import torch; without it, only tfadv's side is timed. A row has `ours`
and `peer` in images/s (a protect step counts its private images), their `ratio`, the spread over
the rounds, and the peak memory. `of_limit` is the rate of the step's multiply-adds (`gmacs`, 1e9)
as a share of the rate of a large matrix product on this machine in the same precision.

All rows take hours and 10 GB on two cores; `--what=protect --sizes=64` takes some ten minutes.
FILE is written after each row.
"""

import itertools
import sys

from absl import flags

from benchmarks import runner
from benchmarks.train_step_ours import PRECISIONS, STEPS

FLAGS = flags.FLAGS
BATCHES = {64: 64, 128: 32, 224: 16}


def main() -> None:
    """Prints and writes the table."""
    if FLAGS.peer_python:
        runner.run([FLAGS.peer_python, "-c", "import torch; print(0)"])
    limits = runner.run(runner.python_module("benchmarks.matrix_product", side=FLAGS.matrix_side))
    rows = []
    for setting in itertools.product(FLAGS.what, map(int, FLAGS.sizes), FLAGS.precisions):
        rows.append(measure(*setting, limits))
        runner.save(rows, FLAGS.json)
    runner.report(rows, FLAGS.json)


def measure(what: str, size: int, precision: str, limits: dict[str, float]) -> dict[str, object]:
    """Returns one row."""
    batch = FLAGS.batch or BATCHES.get(size, 16)
    setting = {"what": what, "size": size, "batch": batch, "precision": precision}
    options = setting | {"steps": FLAGS.steps}
    commands = {"ours": runner.python_module("benchmarks.train_step_ours", **options)}
    if FLAGS.peer_python:
        commands["peer"] = runner.python_module(
            "benchmarks.peer_torch", FLAGS.peer_python, **options
        )
    print(f"{what}, {size} px, batch {batch}, {precision}", file=sys.stderr)
    results = runner.alternate(commands, FLAGS.rounds)
    row = setting | runner.compare(results, "images_per_s")
    for side, outcomes in results.items():
        row[f"{side}_mib"] = max(outcome["peak_mib"] for outcome in outcomes)
    row["gmacs"] = results["ours"][0]["gmacs"]
    step_s = batch / row["ours"]
    row["of_limit"] = 2 * row["gmacs"] / step_s / limits[precision]
    return row


if __name__ == "__main__":
    flags.DEFINE_list("what", list(STEPS), "Steps to time.")
    flags.DEFINE_list("sizes", list(map(str, BATCHES)), "Sides of the images in pixels.")
    flags.DEFINE_list("precisions", list(PRECISIONS), "Precisions of the networks.")
    for name, values in {"what": STEPS, "precisions": PRECISIONS}.items():
        flags.register_validator(
            name,
            lambda chosen, values=values: set(chosen) <= set(values),
            message=f"must be some of {', '.join(values)}",
        )
    flags.register_validator(
        "sizes",
        lambda chosen: all(size.isdecimal() and int(size) % 32 == 0 for size in chosen),
        message="must be multiples of 32",
    )
    flags.DEFINE_integer("batch", 0, "Images; 0: 64, 32 or 16 by size.", lower_bound=0)
    flags.DEFINE_integer("steps", 6, "Steps to take the median of.", lower_bound=1)
    flags.DEFINE_integer("matrix_side", 0, "Side of the matrix product; 0: by device.")
    flags.DEFINE_string("peer_python", None, "A Python with PyTorch.")
    runner.define_common_flags(rounds=3)
    runner.start(main)
