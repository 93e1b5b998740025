"""The loop: steps under one tf.function, checkpoints, resume, TensorBoard, a progress line.

It knows nothing of privacy: a model has `measurements`, the names of the scalars that its
`train_step` returns, and everything else is passed in.
"""

import datetime
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfadv import distribution
from tfadv.config import Runtime, Train, UserError
from tfadv.fused_adam import FusedAdam

CPU_INFO = Path("/proc/cpuinfo")


class TrainingError(UserError):
    """Training cannot go on; the message says what to try."""


def set_up(runtime: Runtime) -> str:
    """Applies seed, determinism and precision to this process; returns the precision chosen."""
    keras.utils.set_random_seed(runtime.seed)
    if runtime.deterministic:
        tf.config.experimental.enable_op_determinism()
    precision = runtime.precision
    if precision == "auto":
        precision = "mixed_bfloat16" if _is_fast_at_bfloat16() else "float32"
    keras.config.set_dtype_policy(precision)
    return precision


def _is_fast_at_bfloat16() -> bool:
    for gpu in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpu)
        return details.get("compute_capability", (0, 0)) >= (8, 0)
    flags = CPU_INFO.read_text() if CPU_INFO.exists() else ""
    return any(f"{kind}_bf16" in flags for kind in ("amx", "avx512"))


def adam(
    learning_rate: float, clip_norm: float, decay_steps: int = 0, beta_1: float = 0.9
) -> keras.Optimizer:
    """Returns Adam with a cosine decay to 0 over `decay_steps`, or with a constant rate."""
    rate = learning_rate
    if decay_steps:
        rate = keras.optimizers.schedules.CosineDecay(learning_rate, decay_steps)
    return FusedAdam(rate, beta_1, global_clipnorm=clip_norm or None)


class Trainer:
    """Trains a model in a folder, from its newest checkpoint on if there is one.

    The folder gets `checkpoints/`, `tensorboard/` and `history.jsonl`, one JSON object a row: the
    step and what was measured at it.

    Args:
        model: compiled and built, with `measurements` and `train_step`.
        config: steps, batch and how often to log, evaluate and save.
        folder: where to write.
        title: what the progress line calls this training.
        state: further objects with variables that a checkpoint must hold.
    """

    def __init__(self, model: keras.Model, config: Train, folder: Path, title: str, **state: Any):
        self.model = model
        self.folder = Path(folder)
        self._config = config
        self._title = title
        self._step = tf.Variable(0, dtype=tf.int64)
        self._checkpoint = tf.train.Checkpoint(model=model, step=self._step, **state)
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, str(self.folder / "checkpoints"), max_to_keep=2
        )
        if self._manager.latest_checkpoint:
            self._checkpoint.restore(self._manager.latest_checkpoint).assert_consumed()
        self.history = History(self.folder / "history.jsonl", self.step)
        self.writer = tf.summary.create_file_writer(str(self.folder / "tensorboard"))
        self._train = tf.function(self._several_steps)

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self._step.numpy())

    @property
    def images_per_s(self) -> float:
        """The median over the log's rows: pictures trained on a second."""
        _, rates = self.history.series("images_per_s")
        return statistics.median(rates)

    def run(
        self,
        batches: Callable[[int], tf.data.Dataset],
        evaluate: Callable[[int], tuple[dict[str, float], bool]],
    ) -> None:
        """Trains until the configured step, or until `evaluate` says to stop.

        Args:
            batches: from a step to the endless batches from that step on.
            evaluate: called with the step every `evaluate_every` steps and at the end; returns what
                it measured and whether to go on.

        Raises:
            TrainingError: a loss is not finite any more.
        """
        config = self._config
        if self.step >= config.steps:
            return
        iterator = iter(distribution.distribute(batches(self.step)))
        progress = Progress(self._title, config.steps, self.step)
        going = True
        while going and self.step < config.steps:
            steps = self._steps_until_next_event()
            began = time.monotonic()
            measured = self._train(iterator, tf.constant(steps))
            measured = {name: float(value) for name, value in measured.items()}
            images_per_s = steps * config.batch / (time.monotonic() - began)
            self._step.assign_add(steps)
            self._check_finite(measured)
            progress.show(self.step, measured, images_per_s)
            evaluated = {}
            if self._is_due(config.evaluate_every):
                evaluated, going = evaluate(self.step)
            if evaluated or self._is_due(config.log_every):
                self._log(measured | {"images_per_s": images_per_s} | evaluated)
            if not going or self._is_due(config.checkpoint_every):
                self._manager.save(checkpoint_number=self.step)
        progress.close()
        self.writer.flush()

    def _steps_until_next_event(self) -> int:
        config = self._config
        every = (config.log_every, config.evaluate_every, config.checkpoint_every)
        return min(config.steps - self.step, *(each - self.step % each for each in every))

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0 or self.step >= self._config.steps

    def _several_steps(self, iterator, steps):
        """Makes steps in one graph; returns the mean of each measurement over them."""
        totals = dict.fromkeys(self.model.measurements, tf.constant(0.0))
        for _ in tf.range(steps):
            losses = distribution.run(self.model.train_step, next(iterator))
            totals = {name: totals[name] + losses[name] for name in self.model.measurements}
        return {name: total / tf.cast(steps, tf.float32) for name, total in totals.items()}

    def _check_finite(self, measured: dict[str, float]) -> None:
        for name, value in measured.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"{self._title}: the {name} loss is {value} at step {self.step}; lower "
                    f"train.learning_rate or the loss weights (the last checkpoint is kept)"
                )

    def write_metrics(self, metrics: dict[str, float | list[float]]) -> None:
        """Shows what was measured after training in TensorBoard, under "test"."""
        write_metrics(self.writer, self.step, metrics)

    def _log(self, measured: dict[str, float]) -> None:
        self.history.add(self.step, measured)
        with self.writer.as_default(step=self.step):
            for name, value in measured.items():
                tf.summary.scalar(name, value)


def write_metrics(
    writer: tf.summary.SummaryWriter, step: int, metrics: dict[str, float | list[float]]
) -> None:
    """Shows metrics in TensorBoard, under "test"; intervals are left out."""
    with writer.as_default(step=step):
        for name, value in metrics.items():
            if not isinstance(value, list):
                tf.summary.scalar(f"test/{name}", value)
    writer.flush()


def write_pictures(
    writer: tf.summary.SummaryWriter, step: int, name: str, *rows: np.ndarray
) -> None:
    """Shows pictures in TensorBoard, the rows one above the other; each uint8 [N, S, S, 3]."""
    with writer.as_default(step=step):
        tf.summary.image(name, np.concatenate(rows, axis=1), max_outputs=len(rows[0]))


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
