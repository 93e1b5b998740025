"""What a training leaves to be read: rows in a file, and a line on the terminal."""

import datetime
import json
import math
import os
import sys
import time
from pathlib import Path


class History:
    """What was measured, row by row, in a file that survives a restart.

    Rows after the step at which training goes on are dropped: they are measured again.
    """

    def __init__(self, path: Path, step: int):
        self._path = path
        # A kill can cut the last line short: only a line with its end is whole.
        lines = path.read_text().split("\n")[:-1] if path.exists() else ()
        self.rows = [row for row in map(json.loads, lines) if row["step"] <= step]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))

    def add(self, step: int, measured: dict[str, float]) -> None:
        """Appends one row."""
        self.rows.append({"step": step} | measured)
        with self._path.open("a") as file:
            file.write(json.dumps(self.rows[-1]) + "\n")

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """Returns the steps at which something was measured, and its values."""
        rows = [row for row in self.rows if name in row]
        return [row["step"] for row in rows], [row[name] for row in rows]


class Progress:
    """Steps, losses, pictures/s and ETA: one line on a terminal, one now and then in a log."""

    def __init__(self, title: str, steps: int, start: int):
        self._title, self._steps, self._start = title, steps, start
        self._began, self._shown = time.monotonic(), -math.inf
        self._is_terminal = sys.stderr.isatty()
        if start:
            print(f"{title}: resuming at step {start:,} of {steps:,}", file=sys.stderr, flush=True)

    def show(self, step: int, measured: dict[str, float], images_per_s: float) -> None:
        """Writes the line, at most every 10 s into a log."""
        now = time.monotonic()
        if not self._is_terminal and now - self._shown < 10 and step < self._steps:
            return
        self._shown = now
        left = (now - self._began) * (self._steps - step) / (step - self._start)
        losses = "  ".join(f"{name} {value:.4f}" for name, value in measured.items())
        line = (
            f"{self._title}  {step:,}/{self._steps:,}  {losses}  {images_per_s:,.0f} images/s  "
            f"ETA {datetime.timedelta(seconds=round(left))}"
        )
        if self._is_terminal:
            width = os.get_terminal_size(sys.stderr.fileno()).columns
            print(f"\r\033[K{line[: width - 1]}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the line."""
        if self._is_terminal:
            print(file=sys.stderr, flush=True)
