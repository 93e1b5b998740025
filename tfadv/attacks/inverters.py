"""The black-box attacks that train a network: on pixels (Eq. 1 to 5) and on identity (Eq. 10).

The attacker has pictures of its own and their features, and for Eq. 10 a face recogniser. It sees
no private pictures, no weights and no gradients of the encoder.
"""

from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf

from tfadv.data.images import normalize
from tfadv.evaluation.whitening import moves
from tfadv.models.losses import feature_loss


class Standardisation(keras.layers.Layer):
    """Brings each dimension of the features to mean 0 and variance 1.

    Without it a defence wins by hiding the picture in dimensions of little variance. A picture
    hidden in a direction oblique to the dimensions still escapes: that would take whitening. For
    maps [N, H, W, C] a dimension is a channel.
    """

    def build(self, input_shape):
        """Makes the statistics, mean 0 and scale 1 until `adapt`."""
        shape = (input_shape[-1],)
        self.mean = self.add_weight(
            shape=shape, initializer="zeros", trainable=False, name="mean", dtype="float32"
        )
        self.scale = self.add_weight(
            shape=shape, initializer="ones", trainable=False, name="scale", dtype="float32"
        )

    def adapt(self, features: Iterable[np.ndarray]) -> None:
        """Takes the statistics from batches of features, [N, ..., C].

        In float64, and merged as Chan, Golub and LeVeque (1979) do: a sum of squares loses a small
        variance beside a large mean.
        """
        count, mean, squares = 0, 0.0, 0.0
        for batch in features:
            flat = batch.reshape(-1, batch.shape[-1]).astype(np.float64)
            known, count = count, count + len(flat)
            shift = flat.mean(0) - mean
            mean = mean + shift * (len(flat) / count)
            squares = squares + np.square(flat - flat.mean(0)).sum(0)
            squares = squares + np.square(shift) * (known * len(flat) / count)
        deviation = np.sqrt(squares / count)
        kept = moves(mean, deviation)
        self.mean.assign(mean)
        self.scale.assign(np.where(kept, 1.0 / np.where(kept, deviation, 1.0), 0.0))

    def call(self, features):
        """Returns the features standardised, float32."""
        return (tf.cast(features, tf.float32) - self.mean) * self.scale


class ImageInverter(keras.Model):
    """Dec^a: trained on pairs of a public picture and its feature to reconstruct the picture.

    A step's data is {"images": uint8 [N, S, S, 3], "features": float [N, ...]}.

    Args:
        adversary: Dec^a, with standardised features as its input, and D and g as its losses need
            them.
        feature_shape: of one picture's feature.
    """

    def __init__(self, adversary, feature_shape, **kwargs):
        super().__init__(**kwargs)
        self.standardisation = Standardisation(dtype="float32")
        self.standardisation.build((None, *feature_shape))
        self.adversary = adversary

    def compile(self, optimizer, discriminator_optimizer=None, **kwargs):
        """Takes the optimisers of Dec^a and of D; builds both with their variables."""
        kwargs.setdefault("jit_compile", False)
        super().compile(optimizer=optimizer, **kwargs)
        self.adversary.compile(optimizer, discriminator_optimizer)

    @property
    def measurements(self) -> tuple[str, ...]:
        """The names of what `train_step` returns."""
        return self.adversary.measurements

    @property
    def learned(self) -> list[keras.Variable]:
        """What an attack at its best point is made of: Dec^a, and the D that it met."""
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


class FeatureInverter(keras.Model):
    """M: trained on pairs of a public picture's feature and its face embedding C(X) (Eq. 10).

    A step's data is {"features": float [N, ...], "embeddings": float [N, E]}.

    The network guesses deviations from the mean embedding, brought to variance 1: as they are, 1/E
    in mean square at most, steps of Adam's usual size would drown them.

    Args:
        feature_map: M, built: standardised features to standardised embeddings.
        feature_shape: of one picture's feature.
    """

    measurements = ("embedding",)

    def __init__(self, feature_map, feature_shape, **kwargs):
        super().__init__(**kwargs)
        self.standardisation = Standardisation(dtype="float32")
        self.standardisation.build((None, *feature_shape))
        self.feature_map = feature_map
        embedding = feature_map.embedding
        self.embedding_mean = self.add_weight(
            shape=(embedding,), initializer="zeros", trainable=False, name="embedding_mean"
        )
        self.embedding_scale = self.add_weight(
            shape=(), initializer="ones", trainable=False, name="embedding_scale"
        )

    def adapt_embeddings(self, embeddings: np.ndarray) -> None:
        """Takes the mean, and one deviation from it for all dimensions, from embeddings [N, E]."""
        mean = embeddings.mean(0)
        self.embedding_mean.assign(mean)
        # Embeddings that are all alike leave nothing to learn: any scale will do.
        self.embedding_scale.assign((embeddings - mean).std() or 1.0)

    def compile(self, optimizer, **kwargs):
        """Takes the optimiser and builds it with M's variables."""
        kwargs.setdefault("jit_compile", False)
        super().compile(optimizer=optimizer, **kwargs)
        self.optimizer.build(self.feature_map.trainable_variables)

    @property
    def learned(self) -> list[keras.Variable]:
        """What an attack at its best point is made of."""
        return self.feature_map.trainable_variables

    def call(self, features, training=False):
        """Returns guesses of the embeddings, float32 [N, E]; of any length."""
        guesses = self.feature_map(self.standardisation(features), training=training)
        return self.embedding_mean + self.embedding_scale * guesses

    def train_step(self, data):
        """Minimises Eq. 10; returns the loss."""
        with tf.GradientTape() as tape:
            guesses = self(data["features"], training=True)
            loss = feature_loss(data["embeddings"], guesses)
            # In units of their variance: the clipping of gradients knows no other.
            scaled = loss / tf.square(self.embedding_scale.value)
        variables = self.feature_map.trainable_variables
        self.optimizer.apply(tape.gradient(scaled, variables), variables)
        return {"embedding": loss}

    def test_step(self, data):
        """Returns Eq. 10 without learning."""
        return {"held_out_loss": feature_loss(data["embeddings"], self(data["features"]))}


class Plateau(tf.Module):
    """Decides when an attack has stopped improving: one that stops early flatters the defence.

    After `patience` evaluations without improvement the learning rate falls to 0.3 of itself and
    training goes on from the best weights so far; after `rate_drops` of those, the attack ends. All
    of its state is variables, so that a checkpoint holds it.

    Args:
        inverter: compiled; what it has learned is `learned`.
        patience: evaluations.
        rate_drops: times.
    """

    def __init__(self, inverter: ImageInverter | FeatureInverter, patience: int, rate_drops: int):
        super().__init__()
        self._inverter = inverter
        self._patience = patience
        self._rate_drops = rate_drops
        self._lowest = tf.Variable(np.inf, dtype=tf.float64)
        self._waited = tf.Variable(0)
        self._drops = tf.Variable(0)
        self._best = [tf.Variable(variable.value) for variable in inverter.learned]

    @property
    def lowest(self) -> float:
        """The lowest loss so far."""
        return float(self._lowest.numpy())

    @property
    def ended(self) -> bool:
        """Whether the attack is over."""
        return int(self._drops.numpy()) > self._rate_drops

    def update(self, loss: float) -> None:
        """Takes the loss of one evaluation on held-out pictures."""
        if loss < self.lowest * (1 - 1e-4):
            self._lowest.assign(loss)
            self._waited.assign(0)
            for kept, weight in zip(self._best, self._inverter.learned, strict=True):
                kept.assign(weight.value)
            return
        self._waited.assign_add(1)
        if int(self._waited.numpy()) == self._patience:
            self._waited.assign(0)
            self._drops.assign_add(1)
            self.restore_best()
            rate = self._inverter.optimizer.learning_rate
            rate.assign(0.3 * rate.numpy())

    def restore_best(self) -> None:
        """Gives the inverter the weights that had the lowest loss."""
        for kept, weight in zip(self._best, self._inverter.learned, strict=True):
            weight.assign(kept)
