"""Runs benchmarks in fresh processes in turn; reports medians and spreads as a table and JSON."""

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from absl import app, flags

flags.disclaim_key_flags()  # --help lists flags defined here under the calling program
ROOT = Path(__file__).parent.parent


class BenchmarkError(RuntimeError):
    """A measured program failed; the message holds the end of its error output."""


def alternate(commands: Mapping[str, Sequence[str]], rounds: int) -> dict[str, list[dict]]:
    """Runs commands in turn (A B A B ...), each time in a fresh process.

    Whatever slows the machine down for a while then affects all commands.

    Args:
        commands: name -> arguments of a program whose last line of output is a JSON object.
        rounds: runs of each command.

    Returns:
        name -> one object for each round.

    Raises:
        BenchmarkError: a program failed.
    """
    results = {name: [] for name in commands}
    for done in range(rounds):
        for name, command in commands.items():
            print(f"round {done + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
            results[name].append(run(command))
    return results


def run(command: Sequence[str]) -> dict:
    """Runs one program; returns the JSON object in its last line of output."""
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2"} | os.environ
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if process.returncode:
        errors = process.stderr.strip()[-2000:]
        raise BenchmarkError(f"{' '.join(command)} ended with {process.returncode}:\n{errors}")
    return json.loads(process.stdout.strip().splitlines()[-1])


def python_module(name: str, python: str = sys.executable, **options) -> list[str]:
    """Returns the command that runs a module with `--name=value` for each option."""
    return [python, "-m", name, *(f"--{key}={value}" for key, value in options.items())]


def summary(values: Sequence[float]) -> tuple[float, float]:
    """Returns the median, and the spread: (largest - smallest) / median."""
    median = statistics.median(values)
    return median, (max(values) - min(values)) / median


def compare(results: Mapping[str, list[dict]], field: str) -> dict[str, float]:
    """Compares "ours" with "peer" in a field where more is better; "peer" may be absent.

    Returns:
        `ours`, `peer`: medians; `ratio`: of the medians; `ours_spread`, `peer_spread`: see
        `summary`.
    """
    row, spreads = {}, {}
    for side, outcomes in results.items():
        row[side], spreads[f"{side}_spread"] = summary([outcome[field] for outcome in outcomes])
    if "peer" in row:
        row["ratio"] = row["ours"] / row["peer"]
    return row | spreads


def report(rows: Sequence[Mapping[str, object]], path: str | None) -> None:
    """Prints rows as a table, and writes them as JSON if `path` is given."""
    save(rows, path)
    print(f"\n{machine()}\n")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns] + [[_format(row.get(name, "")) for name in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))


def save(rows: Sequence[Mapping[str, object]], path: str | None) -> None:
    """Writes rows as JSON if `path` is given."""
    if path:
        Path(path).write_text(json.dumps(rows, indent=1) + "\n")


def machine() -> str:
    """Describes this machine in one line."""
    model = platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(
            (line.split(": ")[1] for line in lines if line.startswith("model name")), model
        )
    return f"{cores()} cores of {model}, Python {platform.python_version()}"


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def peak_memory() -> float:
    """Returns the peak memory of this process in MiB."""
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def define_common_flags(rounds: int) -> None:
    """Defines --rounds and --json."""
    flags.DEFINE_integer("rounds", rounds, "Fresh processes of each side.", lower_bound=1)
    flags.DEFINE_string("json", None, "File to write the rows to.")


def start(program: Callable[[], None]) -> None:
    """Parses the flags and runs a benchmark; ends with a message if a measured program fails."""

    def main(_) -> None:
        try:
            program()
        except BenchmarkError as error:
            sys.exit(str(error))

    app.run(main)


def _format(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
