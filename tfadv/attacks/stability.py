"""Whether an encoder's feature depends on its image alone, which every attack relies on."""

import functools
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

from tfadv.attacks.black_box import BlackBox
from tfadv.config.errors import UserError

BATCH = "the other images of a batch, or their order"
BATCH_SIZE = "the number of images in a batch"
CALLS = "how often the encoder was called"
PROCESS = "the process that the encoder runs in"

QUERIES = 16  # of a random encoder, for each image and each way to ask
_IMAGES = 256
_VALUES = 2**24  # of features that are compared at once
_ALONE = {False: 64, True: 28}  # images in small batches, each call a batch: not random, random
_PROBED = 32  # images that are sent again and again, to see whether the encoder is random
_QUICK = 8  # images that are sent alone before the attacks
_PERMUTATIONS = 99_999
_FARTHEST = 5.0  # spreads
_STANDS_OUT = 6.0  # standard deviations
_FLIPPED = 0.01  # share of values that may move by a level
_FLIPPED_IN_ROW = 1 / 8  # of one image, and of one dimension
# Shares of a dimension's spread that are rounding. A GPU computes batches of other sizes by other
# algorithms, some with 10 bits of mantissa.
_ROUNDING, _ROUNDING_ON_GPU = 1e-3, 2e-2


class Stability:
    """Asks an encoder for the same images in several ways, before and after the attacks.

    A service sends images alone, in any order and from a process of its own. Attacks send batches,
    always in one order. If the feature of an image depends on more than the image, attacks measure
    something else than what leaks. Such an encoder is refused.

    A random encoder gives another feature each time. Its features are compared as distributions:
    `QUERIES` features of each image, asked in one way, and as many asked in another way. The energy
    distance between them (Szekely and Rizzo 2013) is zero only for equal distributions, so that
    noise around another mean, another sign and another spread all count. It is compared with the
    distances after random exchanges of features between both ways.

    An encoder that deceives only now and then, for other images than these, or by less than the
    rounding of `differs`, is not found.

    Args:
        name: of the encoder, for messages.
        encoder: the black box.
        batches: of test images, uint8 [N, S, S, 3], as attacks send them; the first are used.

    Attributes:
        is_random: whether the same call gives other features each time.
        kept: number of first images whose features are compared.

    Raises:
        UserError: its features change once, from one call on, or those of its first call stand out.
    """

    def __init__(self, name: str, encoder: BlackBox, batches: Iterable[np.ndarray]):
        self._name, self._encoder = name, encoder
        self._batches = []
        values = int(np.prod(encoder.feature_shape))
        for batch in batches:
            self._batches.append(batch)
            count = sum(map(len, self._batches))
            if count >= _IMAGES or count * values >= _VALUES:
                break
        first = self._batches[0]
        fitting = max(_QUICK, _VALUES // (QUERIES * values))
        probe = first[: min(fitting, _PROBED)]
        calls = np.stack([self._encode(probe) for _ in range(QUERIES)])
        changes = sum(map(differs, calls, calls[1:]))
        self.is_random = changes > 0
        if changes == 1 or (self.is_random and first_stands_out(calls)):
            raise self._refusal(CALLS)
        if self.is_random:
            self._batches = [first]
            kept = min(fitting, _ALONE[True])
            self._attacked = np.stack([self._encode(first)[:kept] for _ in range(QUERIES)])
        else:
            kept = max(_QUICK, _VALUES // values)
            self._attacked = np.concatenate([*map(self._encode, self._batches)])[None, :kept]
        self._images = np.concatenate(self._batches)
        self.kept = self._attacked.shape[1]

    def check_quickly(self) -> None:
        """Sends a few images in another batch, and alone, so that no user waits for a refusal.

        Raises:
            UserError: a feature depends on more than its image.
        """
        first = getattr(self._encoder, "first", None)
        if first is not None and not self.is_random:
            images, features = first
            if differs(_rows(features), self._encode(images)):
                raise self._refusal(CALLS)
        self._check_batch()
        self._check_size(1, _QUICK)

    def check(self, attacked: np.ndarray | None = None, *, in_new_process: bool = True) -> None:
        """Sends the images in all ways again, after the attacks.

        Args:
            attacked: the features of the first images that attacks saw, [N, ...], of an encoder
                that is not random.
            in_new_process: whether to ask in a new process as well, which takes seconds to start.

        Raises:
            UserError: a feature depends on more than its image.
        """
        if attacked is not None:
            self._compare(_rows(attacked)[None], np.arange(self.kept), CALLS)
        self._compare(self._ask(self._batches), np.arange(len(self._images)), CALLS)
        self._check_batch()
        for size in (1, 2, 7):
            self._check_size(size, _ALONE[self.is_random])
        if in_new_process:
            self._check_process()

    def _check_batch(self) -> None:
        """Asks for a batch of the same size with other images, in another order."""
        chosen = np.random.default_rng(0).integers(len(self._images), size=len(self._batches[0]))
        self._compare(self._ask([self._images[chosen]]), chosen, BATCH)

    def _check_size(self, size: int, count: int) -> None:
        """Asks for the first images in batches of another size."""
        images = self._images[: min(count, self.kept)]
        batches = [images[start : start + size] for start in range(0, len(images), size)]
        self._compare(self._ask(batches), np.arange(len(images)), BATCH_SIZE)

    def _check_process(self) -> None:
        """Asks for the images in a new process, from its first call on."""
        ask = getattr(self._encoder, "in_new_process", None)
        if ask is None:
            return
        features = ask(self._batches, len(self._attacked))
        features = features.reshape(*features.shape[:2], -1)
        if self.is_random and first_stands_out(features[:, : self.kept]):
            raise self._refusal(CALLS)
        self._compare(features, np.arange(len(self._images)), PROCESS)

    def _ask(self, batches: Sequence[np.ndarray]) -> np.ndarray:
        """The features of batches of images, [Q, N, D], one query or `QUERIES` of each image."""
        queries = range(len(self._attacked))
        return np.stack([np.concatenate([*map(self._encode, batches)]) for _ in queries])

    def _encode(self, images: np.ndarray) -> np.ndarray:
        return _rows(self._encoder(images))

    def _compare(self, features: np.ndarray, places: np.ndarray, reason: str) -> None:
        """Refuses the encoder if features, [Q, N, D], are not those that attacks see.

        Args:
            features: of the images at `places`, int [N].
            places: among all images; those without a kept feature are left out.
            reason: what the features depend on if they differ.
        """
        is_kept = places < self.kept
        one, other = self._attacked[:, places[is_kept]], features[:, is_kept]
        scale = self._attacked.reshape(-1, one.shape[-1])
        if self.is_random:
            is_other = has_other_distribution(one, other, scale)
        else:
            on_gpu = bool(tf.config.list_physical_devices("GPU"))
            rounding = _ROUNDING_ON_GPU if on_gpu else _ROUNDING
            is_other = differs(one[0], other[0], scale, rounding)
        if is_other:
            raise self._refusal(reason)

    def _refusal(self, reason: str) -> UserError:
        return UserError(
            f"the features of {self._name} depend on {reason}, and not on the image alone, so that "
            f"attacks cannot measure what it leaks: export it in inference mode (training=False), "
            f"with nothing kept between calls"
        )


def differs(
    one: np.ndarray,
    other: np.ndarray,
    scale: np.ndarray | None = None,
    rounding: float = _ROUNDING,
) -> bool:
    """Returns whether two features, float [N, ...], of the same images differ beyond rounding.

    Rounding is a share of a dimension's spread over images. The spread is taken between quantiles,
    so that neither a dimension of large values nor an image of large values hides others. Where a
    feature is rounded to levels, as codes of one bit are, rounding before can move a value by a
    whole level at the edge of two. So a value may move by two levels, if that happens to no more
    than 1% of all values, and an eighth of the values of any image and of any dimension. A level is
    the mean distance between the distinct values of a dimension.

    Args:
        one, other: the features.
        scale: more features, [M, ...], to take spreads and levels from; `one` if None.
        rounding: the share of the spread.
    """
    one, other = _rows(one), _rows(other)
    scale = one if scale is None else _rows(scale)
    error = np.abs(np.asarray(one, np.float64) - other)
    width, floor = _spread(scale)
    is_off = error > rounding * width + floor + 1e-5 * np.abs(one)
    if not is_off.any():
        return False
    ordered = np.sort(scale, axis=0)
    levels = (np.diff(ordered, axis=0) > 0).sum(0)
    level = (ordered[-1].astype(np.float64) - ordered[0]) / np.maximum(levels, 1)
    return bool(
        (is_off & (error > 2 * level + floor)).any()
        or is_off.sum() > max(1, _FLIPPED * is_off.size)
        or any(
            is_off.sum(axis).max() > max(1, _FLIPPED_IN_ROW * is_off.shape[axis]) for axis in (0, 1)
        )
    )


def has_other_distribution(one: np.ndarray, other: np.ndarray, scale: np.ndarray) -> bool:
    """Returns whether random features of the same images, [Q, N, D], come from two distributions.

    This is a permutation test of the energy distance, summed over images, at a level of 1e-5.

    Args:
        one, other: Q queries of N images, asked in two ways.
        scale: features, [M, D], to take the spread of each dimension from.
    """
    distances = _distances(np.concatenate([one, other]), scale)
    signs = _splits(len(one))
    energy = -np.einsum("pi,pi->p", signs @ distances, signs)
    return bool(energy[0] > energy[1:].max() * (1 + 1e-9))


@functools.cache
def _splits(queries: int) -> np.ndarray:
    """1 and -1 for both halves of 2 Q queries, and then for random halves of them, [P, 2 Q]."""
    signs = np.tile(np.repeat([1.0, -1.0], queries), (1 + _PERMUTATIONS, 1))
    signs[1:] = np.random.default_rng(0).permuted(signs[1:], axis=1)
    return signs


def first_stands_out(features: np.ndarray) -> bool:
    """Returns whether the first of Q queries, [Q, N, D], is an outlier among them.

    It is one if its mean distance to the others lies outside theirs by `_STANDS_OUT` standard
    deviations.
    """
    means = _distances(features, features.reshape(-1, features.shape[-1])).mean(axis=0)
    first, others = means[0], means[1:]
    return bool(abs(first - others.mean()) > _STANDS_OUT * others.std() + 1e-6 * others.mean())


def _spread(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The spread of each dimension, as a standard deviation, and the rounding of any float32."""
    low, middle, high = np.quantile(features, (0.05, 0.5, 0.95), axis=0)
    width = (high - low) / 3.29  # of a normal distribution
    return width, 1e-6 * (np.abs(middle) + np.median(width))


def _distances(features: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The distance of each query to each other, [Q, Q], of features [Q, N, D], sum over images.

    Dimensions are in units of their spread in `scale`, [M, D]. Values far from an image's median
    are cut, so that noise with heavy tails hides nothing.
    """
    width, floor = _spread(scale)
    total = np.zeros((len(features), len(features)))
    for image in np.moveaxis(features, 1, 0):
        rows = (image - np.median(image, axis=0)) / (width + floor + 1e-30)
        rows = np.clip(rows, -_FARTHEST, _FARTHEST)
        squares = np.square(rows).sum(axis=1)
        total += np.sqrt(np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0.0))
    return total


def _rows(features: np.ndarray) -> np.ndarray:
    """Features as vectors, float32 [N, D], without averaging."""
    features = np.asarray(features, np.float32)
    return features.reshape(len(features), -1)
