"""The black-box model inversion attack (Eq. 1): Dec^a learns to turn features back into pictures.

The attacker has pictures of its own and a callable from uint8 pictures to features. It sees no
labels, no private pictures, no weights and no gradients of the encoder.
"""

import math
from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np
import tensorflow as tf

from tfadv.data import PUBLIC, Dataset, in_memory_batches, normalise
from tfadv.losses import reconstruction_loss

BlackBox = Callable[[np.ndarray], np.ndarray]


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
        # A dimension that moves less than float32 resolves says nothing: scale 0, rather than
        # noise blown up. However small the features are, they may move: no absolute limit.
        float32 = np.finfo(np.float32)
        moves = deviation > np.maximum(float32.eps * np.abs(mean), float32.tiny)
        self.mean.assign(mean)
        self.scale.assign(np.where(moves, 1.0 / np.where(moves, deviation, 1.0), 0.0))

    def call(self, features):
        """Returns the features standardised, float32."""
        return (tf.cast(features, tf.float32) - self.mean) * self.scale


class ImageInverter(keras.Model):
    """Dec^a: trained on pairs of a public picture and its feature to reconstruct the picture.

    A step's data is {"images": uint8 [N, S, S, 3], "features": float [N, ...]}.

    Args:
        decoder: Dec^a, built: standardised features to pictures in [-1, 1].
        feature_shape: of one picture's feature.
    """

    measurements = ("reconstruction",)

    def __init__(self, decoder, feature_shape, **kwargs):
        super().__init__(**kwargs)
        self.standardisation = Standardisation(dtype="float32")
        self.standardisation.build((None, *feature_shape))
        self.decoder = decoder

    def compile(self, optimizer, **kwargs):
        """Takes the optimiser and builds it with Dec^a's variables."""
        # XLA on a CPU makes these convolutions 4 to 5 times slower.
        kwargs.setdefault("jit_compile", False)
        super().compile(optimizer=optimizer, **kwargs)
        self.optimizer.build(self.decoder.trainable_variables)

    def call(self, features, training=False):
        """Returns reconstructions, float32 [N, S, S, 3] in [-1, 1]."""
        return self.decoder(self.standardisation(features), training=training)

    def train_step(self, data):
        """Minimises Eq. 1; returns the loss."""
        with tf.GradientTape() as tape:
            loss = self._loss(data, training=True)
        variables = self.decoder.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"reconstruction": loss}

    def test_step(self, data):
        """Returns Eq. 1 without learning."""
        return {"reconstruction": self._loss(data, training=False)}

    def _loss(self, data, training):
        reconstructions = self(data["features"], training=training)
        return reconstruction_loss(normalise(data["images"]), reconstructions)


class Plateau(tf.Module):
    """Decides when an attack has stopped improving: one that stops early flatters the defence.

    After `patience` evaluations without improvement the learning rate falls to 0.3 of itself and
    training goes on from the best weights so far; after `rate_drops` of those, the attack ends. All
    of its state is variables, so that a checkpoint holds it.

    Args:
        inverter: compiled.
        patience: evaluations.
        rate_drops: times.
    """

    def __init__(self, inverter: ImageInverter, patience: int, rate_drops: int):
        super().__init__()
        self._inverter = inverter
        self._patience = patience
        self._rate_drops = rate_drops
        self._lowest = tf.Variable(np.inf, dtype=tf.float64)
        self._waited = tf.Variable(0)
        self._drops = tf.Variable(0)
        self._best = [tf.Variable(weight) for weight in inverter.decoder.get_weights()]

    @property
    def lowest(self) -> float:
        """The lowest loss so far."""
        return float(self._lowest)

    @property
    def ended(self) -> bool:
        """Whether the attack is over."""
        return int(self._drops) > self._rate_drops

    def update(self, loss: float) -> None:
        """Takes the loss of one evaluation on held-out pictures."""
        if loss < self.lowest * (1 - 1e-4):
            self._lowest.assign(loss)
            self._waited.assign(0)
            for kept, weight in zip(self._best, self._inverter.decoder.variables, strict=True):
                kept.assign(weight.value)
            return
        self._waited.assign_add(1)
        if int(self._waited) == self._patience:
            self._waited.assign(0)
            self._drops.assign_add(1)
            self.restore_best()
            rate = self._inverter.optimizer.learning_rate
            rate.assign(0.3 * rate)

    def restore_best(self) -> None:
        """Gives the decoder the weights that had the lowest loss."""
        self._inverter.decoder.set_weights([kept.numpy() for kept in self._best])


class Pairs:
    """Pairs of a picture and its feature from one part of the public split.

    Each picture is sent to the black box once and its feature kept, if all of them fit the budget;
    else it is sent again every time it is needed.

    Args:
        black_box: uint8 [N, S, S, 3] to features, float [N, ...].
        dataset: where the pictures come from; labels and identities are dropped.
        part: of the public split.
        feature_shape: of one picture's feature.
        budget_mb: what may be kept in memory, in MiB.
    """

    def __init__(
        self,
        black_box: BlackBox,
        dataset: Dataset,
        part: str,
        feature_shape: tuple[int, ...],
        budget_mb: float,
    ):
        self._black_box = black_box
        self._dataset = dataset
        self._part = part
        self._feature_shape = tuple(feature_shape)
        self.count = dataset.count(PUBLIC, part)
        self._kept = None
        bytes_each = 4 * math.prod(feature_shape) + 3 * dataset.size**2
        if self.count * bytes_each <= budget_mb * 2**20:
            self._kept = self._keep()

    def batches(self) -> Iterator[dict[str, np.ndarray]]:
        """Yields every pair once, in order, in the dataset's evaluation batches."""
        batch = self._dataset.evaluation_batch
        if self._kept is not None:
            for start in range(0, self.count, batch):
                yield {name: array[start : start + batch] for name, array in self._kept.items()}
            return
        for pictures in self._dataset.batches(PUBLIC, self._part, batch):
            images = pictures["images"].numpy()
            yield {"images": images, "features": self._encode(images)}

    def training_batches(self, batch: int, *, seed: int, start: int = 0) -> tf.data.Dataset:
        """Returns shuffled full batches without end, in an order that depends on `seed` alone."""
        if self._kept is not None:
            return in_memory_batches(self._kept, batch, seed=seed, start=start)

        def encode(pictures):
            images = pictures["images"]
            features = tf.numpy_function(self._encode, [images], tf.float32)
            features.set_shape((batch, *self._feature_shape))
            return {"images": images, "features": features}

        pictures = self._dataset.training_batches(PUBLIC, self._part, batch, seed=seed, start=start)
        return pictures.map(encode).prefetch(2)

    def _encode(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self._black_box(images), np.float32)

    def _keep(self) -> dict[str, np.ndarray]:
        """All pairs, filled in batch by batch: a list of batches would take twice the budget."""
        side = self._dataset.size
        images = np.empty((self.count, side, side, 3), np.uint8)
        features = np.empty((self.count, *self._feature_shape), np.float32)
        done = 0
        for batch in self.batches():
            rows = slice(done, done := done + len(batch["images"]))
            images[rows], features[rows] = batch["images"], batch["features"]
        return {"images": images, "features": features}
