"""Estimates the time and disk space of runs, from a few steps of each kind on random images.

Reads no data set and no file of weights: neither changes the time of a step.
"""

import copy
import functools
import gc
import math
import statistics
import sys
import time
from collections.abc import Sequence

import keras
import tensorflow as tf

from tfadv.attacks.decoder import ImageInverter
from tfadv.config.experiment import Part
from tfadv.config.fields import defences, flatten
from tfadv.defences import build as defence_build
from tfadv.models import build as models
from tfadv.modes import recognizer
from tfadv.training import distribution, trainer

_UNTIMED, _TIMED = 2, 3  # steps
# Where only the data set knows: typical numbers, which hardly change the time of a step.
ATTRIBUTES, _PEOPLE, _EMBEDDING = 40, 1000, 128
_CHECKPOINT_BYTES = 2 * 3 * 4  # per weight: two checkpoints of float32 weights and Adam's moments


def describe(parts: Sequence[Part]) -> str:
    """Returns how long the runs train at most, and how much they write to the disk."""
    if not parts:
        return "nothing is left to do"
    seconds, size, known = 0.0, 0, {}
    for part in parts:
        kind = _kind(part)
        if kind not in known:
            print(f"timing a few steps of {part.path.name}", file=sys.stderr, flush=True)
            known[kind] = _measure(part)
        seconds_per_step, checkpoint_bytes = known[kind]
        seconds += part.config.train.steps * seconds_per_step
        size += checkpoint_bytes
    return (
        f"{len(parts)} runs are left: at most {duration(seconds)} of training, {size / 2**30:.1f} "
        f"GiB of checkpoints. Attacks stop early when they no longer improve. Evaluation is not "
        f"included. No data set was read: the estimate assumes {_PEOPLE:,} people, and "
        f"{ATTRIBUTES} attributes where a row names none."
    )


def duration(seconds: float) -> str:
    """Returns a duration in minutes, or in hours if it is longer than one."""
    return f"{seconds / 3600:.1f} hours" if seconds > 3600 else f"{math.ceil(seconds / 60)} minutes"


def _kind(part: Part) -> str:
    """Everything that decides how long a step takes."""
    config, loss = part.config, part.config.loss
    terms = [bool(each) for each in (loss.mu1, loss.mu2)] + sorted(defences(flatten(config)))
    encoder = part.encoder_run and part.encoder_run.config
    encoder = encoder and (encoder.model, encoder.bottleneck)
    train = (config.train.batch, config.train.decoder_steps, config.runtime.precision)
    return repr((part.mode, config.data.size, config.model, encoder, terms, train))


def _measure(part: Part) -> tuple[float, int]:
    """Seconds per step, and bytes of checkpoints."""
    part = copy.deepcopy(part)
    config = part.config
    config.model.weights = config.perceptual.weights = ""  # random
    trainer.set_up(config.runtime)
    build = {"recognizer": _recognizer, "protect": _protector, "attack": _inverter}[part.mode]
    with distribution.make_strategy(config.runtime).scope():
        distribution.check_batch(config.train.batch)
        model, batch = build(part)
        batches = iter(distribution.distribute(tf.data.Dataset.from_tensors(batch).repeat()))
        step = tf.function(functools.partial(distribution.run, model.train_step))
        seconds = []
        for _ in range(_UNTIMED + _TIMED):
            start = time.perf_counter()
            for loss in step(next(batches)).values():
                loss.numpy()
            seconds.append(time.perf_counter() - start)
    size = _CHECKPOINT_BYTES * sum(math.prod(each.shape) for each in model.trainable_variables)
    keras.backend.clear_session()
    gc.collect()
    return statistics.median(seconds[_UNTIMED:]), size


def _recognizer(part: Part):
    labels = tf.zeros(part.config.train.batch, tf.int64)
    return recognizer.build(part.config, _PEOPLE), {"images": _images(part), "labels": labels}


def _protector(part: Part):
    config = part.config
    attributes = len(config.task.attributes) or ATTRIBUTES
    model = defence_build.build_protector(
        config,
        attributes,
        perceptual_network=models.load_vgg(config, "protect"),
        people=_PEOPLE,
        embedding=_EMBEDDING,
    )
    private = {
        "images": _images(part),
        "labels": tf.zeros((config.train.batch, attributes), tf.uint8),
        "identity": tf.zeros(config.train.batch, tf.int64),
        "embeddings": tf.random.normal((config.train.batch, _EMBEDDING)),
    }
    public = tf.stack([_images(part)] * config.train.decoder_steps, axis=1)
    return model, {"private": private, "public": {"images": public}}


def _inverter(part: Part):
    config, encoder = part.config, part.encoder_run.config
    shape = models.feature_shape(encoder, len(encoder.task.attributes) or ATTRIBUTES)
    g = models.load_vgg(config, "attack")
    adversary = models.build_adversary(
        config.model, config.loss, config.data.size, shape, encoder.model.split, g
    )
    inverter = ImageInverter(adversary, shape)
    inverter.compile(
        trainer.adam(config.train.learning_rate, config.train.clip_norm),
        models.build_discriminator_optimizer(
            config.loss.mu1, config.train.discriminator_learning_rate
        ),
    )
    features = tf.random.normal((config.train.batch, *shape))
    return inverter, {"images": _images(part), "features": features}


def _images(part: Part) -> tf.Tensor:
    shape = (part.config.train.batch, part.config.data.size, part.config.data.size, 3)
    return tf.cast(tf.random.uniform(shape, maxval=256, dtype=tf.int32), tf.uint8)
