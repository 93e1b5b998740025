"""Times a step on 2 and 4 logical devices of one CPU against one device, with the same total batch.

    python -m benchmarks.scaling [--what=protect,attack] [--sizes=64] [--depths=18,50]
        [--width=1] [--batch=64] [--devices=2,4] [--precisions=float32] [--synchronised]
        [--rounds=3] [--json=FILE]

All devices share the same cores, so `ratio` would be 1 without overhead. Part of a step does not
depend on the images: the weight updates and the kernel gradients. Each of N devices does that part
itself. `of_shares` therefore compares with N steps of one device on an Nth of the batch: it shows
what the division adds. `reduced_mib` is what the replicas reduce in a step: gradients,
batch-norm statistics and losses.
"""

import itertools
import sys

from absl import flags

from benchmarks import runner

FLAGS = flags.FLAGS


def main() -> None:
    """Prints and writes the table."""
    rows = []
    names = ("what", "size", "depth", "precision")
    settings = itertools.product(FLAGS.what, FLAGS.sizes, FLAGS.depths, FLAGS.precisions)
    for values in settings:
        rows += measure(dict(zip(names, values, strict=True)))
        runner.save(rows, FLAGS.json)
    runner.report(rows, FLAGS.json)


def measure(setting: dict[str, str]) -> list[dict[str, object]]:
    """Returns a row for each number of devices."""
    options = setting | {name: FLAGS[name].value for name in ("width", "steps", "synchronised")}
    counts = (1, *map(int, FLAGS.devices))
    commands = {}
    for count in counts:
        for devices in {1, count}:
            batch = FLAGS.batch * devices // count
            commands[devices, batch] = runner.python_module(
                "benchmarks.scaling_side", devices=devices, batch=batch, **options
            )
    print(", ".join(setting.values()), file=sys.stderr)
    results = runner.alternate(commands, FLAGS.rounds)
    summaries = {
        key: runner.summary([outcome["images_per_s"] for outcome in outcomes])
        for key, outcomes in results.items()
    }
    rows = []
    for count in counts:
        rate, spread = summaries[count, FLAGS.batch]
        first = results[count, FLAGS.batch][0]
        rows.append(
            {
                **setting,
                "batch": FLAGS.batch,
                "devices": count,
                "images_per_s": rate,
                "spread": spread,
                "ratio": rate / summaries[1, FLAGS.batch][0],
                "of_shares": rate / summaries[1, FLAGS.batch // count][0],
                **{name: first[name] for name in ("reductions", "reduced_mib", "peak_mib")},
            }
        )
    return rows


if __name__ == "__main__":
    flags.DEFINE_list("what", ["protect", "attack"], "Steps to time.")
    flags.DEFINE_list("sizes", ["64"], "Sides of the images in pixels.")
    flags.DEFINE_list("depths", ["18", "50"], "Depths of the ResNet.")
    flags.DEFINE_float("width", 1.0, "Width of the networks.")
    flags.DEFINE_list("devices", ["2", "4"], "Numbers of devices to compare with one.")
    flags.DEFINE_list("precisions", ["float32"], "Precisions of the networks.")
    flags.DEFINE_bool("synchronised", False, "Whether batch norm sees the whole batch.")
    flags.DEFINE_integer("batch", 64, "Images, a multiple of the devices.", lower_bound=1)
    flags.DEFINE_integer("steps", 6, "Steps to take the median of.", lower_bound=1)
    runner.define_common_flags(rounds=3)
    runner.start(main)
