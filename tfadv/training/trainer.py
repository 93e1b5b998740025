"""The training loop: steps in one tf.function, checkpoints, resume, TensorBoard, progress.

It knows nothing of privacy. A model has `measurements`, the names of the scalars that its
`train_step` returns.
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
_GROUP_S = 2.0  # seconds of steps in one call, after which signals are handled
_ROLLBACK_RATE = 0.3
_ADVICE = (
    "the last checkpoint is kept; lower train.learning_rate or the loss weights, or set "
    "train.rollbacks"
)


class TrainingError(UserError):
    """Training can't go on; the message says what to try."""


def set_up(runtime: Runtime) -> str:
    """Applies seed, determinism and precision to this process; returns the precision."""
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
    """Returns Adam with a cosine decay to 0 in `decay_steps`; 0: with a constant rate."""
    rate = learning_rate
    if decay_steps:
        rate = keras.optimizers.schedules.CosineDecay(learning_rate, decay_steps)
    return FusedAdam(rate, beta_1, global_clipnorm=clip_norm or None)


class Trainer:
    """Trains a model in a folder; resumes from its newest checkpoint.

    The folder gets `checkpoints/`, `tensorboard/` and `history.jsonl`, one JSON object a logged
    step.

    Args:
        model: compiled and built, with `measurements` and `train_step`.
        config: steps, batch size, and how often to log, evaluate and save.
        folder: where to write.
        title: name of this training in the progress line.
        may_stop_early: whether `evaluate` may end the training before its last step.
        describe: name of a logged value -> what it means, for TensorBoard.
        **state: further objects with variables that a checkpoint must hold.
    """

    def __init__(
        self,
        model: keras.Model,
        config: Train,
        folder: Path,
        title: str,
        *,
        may_stop_early: bool = False,
        describe: Callable[[str], str] = lambda name: "",
        **state: Any,
    ):
        self.model = model
        self.folder = Path(folder)
        self._config = config
        self._title = title
        self._may_stop_early = may_stop_early
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
        self._group_size = 1  # steps in one call, until a step's duration is known
        self.history = History(self.folder / "history.jsonl", self.step)
        self.writer = make_writer(self.folder)
        self._describe = describe
        self._train = tf.function(self._several_steps)

    @property
    def step(self) -> int:
        """The number of steps made."""
        return int(self._step.numpy())

    @property
    def images_per_s(self) -> float:
        """Training speed: the median over the logged steps."""
        _, rates = self.history.series("images_per_s")
        return statistics.median(rates)

    def run(
        self,
        batches: Callable[[int], tf.data.Dataset],
        evaluate: Callable[[int], tuple[dict[str, float], bool]],
    ) -> None:
        """Trains to the configured step, or until `evaluate` ends the training.

        Args:
            batches: from a step to the endless batches from that step on.
            evaluate: called with the step, every `evaluate_every` steps and at the end; returns
                measured values and whether to go on.

        Raises:
            TrainingError: a loss or a weight is not finite.
            Interrupted: after a signal; a checkpoint is saved.
            UserError: a checkpoint can't be written.
        """
        config = self._config
        if self.step >= config.steps:
            return
        progress = Progress(self._title, config.steps, self.step, self._may_stop_early)
        if config.rollbacks and not self._checkpoints.steps:
            self._checkpoints.save(self.step)
        goes_on = True
        iterator = iter(distribution.distribute(batches(self.step)))
        with signals.deferred() as pending:
            while goes_on and self.step < config.steps:
                try:
                    measured = self._train_to_next_event(iterator, progress, pending)
                    evaluated = {}
                    if self._is_due(config.evaluate_every):
                        evaluated, goes_on = evaluate(self.step)
                    saves = not goes_on or self._is_due(config.checkpoint_every)
                    if saves:
                        self._check_weights()
                except TrainingError as error:
                    if self._rollbacks.numpy() == config.rollbacks:
                        raise
                    self._roll_back(error)
                    iterator = iter(distribution.distribute(batches(self.step)))
                    continue
                if evaluated or self._is_due(config.log_every):
                    self._log(measured, evaluated)
                if saves:
                    self._checkpoints.save(self.step)
            if pending():
                self._leave(pending)
        progress.close()
        self.writer.flush()

    def _train_to_next_event(
        self, iterator: Any, progress: Progress, pending: signals.Pending
    ) -> dict[str, float]:
        """Trains until something is due; returns the losses' means over the steps, and images/s.

        Steps are made in groups of a few seconds; after each, it handles signals and progress.
        """
        first, began = self.step, time.monotonic()
        sums = dict.fromkeys(self.model.measurements, 0.0)
        left = self._steps_until_next_event()
        while left:
            if distribution.mean_over_workers(float(pending())):
                self._check_weights()
                self._checkpoints.save(self.step)
                self._leave(pending)
            started = time.monotonic()
            group = tf.constant(min(left, self._group_size), tf.int32)
            totals, made = self._train(iterator, group)
            made = int(made)
            self._step.assign_add(made)
            left -= made
            sums = {name: sums[name] + float(total) for name, total in totals.items()}
            self._check_finite(sums)
            seconds = distribution.mean_over_workers(time.monotonic() - started)
            self._group_size = max(1, int(made * _GROUP_S / seconds))
            measured = {name: total / (self.step - first) for name, total in sums.items()}
            images_per_s = (self.step - first) * self._config.batch / (time.monotonic() - began)
            progress.show(self.step, measured, images_per_s)
        return measured | {"images_per_s": images_per_s}

    def _leave(self, pending: signals.Pending) -> None:
        self.writer.flush()
        number = pending() or signal.SIGTERM  # else another worker got the signal
        raise signals.Interrupted(number, f"{self._title}: saved at step {self.step:,}")

    def _roll_back(self, error: TrainingError) -> None:
        """Returns to the last checkpoint, with lower learning rates and without later log rows."""
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
        """Restores the newest checkpoint, and sets the learning rates for the rollbacks so far."""
        self._checkpoints.restore()
        if rollbacks is not None:
            self._rollbacks.assign(rollbacks)
        for optimizer in _optimizers(self.model):
            optimizer.rate_scale.assign(_ROLLBACK_RATE ** int(self._rollbacks.numpy()))

    def _steps_until_next_event(self) -> int:
        config = self._config
        every = (config.log_every, config.evaluate_every, config.checkpoint_every)
        return min(
            config.steps - self.step, *(interval - self.step % interval for interval in every)
        )

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0 or self.step >= self._config.steps

    def _several_steps(self, iterator, steps):
        """Makes steps until a loss is not finite; returns the losses' sums and the steps made."""
        totals = dict.fromkeys(self.model.measurements, tf.constant(0.0, tf.float64))
        made, finite = tf.constant(0), tf.constant(True)
        while made < steps and finite:
            losses = distribution.run(self.model.train_step, next(iterator))
            # In float64, the means do not depend on the grouping of steps.
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
                    f"{self._title}: the {name} loss is {value} at step {self.step:,}; {_ADVICE}"
                )

    def _check_weights(self) -> None:
        for variable in self.model.variables:
            value = tf.convert_to_tensor(variable.value)
            if value.dtype.is_floating and not tf.reduce_all(tf.math.is_finite(value)):
                raise TrainingError(
                    f"{self._title}: weight {variable.path} is not finite at step {self.step:,}; "
                    f"{_ADVICE}"
                )

    def _log(self, measured: dict[str, float], evaluated: dict[str, float]) -> None:
        self.history.add(self.step, measured | evaluated)
        # Values that are measured only once, at the end, would be curves of a single point.
        is_curve = self._config.steps > self._config.evaluate_every
        shown = measured | evaluated if is_curve else measured
        with self.writer.as_default(step=self.step):
            for name, value in shown.items():
                tf.summary.scalar(name, value, description=self._describe(name))


def make_writer(folder: Path) -> tf.summary.SummaryWriter:
    """Returns a writer to `tensorboard/` of a folder, in a run with a name of its own.

    TensorBoard names a run by its path: the run's name repeats the end of the folder's, such as
    `demo-protect`, so that runs can be told apart where only the end is shown.
    """
    name = "-".join(folder.resolve().parts[-2:])
    return tf.summary.create_file_writer(str(folder / "tensorboard" / name))


def write_images(writer: tf.summary.SummaryWriter, step: int, name: str, *rows: np.ndarray) -> None:
    """Shows rows of images, uint8 [N, S, S, 3] each, one above the other in TensorBoard."""
    with writer.as_default(step=step):
        tf.summary.image(name, np.concatenate(rows, axis=1), max_outputs=len(rows[0]))


def _optimizers(model: keras.Model) -> list[FusedAdam]:
    optimizers = {}
    for layer in model._flatten_layers():
        for name in ("optimizer", "discriminator_optimizer"):
            if (optimizer := getattr(layer, name, None)) is not None:
                optimizers[id(optimizer)] = optimizer
    return list(optimizers.values())
