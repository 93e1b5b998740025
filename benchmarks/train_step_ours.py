"""One process of `benchmarks.train_step`: the project's own step, timed on one batch in memory."""

import json
import math
import statistics
import tempfile
import time
from pathlib import Path

from absl import app, flags

from benchmarks import runner
from tfadv.defences import build as defence_build
from tfadv.modes import startup

FLAGS = flags.FLAGS
ATTRIBUTES = 40
WARM_UP = 3

flags.DEFINE_enum("what", "protect", ["protect", "attack", "attack_all"], "Step to time.")
flags.DEFINE_integer("size", 64, "Side of the pictures in pixels.")
flags.DEFINE_integer("batch", 64, "Pictures.")
flags.DEFINE_enum("precision", "float32", ["float32", "mixed_bfloat16"], "Of the networks.")
flags.DEFINE_integer("steps", 8, "Steps to take the median of.")
flags.DEFINE_string("profile", None, "Write a TensorFlow profile of three steps to this folder.")


def main(_) -> None:
    """Prints one line of JSON."""
    startup.import_tensorflow()
    import tensorflow as tf

    from tfadv.config.schema import Config
    from tfadv.training import trainer

    config = Config()
    config.data.size, config.train.batch = FLAGS.size, FLAGS.batch
    config.train.clip_norm = 0.0  # the peer has none
    config.runtime.precision = FLAGS.precision
    trainer.set_up(config.runtime)
    model, batch = build(config)
    step = tf.function(model.train_step)

    def timed_step() -> float:
        began = time.perf_counter()
        for loss in step(batch).values():
            loss.numpy()
        return time.perf_counter() - began

    for _ in range(WARM_UP):
        timed_step()
    seconds = [timed_step() for _ in range(FLAGS.steps)]
    median = statistics.median(seconds)
    if FLAGS.profile:
        with tf.profiler.experimental.Profile(FLAGS.profile):
            for _ in range(3):
                timed_step()
    result = {
        "step_s": median,
        "images_per_s": FLAGS.batch / median,
        "peak_mib": runner.peak_memory(),
    }
    print(json.dumps(result | {"gmacs": multiply_adds(model) / 1e9}))


def build(config):
    """Returns the model that the flags ask for, compiled, and a batch of it."""
    return _protect(config) if FLAGS.what == "protect" else _attack(config)


def multiply_adds(model) -> float:
    """Of one step: passes forward, and backward to the inputs and to the kernels."""
    adversary = model.adversary
    passes = [(adversary.decoder, 3)]
    if FLAGS.what == "protect":
        # Enc in inference in (a), Dec in inference with a gradient to its inputs in (b).
        passes = [(model.encoder, 1 + 3), (model.classifier, 3), (adversary.decoder, 3 + 2)]
    if FLAGS.what == "attack_all":
        # D learns from both kinds of pictures, then judges and guides; g sees both, guides by one.
        passes += [(adversary.discriminator, 2 * 3 + 2), (adversary.g._network, 2 + 1)]
    return FLAGS.batch * sum(count * macs_per_picture(network) for network, count in passes)


def macs_per_picture(network) -> int:
    """Multiply-adds of one picture's way forward through all convolutions and linear layers."""
    import keras

    total = 0
    for layer in network._flatten_layers():
        if isinstance(layer, keras.layers.Conv2DTranspose):
            total += math.prod(layer.get_build_config()["input_shape"][1:3]) * _size(layer.kernel)
        elif isinstance(layer, keras.layers.Conv2D):
            shape = layer.compute_output_shape(layer.get_build_config()["input_shape"])
            total += math.prod(shape[1:3]) * _size(layer.kernel)
        elif isinstance(layer, keras.layers.Dense):
            total += _size(layer.kernel)
    return total


def _size(kernel) -> int:
    return math.prod(kernel.shape)


def _protect(config):
    import tensorflow as tf

    from tfadv.modes import protect

    config.loss.lambda1 = 1.0
    protector = protect.build(config, ATTRIBUTES, defence_build.Surroundings())
    labels = tf.cast(tf.random.uniform((FLAGS.batch, ATTRIBUTES)) > 0.5, tf.uint8)
    private = {"images": _pictures(), "labels": labels}
    return protector, {"private": private, "public": {"images": _pictures()[:, tf.newaxis]}}


def _attack(config):
    import tensorflow as tf

    from tfadv.attacks.decoder import ImageInverter
    from tfadv.models import build as models
    from tfadv.training import trainer

    g = None
    if FLAGS.what == "attack_all":
        config.loss.mu1, config.loss.mu2 = 0.03, 1.0
        g = _vgg(config)
    shape = (1000,)
    adversary = models.build_adversary(config, shape, None, g)
    inverter = ImageInverter(adversary, shape)
    inverter.compile(trainer.adam(1e-4, 0.0), models.discriminator_optimizer(config))
    return inverter, {"images": _pictures(), "features": tf.random.normal((FLAGS.batch, *shape))}


def _vgg(config):
    """g with random weights: the time doesn't depend on them."""
    import keras

    from tfadv.models.vgg import VGGFeatures

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "random.weights.h5")
        keras.applications.VGG19(include_top=False, weights=None).save_weights(path)
        return VGGFeatures(path, config.perceptual.layers, FLAGS.size)


def _pictures():
    import tensorflow as tf

    shape = (FLAGS.batch, FLAGS.size, FLAGS.size, 3)
    return tf.cast(tf.random.uniform(shape, maxval=256, dtype=tf.int32), tf.uint8)


if __name__ == "__main__":
    app.run(main)
