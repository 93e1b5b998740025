"""A white-box attack: it searches for images with the same features, by gradients.

The paper's attacker can only call the encoder. This one has its weights and takes gradients through
it (Mahendran and Vedaldi 2015). An encoder that ships on devices cannot be kept from attackers.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfadv.attacks.attack import Attack, FittedAttack, NotApplicableError
from tfadv.attacks.knowledge import Knowledge, Pairs
from tfadv.attacks.network_training import Standardisation
from tfadv.training.tf_errors import error_line

Encode = Callable[[tf.Tensor], tf.Tensor]

_NOISE = 0.1  # standard deviation of the starts, before tanh
_EPSILON = 1e-8  # keeps the gradient of total variation finite where an image is flat
_BATCH = 16  # images that are searched for at a time; the search is chosen on as many


@dataclasses.dataclass(frozen=True)
class Search:
    """How images are searched for.

    Attributes:
        weight: of the total variation.
        learning_rate: of Adam at the start; it decays to 0 by a cosine.
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
    """Minimises a feature distance + weight x total variation over images, by Adam.

    The feature distance is the mean squared difference of standardised features; it is 2 for two
    unrelated images. An image is tanh of the optimised values. The search begins at several starts:
    the mean public image with different noise. The result whose features come nearest counts; an
    attacker can tell that without the true image. An image's result does not depend on its batch.

    Args:
        encode: float32 [N, S, S, 3] in [-1, 1] to features, float [N, ...], with gradients.
        standardisation: adapted to public features.
        mean_image: float [S, S, 3] in [-1, 1].
        restarts: number of starts.
        batch: images optimised together.
        seed: of the noise.

    Raises:
        NotApplicableError: no gradient comes through the encoder.
    """

    def __init__(
        self,
        encode: Encode,
        standardisation: Standardisation,
        mean_image: np.ndarray,
        *,
        restarts: int = 3,
        batch: int = 32,
        seed: int = 0,
    ):
        self._encode = encode
        self._standardisation = standardisation
        self._batch = batch
        centre = np.arctanh(np.clip(mean_image, -0.99, 0.99)).astype(np.float32)
        noise = tf.random.stateless_normal((restarts, *centre.shape), (seed, 0), stddev=_NOISE)
        self._starts = centre + noise
        _check_gradient(encode, tf.tanh(self._starts))

    def __call__(self, features: np.ndarray, search: Search) -> tuple[np.ndarray, np.ndarray]:
        """Searches for images with these features, float [N, ...].

        Returns:
            Images, float32 [N, S, S, 3] in [-1, 1], and their feature distances, float32 [N].
        """
        features, count = np.asarray(features, np.float32), len(features)
        # Filled with copies of the last one, so that all batches have one shape.
        places = np.minimum(np.arange(-(-count // self._batch) * self._batch), count - 1)
        batches = [
            self._nearest(tf.constant(features[rows]), search)
            for rows in places.reshape(-1, self._batch)
        ]
        images, distances = map(np.concatenate, zip(*batches, strict=True))
        return images[:count], distances[:count]

    def _nearest(self, features: tf.Tensor, search: Search) -> tuple[np.ndarray, np.ndarray]:
        """For each feature of a batch, the result of the start that came nearest."""
        # Tensors: every Python number would be traced anew.
        weight, rate = tf.unstack(tf.constant([search.weight, search.learning_rate], tf.float32))
        steps = tf.constant(search.steps)
        found = [self._descend(features, start, weight, rate, steps) for start in self._starts]
        images, distances = (np.stack(parts) for parts in zip(*found, strict=True))
        best = np.where(np.isfinite(distances), distances, np.inf).argmin(0)
        rows = np.arange(len(best))
        return images[best, rows], distances[best, rows]

    @tf.function
    def _descend(self, features, start, weight, learning_rate, steps):
        """The results of one start, [N, S, S, 3], and their feature distances, [N]."""
        targets = self._standardisation(features)
        inputs = tf.tile(start[tf.newaxis], (self._batch, 1, 1, 1))
        # Adam by hand (Kingma and Ba 2015, Algorithm 1): the state of Keras' Adam is variables,
        # which would have to be reset for every batch.
        mean = square = tf.zeros_like(inputs)
        for step in tf.range(steps):
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                images = tf.tanh(inputs)
                loss = self._distances(images, targets) + weight * total_variation(images)
            gradient = tape.gradient(loss, inputs)
            # A square root at 0 inside an encoder would make the image NaN for good.
            gradient = tf.where(tf.math.is_finite(gradient), gradient, 0.0)
            mean = 0.9 * mean + 0.1 * gradient
            square = 0.999 * square + 0.001 * tf.square(gradient)
            done = tf.cast(step, tf.float32)
            rate = 0.5 * learning_rate * (1 + tf.cos(np.pi * done / tf.cast(steps, tf.float32)))
            unbiased_mean = mean / (1 - 0.9 ** (done + 1))
            unbiased_square = square / (1 - 0.999 ** (done + 1))
            inputs -= rate * unbiased_mean / (tf.sqrt(unbiased_square) + 1e-12)
        images = tf.tanh(inputs)
        return images, self._distances(images, targets)

    def _distances(self, images: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        squares = tf.square(self._standardisation(self._encode(images)) - targets)
        return tf.reduce_mean(squares, axis=tf.range(1, tf.rank(squares)))


class GradientSearch(Attack):
    """Searches for images with the same features, by gradients through the encoder.

    Args:
        examples: number of test images that it searches for.
        searches: to choose from, by the mean squared error of the first held-out public images.
        restarts: number of starts of each search.
        seed: of the starts.
    """

    title = "search by gradients (white box)"
    meaning = (
        "Searches for an image with the same feature, by gradients through the encoder. It needs "
        "the encoder's weights, and searches for the first test images only."
    )
    is_quick = False

    def __init__(
        self,
        examples: int,
        searches: Sequence[Search] = SEARCHES,
        restarts: int = 3,
        seed: int = 0,
    ):
        self._examples, self._searches = examples, searches
        self._restarts, self._seed = restarts, seed

    def fit(self, knowledge: Knowledge, folder: Path) -> FittedAttack:
        """Chooses the search on held-out public images."""
        differentiable = getattr(knowledge.encoder, "differentiable", None)
        if differentiable is None:
            raise NotApplicableError("predictions, and means of several features, have no gradient")
        encode = differentiable()
        if encode is None:
            raise NotApplicableError("the encoder takes integers")
        train = knowledge.train.pairs
        standardisation = Standardisation(dtype="float32")
        standardisation.build((None, *train.feature_shape))
        standardisation.adapt(train.feature_batches)
        optimise = InputOptimiser(
            encode,
            standardisation,
            _mean_image(train),
            restarts=self._restarts,
            batch=_BATCH,
            seed=self._seed,
        )
        first = next(knowledge.held_out.pairs.batches())
        images, features = first["images"][:_BATCH] / 127.5 - 1.0, first["features"][:_BATCH]
        errors = [
            float(np.square(optimise(features, search)[0] - images).mean())
            for search in self._searches
        ]
        best = self._searches[int(np.argmin(errors))]
        return FittedAttack(
            reconstruct=lambda features: optimise(features, best)[0],
            examples=self._examples,
            held_out_loss=min(errors),
        )


def total_variation(images: tf.Tensor) -> tf.Tensor:
    """Returns the mean length of the gradient over places and channels, [N], of [N, S, S, 3].

    Isotropic (Rudin et al. 1992), over the places that have a neighbour below and to the right.
    """
    down = images[:, 1:, :-1] - images[:, :-1, :-1]
    right = images[:, :-1, 1:] - images[:, :-1, :-1]
    return tf.reduce_mean(tf.sqrt(tf.square(down) + tf.square(right) + _EPSILON), axis=(1, 2, 3))


def _check_gradient(encode: Encode, images: tf.Tensor) -> None:
    """Raises a NotApplicableError unless features have finite gradients other than 0."""
    try:
        with tf.GradientTape() as tape:
            tape.watch(images)
            features = encode(images)
            # Weighted at random: the plain sum of features may be constant.
            mixed = features * tf.random.stateless_normal(
                features.shape, (0, 1), dtype=features.dtype
            )
        gradient = tape.gradient(mixed, images)
    except LookupError as error:  # an operation that has no gradient, or lost it in the export
        raise _no_gradient(error_line(error)) from None
    if gradient is None or not np.any(gradient):
        raise _no_gradient("it is 0 everywhere, as if the encoder rounded")
    if not np.isfinite(gradient).all():
        raise _no_gradient("it is not finite")


def _no_gradient(reason: str) -> NotApplicableError:
    return NotApplicableError(f"no gradient of the features comes back to the image: {reason}")


def _mean_image(pairs: Pairs) -> np.ndarray:
    sums = sum(batch["images"].sum(0, dtype=np.float64) for batch in pairs.batches())
    return sums / pairs.count / 127.5 - 1.0
