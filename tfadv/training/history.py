"""The record of a training: rows in a file, and a progress line on the terminal."""

import datetime
import json
import math
import os
import sys
import time
from pathlib import Path


class History:
    """Logged values, one row per logged step, in a JSON-lines file that survives a restart.

    Args:
        path: the file.
        step: the step that training resumes at; later rows are dropped, and logged again.

    Attributes:
        rows: the steps and their values.
    """

    def __init__(self, path: Path, step: int):
        self._path = path
        # A killed process may have left half a line at the end.
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
        """Returns the steps at which a value was logged, and the values."""
        rows = [row for row in self.rows if name in row]
        return [row["step"] for row in rows], [row[name] for row in rows]


class Progress:
    """A line with steps, losses, images/s and ETA: kept up to date on a terminal, rare in a log.

    Args:
        title: what the line begins with.
        steps: number of the last step.
        start: the step that work starts at.
        may_stop_early: whether work may end before the last step: the ETA is then an upper limit.
    """

    def __init__(self, title: str, steps: int, start: int, may_stop_early: bool = False):
        self._title, self._steps = title, steps
        self._eta = "ETA at most" if may_stop_early else "ETA"
        self._first = None  # the first step shown, and when
        self._shown = -math.inf
        self._is_terminal = sys.stderr.isatty()
        if start:
            print(f"{title}: resuming at step {start:,} of {steps:,}", file=sys.stderr, flush=True)

    def show(self, step: int, measured: dict[str, float], images_per_s: float) -> None:
        """Writes the line; in a log at most every 10 s."""
        now = time.monotonic()
        self._first = self._first or (step, now)
        if not self._is_terminal and now - self._shown < 10 and step < self._steps:
            return
        self._shown = now
        losses = "  ".join(f"{name} {value:.4f}" for name, value in measured.items())
        line = f"{self._title}  {step:,}/{self._steps:,}  {losses}  {images_per_s:,.0f} images/s"
        line += self._time_left(step, now)
        if self._is_terminal:
            width = os.get_terminal_size(sys.stderr.fileno()).columns
            print(f"\r\033[K{line[: width - 1]}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def _time_left(self, step: int, now: float) -> str:
        """Returns the ETA, by the speed since the first call: the steps before it also compile."""
        if step >= self._steps:
            return "  ETA 0:00:00"
        first, began = self._first
        if step <= first:
            return ""
        left = (now - began) * (self._steps - step) / (step - first)
        return f"  {self._eta} {datetime.timedelta(seconds=round(left))}"

    def close(self) -> None:
        """Ends the line."""
        if self._is_terminal:
            print(file=sys.stderr, flush=True)
