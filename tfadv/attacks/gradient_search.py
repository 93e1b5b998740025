"""White-box inversion: searches for pictures whose features are those that leaked.

Beyond the paper's threat model, whose attacker can only call the encoder: this one has its weights
and takes gradients through it (Mahendran and Vedaldi 2015). An encoder that ships on devices can't
be kept from anyone, so that this attacker is no fancy.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tfadv.attacks.inverters import Standardisation
from tfadv.attacks.pairs import Pairs
from tfadv.config.errors import UserError
from tfadv.training.tf_errors import error_line

Encode = Callable[[tf.Tensor], tf.Tensor]

_NOISE = 0.1  # deviation of the starts, before tanh
_EPSILON = 1e-8  # keeps the gradient of total variation finite where a picture is flat


@dataclasses.dataclass(frozen=True)
class Search:
    """How pictures are searched for.

    Attributes:
        weight: of the total variation.
        learning_rate: Adam's at the beginning; cosine decay to 0.
        steps: of Adam.
    """

    weight: float
    learning_rate: float
    steps: int


SEARCHES = tuple(
    Search(weight, learning_rate, 300)
    for weight in (0.1, 1.0, 3.0, 10.0)
    for learning_rate in (0.03, 0.1)
)


class InputOptimiser:
    """Minimises a feature distance + weight x total variation over pictures, by Adam.

    The feature distance is the mean squared difference of standardised features: of two pictures
    that have nothing to do with each other, 2. A picture is tanh of what is optimised. It is
    searched for from several starts, the mean public picture with different noise, and the one
    whose features come nearest counts, which the attacker can tell without the true picture. What
    becomes of a picture doesn't depend on those beside it.

    Args:
        encode: float32 [N, S, S, 3] in [-1, 1] to features, float [N, ...], with gradients.
        standardisation: adapted to public features.
        mean_picture: float [S, S, 3] in [-1, 1].
        restarts: how many starts.
        batch: pictures optimised together.
        seed: of the noise.

    Raises:
        UserError: no gradient comes through the encoder.
    """

    def __init__(
        self,
        encode: Encode,
        standardisation: Standardisation,
        mean_picture: np.ndarray,
        *,
        restarts: int = 3,
        batch: int = 32,
        seed: int = 0,
    ):
        self._encode = encode
        self._standardisation = standardisation
        self._batch = batch
        centre = np.arctanh(np.clip(mean_picture, -0.99, 0.99)).astype(np.float32)
        noise = tf.random.stateless_normal((restarts, *centre.shape), (seed, 0), stddev=_NOISE)
        self._starts = centre + noise
        _check_gradient(encode, tf.tanh(self._starts))

    def __call__(self, features: np.ndarray, search: Search) -> tuple[np.ndarray, np.ndarray]:
        """Searches for the pictures with these features.

        Args:
            features: float [N, ...], as the encoder gives them.
            search: how.

        Returns:
            Pictures, float32 [N, S, S, 3] in [-1, 1], and their feature distances, float32 [N].
        """
        features, count = np.asarray(features, np.float32), len(features)
        # Filled up with copies of the last, so that all batches are of one shape.
        places = np.minimum(np.arange(-(-count // self._batch) * self._batch), count - 1)
        batches = [
            self._nearest(tf.constant(features[rows]), search)
            for rows in places.reshape(-1, self._batch)
        ]
        pictures, distances = map(np.concatenate, zip(*batches, strict=True))
        return pictures[:count], distances[:count]

    def _nearest(self, features: tf.Tensor, search: Search) -> tuple[np.ndarray, np.ndarray]:
        """Of each picture of a batch, the find from the start that brought it nearest."""
        # Tensors: of every number of Python's there would be another trace.
        weight, rate = tf.unstack(tf.constant([search.weight, search.learning_rate], tf.float32))
        steps = tf.constant(search.steps)
        found = [self._descend(features, start, weight, rate, steps) for start in self._starts]
        pictures, distances = (np.stack(parts) for parts in zip(*found, strict=True))
        best = np.where(np.isfinite(distances), distances, np.inf).argmin(0)
        rows = np.arange(len(best))
        return pictures[best, rows], distances[best, rows]

    @tf.function
    def _descend(self, features, start, weight, learning_rate, steps):
        """The finds from one start, [N, S, S, 3], and their feature distances, [N]."""
        targets = self._standardisation(features)
        inputs = tf.tile(start[tf.newaxis], (self._batch, 1, 1, 1))
        # Adam by hand (Kingma and Ba 2015, Algorithm 1): of Keras's the state is variables, which
        # would have to be set back for every batch.
        mean = square = tf.zeros_like(inputs)
        for step in tf.range(steps):
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                pictures = tf.tanh(inputs)
                loss = self._distances(pictures, targets) + weight * total_variation(pictures)
            gradient = tape.gradient(loss, inputs)
            # A square root at 0 in a foreign encoder would spoil the picture for good.
            gradient = tf.where(tf.math.is_finite(gradient), gradient, 0.0)
            mean = 0.9 * mean + 0.1 * gradient
            square = 0.999 * square + 0.001 * tf.square(gradient)
            done = tf.cast(step, tf.float32)
            rate = 0.5 * learning_rate * (1 + tf.cos(np.pi * done / tf.cast(steps, tf.float32)))
            unbiased_mean = mean / (1 - 0.9 ** (done + 1))
            unbiased_square = square / (1 - 0.999 ** (done + 1))
            inputs -= rate * unbiased_mean / (tf.sqrt(unbiased_square) + 1e-12)
        pictures = tf.tanh(inputs)
        return pictures, self._distances(pictures, targets)

    def _distances(self, pictures: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        squares = tf.square(self._standardisation(self._encode(pictures)) - targets)
        return tf.reduce_mean(squares, axis=tf.range(1, tf.rank(squares)))


class InputInverter:
    """The white-box attacker: `InputOptimiser` as public pictures say that it works best.

    Args:
        encode: as for `InputOptimiser`.
        train: public pairs, for the mean picture and the statistics of the features.
        held_out: public pairs of other people, on the first of which the search is chosen.
        searches: to choose from, by the mean squared error of pixels.
        examples: held-out pictures that it is chosen on.
        restarts: as for `InputOptimiser`.
        batch: as well.
        seed: as well.

    Attributes:
        search: the one chosen.
        held_out_loss: its mean squared error on those held-out pictures, in [-1, 1].

    Raises:
        UserError: no gradient comes through the encoder.
    """

    def __init__(
        self,
        encode: Encode,
        train: Pairs,
        held_out: Pairs,
        searches: Sequence[Search] = SEARCHES,
        *,
        examples: int = 16,
        restarts: int = 3,
        batch: int = 16,
        seed: int = 0,
    ):
        standardisation = Standardisation(dtype="float32")
        standardisation.build((None, *train.feature_shape))
        standardisation.adapt(pairs["features"] for pairs in train.batches())
        self._optimise = InputOptimiser(
            encode, standardisation, _mean_picture(train), restarts=restarts, batch=batch, seed=seed
        )
        few = {name: values[:examples] for name, values in next(held_out.batches()).items()}
        errors = [self._error(search, few["images"], few["features"]) for search in searches]
        self.search = searches[int(np.argmin(errors))]
        self.held_out_loss = min(errors)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Returns reconstructions, float32 [N, S, S, 3] in [-1, 1]."""
        return self._optimise(features, self.search)[0]

    def _error(self, search: Search, images: np.ndarray, features: np.ndarray) -> float:
        pictures, _ = self._optimise(features, search)
        return float(np.square(pictures - (images / 127.5 - 1.0)).mean())


def total_variation(pictures: tf.Tensor) -> tf.Tensor:
    """Returns the mean length of the gradient over places and channels, [N], of [N, S, S, 3].

    Isotropic (Rudin et al. 1992), over the places that have a neighbour below and to the right.
    """
    down = pictures[:, 1:, :-1] - pictures[:, :-1, :-1]
    right = pictures[:, :-1, 1:] - pictures[:, :-1, :-1]
    return tf.reduce_mean(tf.sqrt(tf.square(down) + tf.square(right) + _EPSILON), axis=(1, 2, 3))


def _check_gradient(encode: Encode, pictures: tf.Tensor) -> None:
    """Raises a UserError unless the features of pictures have gradients that lead somewhere."""
    try:
        with tf.GradientTape() as tape:
            tape.watch(pictures)
            features = encode(pictures)
            # Mixed at random: the plain sum of features may be constant.
            mixed = features * tf.random.stateless_normal(
                features.shape, (0, 1), dtype=features.dtype
            )
        gradient = tape.gradient(mixed, pictures)
    except LookupError as error:  # an operation that has none, or lost it when it was saved
        raise _no_gradient(error_line(error)) from None
    if gradient is None or not np.any(gradient):
        raise _no_gradient("it is 0 everywhere, as if the encoder rounded")
    if not np.isfinite(gradient).all():
        raise _no_gradient("it is not finite")


def _no_gradient(why: str) -> UserError:
    return UserError(
        f"inversion by input optimisation doesn't apply: no gradient of the features comes back "
        f"to the picture ({why}); use the attackers that only call the encoder"
    )


def _mean_picture(pairs: Pairs) -> np.ndarray:
    sums = sum(batch["images"].sum(0, dtype=np.float64) for batch in pairs.batches())
    return sums / pairs.count / 127.5 - 1.0
