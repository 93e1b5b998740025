"""Decoder attacks: a network trained to turn features back into images (Eq. 1 to 5)."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import keras

from tfadv.attacks.attack import Attack, FittedAttack, NotApplicableError
from tfadv.attacks.knowledge import Knowledge
from tfadv.attacks.network_training import Schedule, Standardisation, train_network
from tfadv.config.files import write_json
from tfadv.data.images import normalize, to_uint8
from tfadv.models.adversary import Adversary
from tfadv.training.distribution import over_devices
from tfadv.training.trainer import TrainingError, adam, write_images

BUDGETS = (1, 2, 4)  # times the smallest budget of steps
RATES = (3e-4, 1e-3, 3e-3)  # learning rates that the smallest budget is tried at

METRICS = ("mse", "reid_rank1_centred", "verification_auc_centred")  # of the measures

# From a feature's shape, the encoder's feature layer and g, to Dec^a with its D; not compiled.
BuildAdversary = Callable[[tuple[int, ...], str | None, Callable | None], Adversary]
MeasureScale = Callable[[Adversary], None]


class ImageInverter(keras.Model):
    """Dec^a: learns from pairs of a public image and its feature to reconstruct the image.

    A step's data is {"images": uint8 [N, S, S, 3], "features": float [N, ...]}.

    Args:
        adversary: Dec^a, which takes standardised features, with D and g as its losses need them.
        feature_shape: of one image's feature.
    """

    def __init__(self, adversary: Adversary, feature_shape: tuple[int, ...], **kwargs):
        super().__init__(**kwargs)
        self.standardisation = Standardisation(dtype="float32")
        self.standardisation.build((None, *feature_shape))
        self.adversary = adversary

    def compile(self, optimizer, discriminator_optimizer=None, **kwargs):
        """Takes the optimizers of Dec^a and of D; builds both with their variables."""
        kwargs.setdefault("jit_compile", False)
        super().compile(optimizer=optimizer, **kwargs)
        self.adversary.compile(optimizer, discriminator_optimizer)

    @property
    def measurements(self) -> tuple[str, ...]:
        """The names of the losses that `train_step` returns."""
        return self.adversary.measurements

    @property
    def learned(self) -> list[keras.Variable]:
        """The variables of Dec^a and of its D."""
        networks = [self.adversary.decoder, self.adversary.discriminator]
        return [variable for each in networks if each is not None for variable in each.variables]

    def call(self, features, training=False):
        """Returns reconstructions, float32 [N, S, S, 3] in [-1, 1]."""
        return self.adversary(self.standardisation(features), training=training)

    def train_step(self, data):
        """Makes one update by Eq. 5; returns the losses."""
        features = self.standardisation(data["features"])
        return self.adversary.update(normalize(data["images"]), features)

    def test_step(self, data):
        """Returns L_p, and L_p + mu_2 L_perc as `held_out_loss`, without learning."""
        losses = self.adversary.distances(
            normalize(data["images"]),
            self(data["features"]),
            perceptual=bool(self.adversary.mu2),
        )
        return losses | {"held_out_loss": self.adversary.distance(losses)}


@dataclasses.dataclass(frozen=True)
class DecoderTraining:
    """How Dec^a is made and trained.

    Attributes:
        build: makes Dec^a with its D.
        build_discriminator_optimizer: makes the optimizer of D; None without D.
        measure_scale: measures the scale of g's layers before the first step.
        schedule: how long it is trained.
        shown_images: reconstructions that TensorBoard shows; 0: none.
    """

    build: BuildAdversary
    build_discriminator_optimizer: Callable[[], keras.Optimizer | None]
    measure_scale: MeasureScale
    schedule: Schedule
    shown_images: int = 0


class Decoder(Attack):
    """Dec^a of the paper, trained until held-out images no longer improve."""

    title = "trained decoder"
    meaning = "A network trained to reconstruct the image from its feature (Eq. 1 to 5)."
    diverges_in = METRICS
    is_quick = False

    def __init__(self, training: DecoderTraining):
        self._training = training

    def fit(self, knowledge: Knowledge, folder: Path) -> FittedAttack:
        """Trains Dec^a."""
        title = f"decoder on {knowledge.name}"
        return train_decoder(self._training, knowledge, knowledge.g, folder, title)


class BudgetedDecoder(Attack):
    """Dec^a with a fixed budget of steps, over which its learning rate decays to 0.

    The smallest budget is tried at each of `RATES`. Larger ones use the rate with the lowest loss
    on held-out images.

    Args:
        training: of the smallest budget.
        family: architecture and loss, such as figure6-pixels.
        meaning: what the network is and what it is trained on.
        budget: how many times the smallest budget.
        by_recognizer: whether the recognizer's embedding takes the place of g.
    """

    diverges_in = METRICS
    is_quick = False

    def __init__(
        self,
        training: DecoderTraining,
        family: str,
        meaning: str,
        budget: int,
        *,
        by_recognizer: bool = False,
    ):
        self._training = training
        self._by_recognizer = by_recognizer
        self.family, self.budget, self.meaning = family, budget, meaning
        steps = budget * training.schedule.train.steps
        self.title = f"trained decoder ({family.replace('-', ', ')}), {steps:,} steps"

    def fit(self, knowledge: Knowledge, folder: Path) -> FittedAttack:
        """Trains Dec^a at each rate that is to be tried; returns the best."""
        g = knowledge.faces if self._by_recognizer else knowledge.g
        if self._by_recognizer and g is None:
            raise NotApplicableError("only a recognizer of --mode=recognizer has gradients")
        losses_file = folder.parent / f"{self.family}-rates.json"
        losses = json.loads(losses_file.read_text()) if losses_file.exists() else {}
        rates = list(map(str, RATES))
        if self.budget > 1 and losses:
            rates = [min(losses, key=losses.get)]
        best, diverged = None, []
        for rate in rates:
            name = f"{self.family}-x{self.budget}-{rate}"
            training = self._at(float(rate))
            title = f"{self.title}, rate {rate}, on {knowledge.name}"
            try:
                found = train_decoder(training, knowledge, g, folder.parent / name, title)
            except TrainingError as error:
                print(f"{title} diverged: {error}", flush=True)
                diverged.append(str(error))
                continue
            if self.budget == 1:
                losses[rate] = found.held_out_loss
                write_json(losses_file, losses)
            if best is None or found.held_out_loss < best.held_out_loss:
                best = found
        if best is None:
            raise TrainingError("; ".join(diverged))
        return best

    def _at(self, rate: float) -> DecoderTraining:
        """The training with this budget and learning rate."""
        schedule = self._training.schedule
        steps = self.budget * schedule.train.steps
        train = dataclasses.replace(
            schedule.train,
            steps=steps,
            learning_rate=rate,
            evaluate_every=max(1, steps // 8),
            checkpoint_every=max(1, steps // 2),
        )
        schedule = dataclasses.replace(schedule, train=train, rate_drops=0, decays=True)
        return dataclasses.replace(self._training, schedule=schedule)


def train_decoder(
    training: DecoderTraining,
    knowledge: Knowledge,
    g: Callable | None,
    folder: Path,
    title: str,
) -> FittedAttack:
    """Trains Dec^a by Eq. 5, with g for the perceptual distance; returns it at its best point.

    Raises:
        TrainingError: it diverges.
    """
    schedule, pairs = training.schedule, knowledge.train.pairs
    keras.utils.set_random_seed(schedule.seed)
    inverter = ImageInverter(
        training.build(pairs.feature_shape, knowledge.encoder.split, g), pairs.feature_shape
    )
    inverter.standardisation.adapt(pairs.feature_batches)
    train = schedule.train
    optimizer = adam(train.learning_rate, train.clip_norm, decay_steps=schedule.decay_steps)
    inverter.compile(optimizer, training.build_discriminator_optimizer())

    def show(trainer, step):
        if training.shown_images:
            first = next(knowledge.held_out.pairs.batches())
            images, features = (first[n][: training.shown_images] for n in ("images", "features"))
            rebuilt = to_uint8(inverter(features).numpy())
            write_images(trainer.writer, step, "input over reconstruction", images, rebuilt)

    found = train_network(
        inverter,
        schedule,
        lambda step: pairs.training_batches(train.batch, seed=schedule.seed, start=step),
        knowledge.held_out.pairs.batches,
        folder,
        title,
        before_first_step=lambda: training.measure_scale(inverter.adversary),
        show=show,
    )
    return FittedAttack(
        reconstruct=over_devices(inverter), held_out_loss=found.held_out_loss, training=found
    )
