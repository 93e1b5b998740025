"""More features of a public image than one, for attackers who ask an encoder more than once.

An attacker has the images that they learn from, and can send each of them as often as they like.
Of an image that they want to recover they have the features that were sent: one, or a few if the
same image was sent again. So

- the features of one public image are examples of their own, all with the same image as target
  (`RepeatedDataset`), for attacks that get a single feature. A mean would teach these attacks a
  feature that nobody sends; and the mean of features with a random sign is zero;
- attacks on the mean of several features learn from means of as many (`AveragedEncoder`);
- noise that is keyed by the image is new in each near copy of a public image (`near_copies`), which
  gives more examples of the noise. It does not average the noise of the attacked feature away: for
  that, the attacker would need near copies of the unknown image, such as the frames of a video.
"""

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from tfadv.attacks.attack import Attack, FittedAttack
from tfadv.attacks.black_box import BlackBox
from tfadv.data.dataset import Dataset

NEAR_COPIES = 6
_EXAMPLES = 20_000  # more would take attacks in closed form minutes
_SHIFTS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))
_QUALITY = 90  # of JPEG
_VISIBLE = 0.1  # of the distance between two images

Change = Callable[[np.ndarray, int], np.ndarray]


class RepeatedDataset:
    """A data set in which each part is there several times, as `Pairs` reads one.

    Args:
        dataset: the data set.
        times: how often each part is there.
        change: from images, uint8 [N, S, S, 3], and the number of the repetition, from 0, to the
            images that stand in their place; None leaves them as they are.
    """

    def __init__(self, dataset: Dataset, times: int, change: Change | None = None):
        self._dataset, self._times, self._change = dataset, times, change
        self.size, self.evaluation_batch = dataset.size, dataset.evaluation_batch

    def count(self, split: str, part: str) -> int:
        """Returns the number of images, repetitions included."""
        return self._times * self._dataset.count(split, part)

    def batches(self, split: str, part: str, batch: int) -> Iterator[dict[str, tf.Tensor]]:
        """Yields `images` and `index` of one repetition after the other."""
        count = self._dataset.count(split, part)
        for time in range(self._times):
            for found in self._dataset.batches(split, part, batch):
                images = found["images"]
                if self._change is not None:
                    images = tf.constant(self._change(images.numpy(), time))
                yield {"images": images, "index": found["index"] + time * count}

    def training_batches(self, *arguments, **options) -> tf.data.Dataset:
        """Returns shuffled batches of the images as they are; a random encoder repeats itself."""
        return self._dataset.training_batches(*arguments, **options)


def times_that_fit(count: int, bytes_each: float, memory: float, most: int) -> int:
    """Returns how often images can be repeated, from 1 to `most`.

    Args:
        count: number of images.
        bytes_each: of an image with its feature.
        memory: bytes that all of them may take.
        most: the most repetitions that are asked for.
    """
    return int(np.clip(min(_EXAMPLES, memory / bytes_each) // count, 1, most))


def near_copies(images: np.ndarray, time: int) -> np.ndarray:
    """Returns a near copy of each image, uint8 [N, S, S, 3]: `time` is from 0 to NEAR_COPIES - 1.

    The first are the images themselves, the next ones are shifted by a pixel, and the last went
    through JPEG.
    """
    if time < len(_SHIFTS):
        down, right = _SHIFTS[time]
        size = images.shape[1]
        padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        return padded[:, 1 - down : 1 - down + size, 1 - right : 1 - right + size]
    encoded = (tf.io.encode_jpeg(image, quality=_QUALITY) for image in images)
    return np.stack([tf.io.decode_jpeg(each).numpy() for each in encoded])


def has_image_keyed_noise(encoder: BlackBox, images: np.ndarray) -> bool:
    """Returns whether a change that nobody sees, of one level in one pixel, changes the features.

    Noise that is drawn from a hash of the image does. The change is compared with the distance to
    another image, in units of each dimension's spread; both are medians.

    Args:
        encoder: a black box that is not random.
        images: at least two different ones, uint8 [N, S, S, 3].
    """
    changed, middle = images.copy(), images.shape[1] // 2
    changed[:, middle, middle] ^= 1
    one, other = (np.asarray(encoder(each), np.float64) for each in (images, changed))
    one, other = (features.reshape(len(images), -1) for features in (one, other))
    spread = one.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    change = np.linalg.norm((one - other) / scale, axis=1)
    distance = np.linalg.norm((one - np.roll(one, 1, axis=0)) / scale, axis=1)
    return bool(np.median(change) > _VISIBLE * np.median(distance))


class Variant(Attack):
    """An attack under another title, whose result counts as one of its own.

    It is not quick, so that pages do not mix its results with those of the attack itself.

    Args:
        attack: the attack.
        key: what follows its family's name.
        title: what follows its title.
        meaning: a sentence that follows its meaning.
    """

    is_quick = False

    def __init__(self, attack: Attack, key: str, title: str, meaning: str):
        self._attack = attack
        self.title, self.meaning = f"{attack.title}, {title}", f"{attack.meaning} {meaning}"
        self.needs, self.diverges_in = attack.needs, attack.diverges_in
        self.family = attack.family and f"{attack.family}-{key}"
        self.budget = attack.budget

    def fit(self, knowledge, folder) -> FittedAttack:
        """Learns as the attack does."""
        return self._attack.fit(knowledge, folder)
