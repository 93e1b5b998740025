"""Trains the same model on one device and on several; run by `test_distribution.py`.

In a process of its own, because the number of logical CPUs is fixed once TensorFlow has started.
"""

import functools
import json
import sys
import tempfile

import keras
import numpy as np
import tensorflow as tf

from tfadv.attacks.decoder import ImageInverter
from tfadv.config.schema import Config, Data, Loss, Model, Runtime, Train
from tfadv.defences.protector import Protector
from tfadv.defences.terms import Reconstruction
from tfadv.evaluation.recognition.identity_classifier import IdentityClassifier
from tfadv.models import build as models
from tfadv.models.batch_normalization import BatchNormalization, synchronize
from tfadv.models.layers import Convolution, Linear
from tfadv.training import distribution
from tfadv.training import trainer as training
from tfadv.training.optimizer import FusedAdam

DEVICES = 4
SIZE, BATCH, STEPS, ATTRIBUTES, CHANNELS = 32, 16, 20, 5, 24
# Of the protector. A map passes two layers of the decoder, a vector seven. They are traced for each
# device.
FEATURES = (SIZE // 4, SIZE // 4, CHANNELS)


class Descent(FusedAdam):
    """Plain gradient descent, aggregated as FusedAdam does.

    Adam divides by the size of gradients, which amplifies rounding errors of those near 0. With
    Adam, a change of 1e-7 in the first weights has the same effect as a second device: a distance
    of 1.2e-3 after 20 steps.
    """

    def update_step(self, gradient, variable, learning_rate):
        """Updates one variable."""
        variable.assign_sub(tf.cast(learning_rate * gradient, variable.dtype))


ADAM, DESCENT = training.adam, functools.partial(Descent, 0.0005, global_clipnorm=5.0)


class Halves:
    """Stands in for VGG19: the image at half of its size."""

    layers = ("half",)

    def __call__(self, images):
        return [tf.nn.avg_pool2d(tf.cast(images, tf.float32), 2, 2, "VALID")]


def make_config(precision, terms):
    return Config(
        data=Data(size=SIZE),
        model=Model(decoder_width=0.05, discriminator_width=0.125),
        train=Train(steps=STEPS, batch=BATCH, decoder_steps=2, log_every=STEPS // 2),
        runtime=Runtime(precision=precision, synchronised=True),
        loss=Loss(**terms),
    )


class SmallEncoder(keras.Model):
    """Two convolutions with batch normalisation: quick to trace, where a ResNet takes a minute."""

    def __init__(self):
        super().__init__()
        self.first, self.second = Convolution(8, 3, 2), Convolution(CHANNELS, 3, 2)
        self.norm, self.other_norm = BatchNormalization(), BatchNormalization()

    def build(self, input_shape):
        self.first.build(input_shape)
        self.norm.build((None, None, None, 8))
        self.second.build((None, None, None, 8))
        self.other_norm.build((None, None, None, CHANNELS))

    def call(self, images, training=False):
        maps = tf.nn.relu(self.norm(self.first(images), training=training))
        return tf.nn.relu(self.other_norm(self.second(maps), training=training))


def make_protector(config):
    loss = config.loss
    encoder = SmallEncoder()
    encoder.build((None, SIZE, SIZE, 3))
    classifier = keras.Sequential([keras.layers.GlobalAveragePooling2D(), Linear(ATTRIBUTES)])
    classifier.build((None, *FEATURES))
    defences = []
    if loss.lambda1 or loss.lambda2:
        adversary = models.build_adversary(
            config.model,
            config.loss,
            config.data.size,
            FEATURES,
            None,
            Halves(),
            synchronised=True,
        )
        adversary.compile(
            training.adam(),
            models.build_discriminator_optimizer(
                config.loss.mu1, config.train.discriminator_learning_rate
            ),
        )
        defences = [Reconstruction(adversary, loss.lambda1, loss.lambda2)]
    model = Protector(encoder, classifier, defences, warm_up=10)
    synchronize(model)
    model.compile(training.adam())

    def batch(step):
        labels = tf.random.stateless_uniform((BATCH, ATTRIBUTES), (step, 0)) > 0.5
        public = [make_images(step, 2 + i) for i in range(config.train.decoder_steps)]
        return {
            "private": {"images": make_images(step, 1), "labels": tf.cast(labels, tf.uint8)},
            "public": {"images": tf.stack(public, axis=1)},
        }

    return model, batch


def make_inverter(config):
    shape = (CHANNELS,)
    adversary = models.build_adversary(
        config.model, config.loss, config.data.size, shape, None, Halves(), synchronised=True
    )
    model = ImageInverter(adversary, shape)
    model.compile(
        training.adam(),
        models.build_discriminator_optimizer(
            config.loss.mu1, config.train.discriminator_learning_rate
        ),
    )

    def batch(step):
        features = tf.random.stateless_normal((BATCH, *shape), (step, 0))
        return {"images": make_images(step, 1), "features": features}

    return model, batch


class SmallEmbedder(SmallEncoder):
    """Features of length 1."""

    embedding = CHANNELS

    def call(self, images, training=False):
        features = tf.reduce_mean(super().call(images, training=training), axis=(1, 2))
        return {"embedding": tf.math.l2_normalize(features, axis=1)}


def make_recognizer(config):
    embedder = SmallEmbedder()
    embedder.build((None, SIZE, SIZE, 3))
    model = IdentityClassifier(embedder, ATTRIBUTES)
    synchronize(model)
    model.compile(training.adam())

    def batch(step):
        labels = tf.random.stateless_uniform((BATCH,), (step, 0), -1, ATTRIBUTES, tf.int64)
        return {"images": make_images(step, 1), "labels": labels}

    return model, batch


MAKERS = {"protect": make_protector, "attack": make_inverter, "recognizer": make_recognizer}


def make_images(step, stream):
    shape = (BATCH, SIZE, SIZE, 3)
    drawn = tf.random.stateless_uniform(shape, (step, stream), 0, 256, dtype=tf.int32)
    return tf.cast(drawn, tf.uint8)


@functools.cache
def strategy_of(count):
    """The strategy of `count` devices.

    A second strategy in a process would reuse the first one's reduction numbers. A process can
    therefore only have cases with 1 and one other number of devices.
    """
    if count == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(count)])


def train(make, config, devices):
    """The logged rows, and the weights before and after.

    Each number of devices trains an equal part of the steps, from the last one's checkpoint.
    """
    folder, starts = tempfile.mkdtemp(), []
    for part, count in enumerate(devices, start=1):
        config.train.steps = STEPS * part // len(devices)
        with strategy_of(count).scope():
            rows, before, after = train_in_scope(make, config, folder)
        starts.append(before)
    return rows, starts[0], after


def train_in_scope(make, config, folder):
    """As `train`, in the current strategy; a worker takes its share of each batch."""
    training.set_up(config.runtime)
    model, batch = make(config)
    before = model.get_weights()
    trainer = training.Trainer(model, config.train, folder, f"{distribution.replicas()}")
    share = BATCH // distribution.workers()
    own = slice(distribution.worker() * share, (distribution.worker() + 1) * share)
    batches = endless(batch, own)
    trainer.run(lambda step: batches.skip(step), lambda step: ({}, True))
    return trainer.history.rows, before, model.get_weights()


def endless(batch, own=slice(None)):
    """The batches of all steps, or some rows of each."""
    return tf.data.Dataset.range(10**6).map(
        lambda step: tf.nest.map_structure(lambda tensor: tensor[own], batch(step))
    )


def norm(weights):
    return float(np.sqrt(sum(np.square(each.astype(np.float64)).sum() for each in weights)))


@functools.cache
def train_alone(what, precision, loss):
    """As `train`, on one device; cached for all comparisons."""
    return train(MAKERS[what], make_config(precision, json.loads(loss)), [1])


def compare(case):
    """The distance of the weights, relative to their norm and to their change in training."""
    what, precision, loss = case["what"], case["precision"], case["loss"]
    use()
    rows, start, one = train_alone(what, precision, json.dumps(loss))
    other_rows, _, other = train(MAKERS[what], make_config(precision, loss), case["devices"])
    apart = norm([a - b for a, b in zip(one, other, strict=True)])
    measured = [
        abs(row[name] - other_row[name]) / abs(row[name])
        for row, other_row in zip(rows, other_rows, strict=True)
        for name in set(row) - {"step", "images_per_s"}
    ]
    return {
        "weights": apart / norm(one),
        "way": apart / norm([a - b for a, b in zip(one, start, strict=True)]),
        "logged": max(measured),
    }


def slots_apart(case):
    """The change of Adam's moments after a move to another number of devices."""
    make, config = MAKERS[case["what"]], make_config(case["precision"], case["loss"])
    folder, kept = tempfile.mkdtemp(), []
    config.train.steps = 3
    use(functools.partial(ADAM, 1e-3, 5.0))
    for count in case["devices"]:  # the second one has no steps left
        with strategy_of(count).scope():
            training.set_up(config.runtime)
            model, batch = make(config)
            trainer = training.Trainer(model, config.train, folder, f"{count}")
            trainer.run(lambda step, batch=batch: endless(batch).skip(step), lambda _: ({}, True))
            optimizers = training._optimizers(model)
            kept.append([each.numpy() for one in optimizers for each in one.variables])
    return {
        "apart": norm([a - b for a, b in zip(*kept, strict=True)]),
        "least": min(np.abs(each).max() for each in kept[0] if each.size > 1) and 1.0,
    }


def use(optimizer=DESCENT):
    """Makes an optimiser train all models, by default plain gradient descent."""
    training.adam = lambda *_, **__: optimizer()


def main():
    """Prints a line of JSON for each case that the command line asks for."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration()] * DEVICES
    tf.config.set_logical_device_configuration(cpu, devices)
    for case in map(json.loads, sys.argv[1:]):
        print(json.dumps(slots_apart(case) if case.get("adam") else compare(case)), flush=True)
        keras.backend.clear_session()


if __name__ == "__main__":
    main()
