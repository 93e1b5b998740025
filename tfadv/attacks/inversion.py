"""Trains Dec^a and M, the attackers that are networks, until they no longer improve."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfadv.attacks.black_box import SavedEncoder
from tfadv.attacks.gradient_search import InputInverter
from tfadv.attacks.inverters import FeatureInverter, ImageInverter, Plateau
from tfadv.attacks.pairs import BlackBox, Pairs
from tfadv.attacks.scoring import EvaluationSet, Finding
from tfadv.config.errors import UserError
from tfadv.config.schema import Attack, Config
from tfadv.data.dataset import Dataset
from tfadv.data.images import to_uint8
from tfadv.models import build
from tfadv.models.feature_map import FeatureMap
from tfadv.models.vgg import VGGFeatures
from tfadv.training import distribution
from tfadv.training import trainer as training

Curve = tuple[list[int], list[float]]


@dataclasses.dataclass(frozen=True)
class Effort:
    """How hard an attacker that is trained tried.

    Attributes:
        steps: it trained for.
        converged: whether it ended because held-out pictures no longer improved.
        held_out_loss: at its best point.
        images_per_s: pictures trained on a second.
        curve: steps, and the loss on held-out public pictures at them.
    """

    steps: int
    converged: bool
    held_out_loss: float
    images_per_s: float
    curve: Curve


def invert_pictures(
    train: Pairs,
    held_out: Pairs,
    dataset: Dataset,
    config: Config,
    split: str | None,
    g: VGGFeatures | None,
    folder: Path,
    title: str,
    *,
    decays: bool = False,
) -> tuple[ImageInverter, Effort]:
    """Trains Dec^a by Eq. 5; returns it at its best point.

    Args:
        train: public pairs to learn from.
        held_out: public pairs of other people, which decide when it ends.
        dataset: where the pairs come from.
        config: of the run.
        split: the encoder's split point, if it has one of ours.
        g: from `models.load_g`.
        folder: for checkpoints and logs.
        title: what the progress line calls it.
        decays: whether the rate falls to 0 over all steps, none of which is then left out; else it
            falls, and all ends, where held-out pictures no longer improve.
    """
    keras.utils.set_random_seed(config.runtime.seed)
    shape = train.feature_shape
    inverter = ImageInverter(build.build_adversary(config, shape, split, g), shape)
    inverter.standardisation.adapt(batch["features"] for batch in train.batches())
    steps = config.train.steps
    optimizer = training.adam(
        config.train.learning_rate, config.train.clip_norm, decay_steps=steps if decays else 0
    )
    inverter.compile(optimizer, build.discriminator_optimizer(config))
    plateau = Plateau(inverter, steps + 1, 0) if decays else _plateau(inverter, config.attack)
    trainer = training.Trainer(inverter, config.train, folder, title, plateau=plateau)
    if trainer.step == 0:
        build.measure_scale(inverter.adversary, dataset)

    def batches(step):
        return train.training_batches(config.train.batch, seed=config.runtime.seed, start=step)

    def show(step):
        if config.report.pictures:
            few = _first(held_out, config.report.examples)
            rebuilt = to_uint8(inverter(few["features"]).numpy())
            training.write_pictures(
                trainer.writer, step, "input over reconstruction", few["images"], rebuilt
            )

    evaluate = Evaluation(inverter, held_out.batches, plateau, show)
    return inverter, _train(trainer, plateau, batches, evaluate, title)


def guess_embeddings(
    train: Pairs,
    train_embeddings: np.ndarray,
    held_out: Pairs,
    held_out_embeddings: np.ndarray,
    config: Config,
    folder: Path,
    title: str,
) -> tuple[FeatureInverter, Effort]:
    """Trains M by Eq. 10; returns it at its best point.

    Args:
        train: public pairs to learn from.
        train_embeddings: C(X) of theirs, in order, float32 [N, E].
        held_out: public pairs of other people, which decide when it ends.
        held_out_embeddings: of theirs.
        config: of the run.
        folder: for checkpoints and logs.
        title: what the progress line calls it.
    """
    keras.utils.set_random_seed(config.runtime.seed)
    shape, fields = train.feature_shape, config.feature_map
    feature_map = FeatureMap(shape, train_embeddings.shape[1], fields.hidden, fields.pooling)
    feature_map.build((None, *shape))
    inverter = FeatureInverter(feature_map, shape)
    inverter.standardisation.adapt(batch["features"] for batch in train.batches())
    inverter.adapt_embeddings(train_embeddings)
    inverter.compile(training.adam(fields.learning_rate, config.train.clip_norm))
    plateau = _plateau(inverter, config.attack)
    epoch = max(1, train.count // config.train.batch)
    schedule = dataclasses.replace(
        config.train,
        steps=fields.steps,
        log_every=epoch,
        evaluate_every=epoch,
        checkpoint_every=10 * epoch,
    )
    trainer = training.Trainer(inverter, schedule, folder, title, plateau=plateau)
    targets = tf.convert_to_tensor(train_embeddings)

    def with_targets(batch):
        return {
            "features": batch["features"],
            "embeddings": tf.gather(targets, batch["index"]),
        }

    def batches(step):
        seed = config.runtime.seed
        pairs = train.training_batches(config.train.batch, seed=seed, start=step)
        return pairs.map(with_targets)

    def held_out_batches():
        for batch in held_out.batches():
            embeddings = held_out_embeddings[batch["index"]]
            yield {"features": batch["features"], "embeddings": embeddings}

    evaluate = Evaluation(inverter, held_out_batches, plateau)
    return inverter, _train(trainer, plateau, batches, evaluate, title)


def search_inputs(
    black_box: BlackBox, train: Pairs, held_out: Pairs, config: Config
) -> Callable[[Pairs, EvaluationSet], Finding]:
    """Prepares a search for pictures by gradients through the encoder.

    Returns:
        What searches for the first `attack.white_box` of some pictures, and finds pixels only.

    Raises:
        ValueError: there is no gradient.
    """
    if not isinstance(black_box, SavedEncoder):
        raise ValueError("no gradient can be had of answers, or of the mean of several")
    encode = black_box.differentiable()
    if encode is None:
        raise ValueError(f"{black_box.path} takes whole numbers")
    try:
        inverter = InputInverter(encode, train, held_out, seed=config.runtime.seed)
    except UserError as error:
        raise ValueError(str(error)) from None

    def search(pairs: Pairs, test: EvaluationSet) -> Finding:
        few, count = [], config.attack.white_box
        for batch in pairs.batches():
            few.append({name: values[:count] for name, values in batch.items()})
            count -= len(few[-1]["index"])
            if not count:
                break
        first = {name: np.concatenate([batch[name] for batch in few]) for name in few[0]}
        finding = test.of_first_pictures(first, lambda batch: inverter(batch["features"]))
        finding.metrics["held_out_loss"] = inverter.held_out_loss
        return finding

    return search


class Evaluation:
    """The losses on held-out public pictures, which decide when an attack ends.

    Args:
        inverter: whose `test_step` gives them, `held_out_loss` among them.
        batches: gives the held-out batches anew at each call.
        plateau: is told `held_out_loss`.
        show: called with the step after each evaluation.
    """

    def __init__(
        self,
        inverter: ImageInverter | FeatureInverter,
        batches: Callable[[], Iterator[dict[str, np.ndarray]]],
        plateau: Plateau,
        show: Callable[[int], None] = lambda step: None,
    ):
        self._inverter = inverter
        self._batches = batches
        self._plateau = plateau
        self._show = show
        self._losses = distribution.mean_over_devices(inverter.test_step)

    def __call__(self, step: int) -> tuple[dict[str, float], bool]:
        """Returns the losses, and whether to go on."""
        totals, count = {}, 0
        for batch in self._batches():
            size = len(batch["features"])
            for name, loss in self._losses(batch).items():
                totals[name] = totals.get(name, 0.0) + loss * size
            count += size
        losses = {name: total / count for name, total in totals.items()}
        self._plateau.update(distribution.agree(losses["held_out_loss"]))
        self._show(step)
        measured = {f"held_out_{name.removeprefix('held_out_')}": v for name, v in losses.items()}
        rate = float(self._inverter.optimizer.learning_rate.numpy())
        return measured | {"learning_rate": rate}, not self._plateau.ended


def _plateau(inverter: ImageInverter | FeatureInverter, attack: Attack) -> Plateau:
    return Plateau(inverter, attack.patience, attack.rate_drops)


def _train(trainer, plateau, batches, evaluate, title) -> Effort:
    if not plateau.ended:
        trainer.run(batches, evaluate)
    plateau.restore_best()
    reason = "held-out pictures no longer improve" if plateau.ended else "its steps are used up"
    print(
        f"{title}: ended at step {trainer.step:,}, as {reason}; its best point counts", flush=True
    )
    return Effort(
        steps=trainer.step,
        converged=plateau.ended,
        held_out_loss=plateau.lowest,
        images_per_s=trainer.images_per_s,
        curve=trainer.history.series("held_out_loss"),
    )


def _first(pairs: Pairs, count: int) -> dict[str, np.ndarray]:
    batch = next(pairs.batches())
    return {name: values[:count] for name, values in batch.items()}
