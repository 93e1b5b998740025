"""A small data set of people in memory, with an encoder and a recognizer of its images."""

import numpy as np

from tests.public_images import SIZE, FixedDataset
from tfadv.data.dataset import HELD_OUT, PUBLIC, TEST, TRAIN, WHOLE
from tfadv.evaluation.recognition.recognizer import Embeddings

ATTRIBUTES = ("Bright", "Red")


def make_part(people, seed, images_each=4, offset=0):
    """Images in two halves of one colour each; a person has a colour, which varies a little."""
    random = np.random.default_rng(seed)
    colours = random.uniform(60, 200, (people, 1, 2, 3)).repeat(images_each, axis=0)
    colours = colours + random.normal(0, 10, colours.shape)
    images = np.rint(colours.repeat(SIZE, 1).repeat(SIZE // 2, 2)).astype(np.uint8)
    labels = np.stack([colours.mean((1, 2, 3)) > 130, colours[:, 0, 0, 0] > 130], axis=1)
    return images, np.arange(people).repeat(images_each) + offset, labels.astype(np.uint8)


def make_dataset(train=None):
    parts = {
        (PUBLIC, TRAIN): train or make_part(15, 0),
        (PUBLIC, HELD_OUT): make_part(6, 1, offset=100),
        (TEST, WHOLE): make_part(6, 2, offset=200),
    }
    return FixedDataset(parts, ATTRIBUTES)


class Halves:
    """An encoder: the mean colours of both halves."""

    feature_shape, split = (6,), None

    def __init__(self):
        self.count = 0

    def __call__(self, images):
        self.count += len(images)
        halves = images.reshape(len(images), SIZE, 2, SIZE // 2, 3).mean((1, 3))
        return np.float32(halves.reshape(len(images), 6) / 127.5 - 1.0)


class HalvesRecognizer:
    """Knows people by the mean colours of both halves; no gradient passes it."""

    name, digest, alignment, layer = "faces", "0", "whole", "none"

    def __call__(self, images):
        vectors = Halves()((images + 1.0) * 127.5) + 0.5
        return Embeddings(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), vectors)

    def differentiable(self):
        return None
