"""Times a step on 2 and 4 logical devices of one CPU against one, at the same batch in all.

    python -m benchmarks.scaling [--what=protect,attack] [--sizes=64] [--depths=18,50]
        [--width=1] [--batch=64] [--devices=2,4] [--precisions=float32] [--synchronised]
        [--rounds=3] [--json=FILE]

The cores are the same, so that without overhead the `ratio` would be 1. A step has a part that
doesn't depend on its pictures (weights to update, kernels' gradients to write), which every device
does for itself, so here N times: `of_shares` compares with as many steps of one device on a share
of the batch, and tells what dividing the work costs on top. `reduced_mib` is what the replicas
bring together in a step: gradients, the statistics of batch normalisation, losses.
"""

import sys

from absl import flags

from benchmarks import runner
from benchmarks.runner import python_module

FLAGS = flags.FLAGS
flags.DEFINE_list("what", ["protect", "attack"], "Steps to time.")
flags.DEFINE_list("sizes", ["64"], "Sides of the pictures in pixels.")
flags.DEFINE_list("depths", ["18", "50"], "Of the ResNet.")
flags.DEFINE_float("width", 1.0, "Of the networks.")
flags.DEFINE_list("devices", ["2", "4"], "How many against one.")
flags.DEFINE_list("precisions", ["float32"], "Of the networks.")
flags.DEFINE_bool("synchronised", False, "Whether BN sees the whole batch.")
flags.DEFINE_integer("batch", 64, "Pictures, a multiple of the devices.", lower_bound=1)
flags.DEFINE_integer("steps", 6, "Steps that a process takes the median of.", lower_bound=1)
runner.define_common_flags(rounds=3)


def main() -> None:
    """Prints and writes the table."""
    rows = []
    for what in FLAGS.what:
        for size in FLAGS.sizes:
            for depth in FLAGS.depths:
                for precision in FLAGS.precisions:
                    setting = {"what": what, "size": size, "depth": depth, "precision": precision}
                    rows += measure(setting)
                    runner.save(rows, FLAGS.json)
    runner.report(rows, FLAGS.json)


def measure(setting: dict[str, str]) -> list[dict[str, object]]:
    """Returns a row for each number of devices."""
    options = setting | {
        "width": FLAGS.width,
        "steps": FLAGS.steps,
        "synchronised": FLAGS.synchronised,
    }
    commands = {}
    for count in (1, *map(int, FLAGS.devices)):
        for devices in {1, count}:
            batch = FLAGS.batch * devices // count
            commands[devices, batch] = python_module(
                "benchmarks.scaling_side", devices=devices, batch=batch, **options
            )
    print(", ".join(setting.values()), file=sys.stderr)
    results = runner.alternate(commands, FLAGS.rounds)
    rates = {
        key: runner.summary([each["images_per_s"] for each in outcomes])
        for key, outcomes in results.items()
    }
    rows = []
    for count in (1, *map(int, FLAGS.devices)):
        rate, spread = rates[count, FLAGS.batch]
        first = results[count, FLAGS.batch][0]
        rows.append(
            setting
            | {"batch": FLAGS.batch, "devices": count, "images_per_s": rate, "spread": spread}
            | {
                "ratio": rate / rates[1, FLAGS.batch][0],
                "of_shares": rate / rates[1, FLAGS.batch // count][0],
            }
            | {name: first[name] for name in ("reductions", "reduced_mib", "peak_mib")}
        )
    return rows


if __name__ == "__main__":
    runner.start(main)
