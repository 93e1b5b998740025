"""The loop: steps under one tf.function, checkpoints, resume, TensorBoard, a progress line.

It knows nothing of privacy: a model has `measurements`, the names of the scalars that its
`train_step` returns, and everything else is passed in.
"""

import math
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfadv.config.errors import UserError
from tfadv.config.schema import Runtime, Train
from tfadv.training import distribution, signals
from tfadv.training.checkpoints import Checkpoints
from tfadv.training.history import History, Progress
from tfadv.training.optimizer import FusedAdam

CPU_INFO = Path("/proc/cpuinfo")
_AT_A_TIME_S = 2.0  # seconds of steps in one graph
_ROLLBACK_RATE = 0.3
_TO_TRY = (
    "the last checkpoint is kept; lower train.learning_rate or the loss weights, or set "
    "train.rollbacks"
)


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
        self._rollbacks = tf.Variable(0)
        self._checkpoints = Checkpoints(
            self.folder / "checkpoints",
            model=model,
            step=self._step,
            rollbacks=self._rollbacks,
            **state,
        )
        self._restore()
        self._steps_at_a_time = 1  # until it is known how long one takes
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
            TrainingError: a loss or a weight is not finite any more.
            Interrupted: a signal asked for it; what was done is saved.
            UserError: a checkpoint can't be written.
        """
        config = self._config
        if self.step >= config.steps:
            return
        progress = Progress(self._title, config.steps, self.step)
        if config.rollbacks and not self._checkpoints.steps:
            self._checkpoints.save(self.step)
        going = True
        iterator = iter(distribution.distribute(batches(self.step)))
        with signals.deferred() as asked:
            while going and self.step < config.steps:
                try:
                    measured, images_per_s = self._train_to_next_event(iterator, progress, asked)
                    evaluated = {}
                    if self._is_due(config.evaluate_every):
                        evaluated, going = evaluate(self.step)
                    if not going or self._is_due(config.checkpoint_every):
                        self._check_weights()
                except TrainingError as error:
                    if self._rollbacks.numpy() == config.rollbacks:
                        raise
                    self._roll_back(error)
                    iterator = iter(distribution.distribute(batches(self.step)))
                    continue
                if evaluated or self._is_due(config.log_every):
                    self._log(measured | {"images_per_s": images_per_s} | evaluated)
                if not going or self._is_due(config.checkpoint_every):
                    self._checkpoints.save(self.step)
            if asked():
                self._leave(asked)
        progress.close()
        self.writer.flush()

    def _train_to_next_event(
        self, iterator: Any, progress: Progress, asked: signals.Asked
    ) -> tuple[dict[str, float], float]:
        """Makes steps until something is due; returns the means of what they measured, and speed.

        A few seconds of steps at a time: between them a signal is heeded and progress is shown.
        """
        sums, begin, began = (
            dict.fromkeys(self.model.measurements, 0.0),
            self.step,
            time.monotonic(),
        )
        left = self._steps_until_next_event()
        while left:
            if distribution.agree(float(asked())):
                self._check_weights()
                self._checkpoints.save(self.step)
                self._leave(asked)
            started = time.monotonic()
            totals, made = self._train(
                iterator, tf.constant(min(left, self._steps_at_a_time), tf.int32)
            )
            made = int(made)
            self._step.assign_add(made)
            left -= made
            sums = {name: sums[name] + float(total) for name, total in totals.items()}
            self._check_finite(sums)
            seconds = distribution.agree(time.monotonic() - started)
            self._steps_at_a_time = max(1, int(made * _AT_A_TIME_S / seconds))
            measured = {name: total / (self.step - begin) for name, total in sums.items()}
            images_per_s = (self.step - begin) * self._config.batch / (time.monotonic() - began)
            progress.show(self.step, measured, images_per_s)
        return measured, images_per_s

    def _leave(self, asked: signals.Asked) -> None:
        self.writer.flush()
        number = asked() or signal.SIGTERM  # another worker was asked
        raise signals.Interrupted(number, f"{self._title}: saved at step {self.step:,}")

    def _roll_back(self, error: TrainingError) -> None:
        """Goes on from the last checkpoint at lower rates; what was logged since is dropped."""
        count = int(self._rollbacks.numpy()) + 1
        self._restore(count)
        self.history = History(self.folder / "history.jsonl", self.step)
        print(
            f"{error}\n{self._title}: back at step {self.step:,}, learning rates at "
            f"{_ROLLBACK_RATE**count:.2g} of what they were ({count} of {self._config.rollbacks})",
            file=sys.stderr,
            flush=True,
        )

    def _restore(self, rollbacks: int | None = None) -> None:
        """Takes up the newest checkpoint, and the rates that follow from so many rollbacks."""
        self._checkpoints.restore()
        if rollbacks is not None:
            self._rollbacks.assign(rollbacks)
        for optimizer in _optimizers(self.model):
            optimizer.rate_scale.assign(_ROLLBACK_RATE ** int(self._rollbacks.numpy()))

    def _steps_until_next_event(self) -> int:
        config = self._config
        every = (config.log_every, config.evaluate_every, config.checkpoint_every)
        return min(config.steps - self.step, *(each - self.step % each for each in every))

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0 or self.step >= self._config.steps

    def _several_steps(self, iterator, steps):
        """Makes steps in one graph, until a loss is not finite; returns sums, and how many."""
        totals = dict.fromkeys(self.model.measurements, tf.constant(0.0, tf.float64))
        made, finite = tf.constant(0), tf.constant(True)
        while made < steps and finite:
            losses = distribution.run(self.model.train_step, next(iterator))
            # In float64 a mean does not depend on how steps are grouped.
            totals = {
                name: totals[name] + tf.cast(losses[name], tf.float64)
                for name in self.model.measurements
            }
            finite = tf.reduce_all(tf.math.is_finite(list(totals.values())))
            made += 1
        return totals, made

    def _check_finite(self, measured: dict[str, float]) -> None:
        for name, value in measured.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"{self._title}: the {name} loss is {value} at step {self.step:,}; {_TO_TRY}"
                )

    def _check_weights(self) -> None:
        for variable in self.model.variables:
            value = tf.convert_to_tensor(variable.value)
            if value.dtype.is_floating and not tf.reduce_all(tf.math.is_finite(value)):
                raise TrainingError(
                    f"{self._title}: weight {variable.path} is not finite at step {self.step:,}; "
                    f"{_TO_TRY}"
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


def write_images(writer: tf.summary.SummaryWriter, step: int, name: str, *rows: np.ndarray) -> None:
    """Shows pictures in TensorBoard, the rows one above the other; each uint8 [N, S, S, 3]."""
    with writer.as_default(step=step):
        tf.summary.image(name, np.concatenate(rows, axis=1), max_outputs=len(rows[0]))


def _optimizers(model: keras.Model) -> list[FusedAdam]:
    found = {}
    for layer in model._flatten_layers():
        for name in ("optimizer", "discriminator_optimizer"):
            if (optimizer := getattr(layer, name, None)) is not None:
                found[id(optimizer)] = optimizer
    return list(found.values())
