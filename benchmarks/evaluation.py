"""Times each part of evaluation against a plain version on scikit-image, scikit-learn and SciPy.

    python -m benchmarks.evaluation [--json=FILE] [--rounds=N]

The generated data has the size of the results in docs/: 2,020 test images of 404 people, 3,635
public images to learn from, 405 held-out images, and 1,000 features. Nothing is downloaded. Rates
are images per second; more is better. `difference` is the absolute difference of the two sides'
results. The reference needs scikit-image, which the extra `dev` installs.
"""

from absl import flags

from benchmarks import runner

FLAGS = flags.FLAGS
WHAT = {
    "ssim": "SSIM",
    "psnr": "PSNR",
    "mcc": "MCC of 40 attributes",
    "tuned_thresholds": "thresholds of 40 attributes",
    "identify": "re-identification, verification",
    "bootstrap": "bootstrap interval of a mean",
    "ridge": "ridge decoder",
    "linkage": "linkage",
}


def main() -> None:
    """Prints a table."""
    sizes = {name: FLAGS[name].value for name in ("people", "features", "size")}
    commands = {
        side: runner.python_module("benchmarks.evaluation_side", side=side, **sizes)
        for side in ("ours", "peer")
    }
    results = runner.alternate(commands, FLAGS.rounds)
    runner.report([row(part, results) for part in WHAT], FLAGS.json)


def row(part: str, results: dict[str, list[dict]]) -> dict[str, object]:
    """Compares the two sides in one part."""
    outcomes = {side: [outcome[part] for outcome in rounds] for side, rounds in results.items()}
    ours, peer = (outcomes[side][0]["result"] for side in ("ours", "peer"))
    compared = runner.compare(outcomes, "images_per_s")
    return {"what": WHAT[part], **compared, "difference": abs(ours - peer)}


if __name__ == "__main__":
    from benchmarks import evaluation_side

    flags.adopt_module_key_flags(evaluation_side)  # --help lists its flags
    runner.define_common_flags(rounds=3)
    runner.start(main)
