"""Times each part of evaluation against a plain version on scikit-image, scikit-learn and SciPy.

    python -m benchmarks.evaluation [--json=FILE] [--rounds=N]

Generated data of the size of the results in docs/ (2,020 test pictures of 404 people, 3,635 public
ones to learn from and 405 held out, 1,000 features); nothing is downloaded. Rates are pictures a
second, more is better; `difference` is how far the two sides' results are apart. The reference
needs scikit-image, of the extra `dev`.
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
    "ridge": "ridge decoder, 29 strengths",
    "linkage": "linkage, 168 metrics",
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
    of_part = {side: [each[part] for each in found] for side, found in results.items()}
    ours, peer = (found[0]["result"] for found in of_part.values())
    compared = runner.compare(of_part, "pictures_per_s")
    return {"what": WHAT[part], **compared, "difference": abs(ours - peer)}


if __name__ == "__main__":
    from benchmarks import evaluation_side

    flags.adopt_module_key_flags(evaluation_side)  # they set the sizes
    runner.define_common_flags(rounds=3)
    runner.start(main)
