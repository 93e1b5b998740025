"""The identity attack of the paper: M guesses a face embedding from a feature (Eq. 10)."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfadv.attacks.attack import Attack, FittedAttack
from tfadv.attacks.knowledge import Knowledge, KnownImages
from tfadv.attacks.network_training import Schedule, Standardisation, train_network
from tfadv.config.errors import UserError
from tfadv.config.schema import FeatureMap as Settings
from tfadv.evaluation.leakage_measures import RECOGNIZER
from tfadv.models import feature_map
from tfadv.models.losses import feature_loss
from tfadv.training.distribution import over_devices
from tfadv.training.trainer import adam

_MOST_WEIGHTS = 2**28  # of M's first layer: 1 GiB, and five times that while it learns


class FeatureInverter(keras.Model):
    """M: learns from pairs of a public image's feature and its face embedding C(X) (Eq. 10).

    A step's data is {"features": float [N, ...], "embeddings": float [N, E]}.

    The network guesses deviations from the mean embedding, scaled to variance 1. Unscaled, they are
    at most 1/E in mean square, and Adam's usual steps would be too large.

    Args:
        network: built: standardised features to standardised embeddings.
        feature_shape: of one image's feature.
    """

    measurements = ("embedding",)

    def __init__(self, network: feature_map.FeatureMap, feature_shape: tuple[int, ...], **kwargs):
        super().__init__(**kwargs)
        self.standardisation = Standardisation(dtype="float32")
        self.standardisation.build((None, *feature_shape))
        self.feature_map = network
        self.embedding_mean = self.add_weight(
            shape=(network.embedding,),
            initializer="zeros",
            trainable=False,
            name="embedding_mean",
        )
        self.embedding_scale = self.add_weight(
            shape=(), initializer="ones", trainable=False, name="embedding_scale"
        )

    def adapt_embeddings(self, embeddings: np.ndarray) -> None:
        """Takes the mean, and one standard deviation for all dimensions, of embeddings [N, E]."""
        mean = embeddings.mean(0)
        self.embedding_mean.assign(mean)
        # If all embeddings are the same, any scale will do.
        self.embedding_scale.assign((embeddings - mean).std() or 1.0)

    def compile(self, optimizer, **kwargs):
        """Takes the optimizer and builds it with M's variables."""
        kwargs.setdefault("jit_compile", False)
        super().compile(optimizer=optimizer, **kwargs)
        self.optimizer.build(self.feature_map.trainable_variables)

    @property
    def learned(self) -> list[keras.Variable]:
        """The variables of M."""
        return self.feature_map.trainable_variables

    def call(self, features, training=False):
        """Returns guessed embeddings, float32 [N, E], of any length."""
        guesses = self.feature_map(self.standardisation(features), training=training)
        return self.embedding_mean + self.embedding_scale * guesses

    def train_step(self, data):
        """Minimises Eq. 10; returns the loss."""
        with tf.GradientTape() as tape:
            guesses = self(data["features"], training=True)
            loss = feature_loss(data["embeddings"], guesses)
            # In units of their variance, which the clipping of gradients assumes.
            scaled = loss / tf.square(self.embedding_scale.value)
        variables = self.feature_map.trainable_variables
        self.optimizer.apply(tape.gradient(scaled, variables), variables)
        return {"embedding": loss}

    def test_step(self, data):
        """Returns Eq. 10 without learning."""
        return {"held_out_loss": feature_loss(data["embeddings"], self(data["features"]))}


class FeatureMap(Attack):
    """M(Z), a network trained until held-out images no longer improve.

    Args:
        settings: of M.
        schedule: batch, clipping, patience and seed; steps and rate are M's own.
    """

    title = "trained embedding guess"
    meaning = "A network that guesses the face embedding from the feature (Eq. 10)."
    needs = frozenset({RECOGNIZER})
    diverges_in = ("feature_reid_rank1", "feature_verification_auc")
    is_quick = False

    def __init__(self, settings: Settings, schedule: Schedule):
        self._settings, self._schedule = settings, schedule

    def fit(self, knowledge: Knowledge, folder: Path) -> FittedAttack:
        """Trains M by Eq. 10."""
        settings, schedule = self._settings, self._schedule
        keras.utils.set_random_seed(schedule.seed)
        pairs, embeddings = knowledge.train.pairs, knowledge.train.embeddings.embedding
        shape, batch = pairs.feature_shape, schedule.train.batch
        network = feature_map.FeatureMap(
            shape, embeddings.shape[1], settings.hidden, settings.pooling
        )
        network.build((None, *shape))
        inverter = FeatureInverter(network, shape)
        inverter.standardisation.adapt(pairs.feature_batches)
        inverter.adapt_embeddings(embeddings)
        inverter.compile(adam(settings.learning_rate, schedule.train.clip_norm))
        epoch = max(1, pairs.count // batch)
        train = dataclasses.replace(
            schedule.train,
            steps=settings.steps,
            log_every=epoch,
            evaluate_every=epoch,
            checkpoint_every=10 * epoch,
        )
        training = train_network(
            inverter,
            dataclasses.replace(schedule, train=train),
            lambda step: pairs.training_batches(batch, seed=schedule.seed, start=step).map(
                _with_targets(knowledge.train)
            ),
            lambda: map(_with_targets(knowledge.held_out), knowledge.held_out.pairs.batches()),
            folder,
            f"M on {knowledge.name}",
        )
        return FittedAttack(
            embed=over_devices(inverter),
            mean_embedding=embeddings.mean(0),
            held_out_loss=training.held_out_loss,
            training=training,
        )


def _with_targets(known: KnownImages) -> Callable[[dict], dict]:
    """Returns what turns a batch of pairs into the data of a step."""
    targets = tf.convert_to_tensor(known.embeddings.embedding)

    def with_targets(batch):
        embeddings = tf.gather(targets, batch["index"])
        return {"features": batch["features"], "embeddings": embeddings}

    return with_targets


def check_size(settings: Settings, name: str, feature_shape: tuple[int, ...]) -> None:
    """Raises a UserError if M would be too large for the features of the encoder of this name."""
    weights = math.prod(feature_shape) * settings.hidden
    if settings.pooling == "flatten" and weights > _MOST_WEIGHTS:
        raise UserError(
            f"M would have {weights:,} weights for the features {list(feature_shape)} of {name}: "
            f"set --config.feature_map.pooling=average or a smaller feature_map.hidden"
        )
