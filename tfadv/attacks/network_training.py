"""Trains the attacks that are networks, until held-out public images no longer improve."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfadv.config.schema import Train
from tfadv.evaluation.moments import moments, robust_bounds, standard_scale
from tfadv.evaluation.results import Training
from tfadv.training import distribution
from tfadv.training.trainer import Trainer

_FAR = 20.0  # robust standard deviations at which networks' inputs are clipped
_ROWS = 256  # of each batch that these are taken from, at most


class Standardisation(keras.layers.Layer):
    """Clips far values, and brings each dimension of the features to mean 0 and variance 1.

    Without it a defence could hide the image in dimensions of small variance, or behind a few
    images with huge values. An image that is hidden in an oblique direction of small variance still
    escapes: that needs whitening. For maps [N, H, W, C] a dimension is a channel.
    """

    def build(self, input_shape):
        """Creates the statistics: mean 0, scale 1 and no bounds until `adapt`."""
        largest = np.finfo(np.float32).max  # finite, as weights must be
        initial = {"mean": 0.0, "scale": 1.0, "low": -largest, "high": largest}
        for name, value in initial.items():
            weight = self.add_weight(
                shape=(input_shape[-1],),
                initializer=keras.initializers.Constant(value),
                trainable=False,
                name=name,
                dtype="float32",
            )
            setattr(self, name, weight)

    def adapt(self, features: Callable[[], Iterable[np.ndarray]]) -> None:
        """Takes the statistics from batches of features, [N, ..., C], in two passes."""

        def rows() -> Iterator[np.ndarray]:
            return (batch.reshape(-1, batch.shape[-1]) for batch in features())

        low, high = robust_bounds(_evenly(rows()), _FAR)
        count, mean, squares = moments(np.clip(batch, low, high) for batch in rows())
        self.low.assign(low)
        self.high.assign(high)
        self.mean.assign(mean)
        self.scale.assign(standard_scale(mean, np.sqrt(squares / count)))

    def call(self, features):
        """Returns the features clipped and standardised, float32."""
        clipped = tf.clip_by_value(tf.cast(features, tf.float32), self.low, self.high)
        return (clipped - self.mean) * self.scale


def _evenly(batches: Iterable[np.ndarray]) -> np.ndarray:
    """Some rows of each batch, spread evenly: a position of each image, if batches are of maps."""
    return np.concatenate([batch[:: -(-len(batch) // _ROWS)] for batch in batches])


class Plateau(tf.Module):
    """Decides when a network no longer improves. An attack that stops early flatters the defence.

    After `patience` evaluations without improvement the learning rate falls to 0.3 of itself, and
    training continues from the best weights so far. After `rate_drops` drops training ends. All
    state is variables, so that a checkpoint holds it. The network is compiled, and its `learned`
    lists the variables that it learns.
    """

    def __init__(self, network: keras.Model, patience: int, rate_drops: int):
        super().__init__()
        self._network = network
        self._patience = patience
        self._rate_drops = rate_drops
        self._lowest = tf.Variable(np.inf, dtype=tf.float64)
        self._waited = tf.Variable(0)
        self._drops = tf.Variable(0)
        self._best = [tf.Variable(variable.value) for variable in network.learned]

    @property
    def lowest(self) -> float:
        """The lowest loss so far."""
        return float(self._lowest.numpy())

    @property
    def ended(self) -> bool:
        """Whether training is over."""
        return int(self._drops.numpy()) > self._rate_drops

    def update(self, loss: float) -> None:
        """Takes the loss of one evaluation on held-out images."""
        if loss < self.lowest * (1 - 1e-4):
            self._lowest.assign(loss)
            self._waited.assign(0)
            for kept, weight in zip(self._best, self._network.learned, strict=True):
                kept.assign(weight.value)
            return
        self._waited.assign_add(1)
        if int(self._waited.numpy()) == self._patience:
            self._waited.assign(0)
            self._drops.assign_add(1)
            self.restore_best()
            rate = self._network.optimizer.learning_rate
            rate.assign(0.3 * rate.numpy())

    def restore_best(self) -> None:
        """Gives the network the weights that had the lowest loss."""
        for kept, weight in zip(self._best, self._network.learned, strict=True):
            weight.assign(kept)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long a network is trained.

    Attributes:
        train: steps, batch, learning rates, and how often to log, evaluate and save.
        patience: evaluations without improvement before the rate falls, or training ends.
        rate_drops: how often the rate falls to 0.3 of itself before training ends.
        decays: whether the rate decays to 0 over exactly `train.steps` steps instead.
        seed: of initial weights and the order of images.
    """

    train: Train
    patience: int = 5
    rate_drops: int = 2
    decays: bool = False
    seed: int = 0

    @property
    def decay_steps(self) -> int:
        """The steps over which the rate decays to 0; 0 for a constant rate."""
        return self.train.steps if self.decays else 0


def train_network(
    network: keras.Model,
    schedule: Schedule,
    batches: Callable[[int], tf.data.Dataset],
    held_out: Callable[[], Iterator[dict[str, np.ndarray]]],
    folder: Path,
    title: str,
    *,
    before_first_step: Callable[[], None] = lambda: None,
    show: Callable[[Trainer, int], None] = lambda trainer, step: None,
) -> Training:
    """Trains a network; it ends with the weights of its best point.

    Args:
        network: compiled, with `learned`, `measurements`, `train_step` and a `test_step` that
            returns `held_out_loss`.
        schedule: how long.
        batches: from a step to the endless training batches from that step on.
        held_out: gives the held-out batches anew at each call.
        folder: for checkpoints and logs.
        title: its name on the progress line.
        before_first_step: called before a training begins that does not resume.
        show: called with the trainer and the step after each evaluation.

    Raises:
        TrainingError: it diverges.
    """
    patience = schedule.train.steps + 1 if schedule.decays else schedule.patience
    plateau = Plateau(network, patience, schedule.rate_drops)
    trainer = Trainer(
        network,
        schedule.train,
        folder,
        title,
        may_stop_early=not schedule.decays,
        plateau=plateau,
    )
    if trainer.step == 0:
        before_first_step()
    measure = distribution.mean_over_devices(network.test_step)

    def evaluate(step: int) -> tuple[dict[str, float], bool]:
        """Returns the losses on held-out images, and whether to go on."""
        losses = _mean_losses(measure, held_out())
        plateau.update(distribution.mean_over_workers(losses["held_out_loss"]))
        show(trainer, step)
        named = {f"held_out_{name.removeprefix('held_out_')}": v for name, v in losses.items()}
        rate = float(network.optimizer.learning_rate.numpy())
        return named | {"learning_rate": rate}, not plateau.ended

    if not plateau.ended:
        trainer.run(batches, evaluate)
    plateau.restore_best()
    reason = "held-out images no longer improve" if plateau.ended else "it has used all its steps"
    print(f"{title}: ended at step {trainer.step:,}, because {reason}", flush=True)
    return Training(
        steps=trainer.step,
        converged=plateau.ended,
        held_out_loss=plateau.lowest,
        images_per_s=trainer.images_per_s,
        curve=trainer.history.series("held_out_loss"),
    )


def _mean_losses(
    measure: Callable[[dict[str, np.ndarray]], dict[str, float]],
    batches: Iterable[dict[str, np.ndarray]],
) -> dict[str, float]:
    totals, count = {}, 0
    for batch in batches:
        size = len(batch["features"])
        for name, loss in measure(batch).items():
            totals[name] = totals.get(name, 0.0) + loss * size
        count += size
    return {name: total / count for name, total in totals.items()}
