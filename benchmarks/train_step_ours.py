"""One process of `benchmarks.train_step`: times tfadv's training step on one batch in memory."""

import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from absl import app, flags

from benchmarks import runner
from tfadv.modes import startup

ATTRIBUTES = 40
WARM_UP = 3
STEPS = ("protect", "attack", "attack_all")
PRECISIONS = ("float32", "mixed_bfloat16")


class Step(NamedTuple):
    """A compiled model, one batch for its `train_step`, and the passes that a step makes.

    Each pass is a network and the number of times that a step multiplies with its kernels.
    """

    model: object
    batch: dict
    passes: list[tuple[object, int]]


def define_flags() -> None:
    """Defines the flags that choose the step."""
    flags.DEFINE_enum("what", "protect", STEPS, "Step to time.")
    flags.DEFINE_integer("size", 64, "Side of the images in pixels.")
    flags.DEFINE_integer("batch", 64, "Images in a batch.")
    flags.DEFINE_enum("precision", "float32", PRECISIONS, "Precision of the networks.")
    flags.DEFINE_integer("steps", 8, "Steps to take the median of.")


def main(_) -> None:
    """Prints one line of JSON."""
    startup.import_tensorflow()
    options = flags.FLAGS
    config = make_config(options.size, options.batch, options.precision)
    print(json.dumps(measure(options.what, config, options.steps, options.profile)))


def make_config(
    size: int, batch: int, precision: str, *, depth: int = 50, width: float = 1.0, **runtime
):
    """Returns the settings of a step; `runtime` are fields of `config.runtime`."""
    from tfadv.config.schema import Config, Data, Model, Runtime, Train

    return Config(
        data=Data(size=size),
        model=Model(depth=depth, width=width, decoder_width=width),
        train=Train(batch=batch, clip_norm=0.0),  # the peer does not clip
        runtime=Runtime(precision=precision, **runtime),
    )


def measure(what: str, config, steps: int, profile: str | None = None) -> dict[str, float]:
    """Times a step; writes a TensorFlow profile of three steps to the folder `profile`, if given.

    Returns:
        `step_s`, the median of `steps` steps; `images_per_s`; `peak_mib`, the memory of this
        process; `gmacs`, 1e9 multiply-adds of one step.
    """
    import tensorflow as tf

    from tfadv.training import trainer

    trainer.set_up(config.runtime)
    model, batch, passes = build(what, config)
    step = tf.function(model.train_step)
    median = median_seconds(lambda: step(batch), steps)
    if profile:
        with tf.profiler.experimental.Profile(profile):
            median_seconds(lambda: step(batch), 3, warm_up=0)
    return {
        "step_s": median,
        "images_per_s": config.train.batch / median,
        "peak_mib": runner.peak_memory(),
        "gmacs": config.train.batch * multiply_adds(passes) / 1e9,
    }


def median_seconds(step: Callable[[], dict], steps: int, warm_up: int = WARM_UP) -> float:
    """Returns the median time of a step, after `warm_up` steps that are not counted."""

    def timed_step() -> float:
        began = time.perf_counter()
        for loss in step().values():
            loss.numpy()
        return time.perf_counter() - began

    for _ in range(warm_up):
        timed_step()
    return statistics.median(timed_step() for _ in range(steps))


def build(what: str, config) -> Step:
    """Returns the step that `what` names, in the current distribution strategy."""
    return _protect(config) if what == "protect" else _attack(config, what == "attack_all")


def multiply_adds(passes) -> int:
    """Returns the multiply-adds of one image in a step, forward and backward."""
    return sum(count * forward_multiply_adds(network) for network, count in passes)


def forward_multiply_adds(network) -> int:
    """Returns the multiply-adds of one image in all convolutions and linear layers."""
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


def _protect(config) -> Step:
    import tensorflow as tf

    from tfadv.defences import build as defence_build

    config.loss.lambda1 = 1.0
    model = defence_build.build_protector(config, ATTRIBUTES)
    labels = tf.cast(tf.random.uniform((config.train.batch, ATTRIBUTES)) > 0.5, tf.uint8)
    private = {"images": _images(config), "labels": labels}
    batch = {"private": private, "public": {"images": _images(config)[:, tf.newaxis]}}
    (reconstruction,) = model.defences
    # Forward, and backward to the inputs and to the kernels: 3. Update (a) runs the encoder in
    # inference; update (b) runs the decoder in inference, with a gradient to its inputs.
    decoder = reconstruction.adversary.decoder
    return Step(model, batch, [(model.encoder, 1 + 3), (model.classifier, 3), (decoder, 3 + 2)])


def _attack(config, with_all_losses: bool) -> Step:
    import tensorflow as tf

    from tfadv.attacks.decoder import ImageInverter
    from tfadv.models import build as models
    from tfadv.training import trainer

    g = None
    if with_all_losses:
        config.loss.mu1, config.loss.mu2 = 0.03, 1.0
        g = _vgg(config)
    shape = (1000,)
    adversary = models.build_adversary(config.model, config.loss, config.data.size, shape, None, g)
    model = ImageInverter(adversary, shape)
    model.compile(
        trainer.adam(1e-4, 0.0),
        models.build_discriminator_optimizer(
            config.loss.mu1, config.train.discriminator_learning_rate
        ),
    )
    features = tf.random.normal((config.train.batch, *shape))
    passes = [(adversary.decoder, 3)]
    if with_all_losses:
        # The discriminator learns from real and reconstructed images, then guides the decoder.
        # VGG19 sees both kinds of images and guides the decoder.
        passes += [(adversary.discriminator, 2 * 3 + 2), (g._network, 2 + 1)]
    return Step(model, {"images": _images(config), "features": features}, passes)


def _vgg(config):
    """VGG19 with random weights: the time does not depend on the weights."""
    import keras

    from tfadv.models.vgg import VGGFeatures

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "random.weights.h5")
        keras.applications.VGG19(include_top=False, weights=None).save_weights(path)
        return VGGFeatures(path, config.perceptual.layers, config.data.size)


def _images(config):
    import tensorflow as tf

    shape = (config.train.batch, config.data.size, config.data.size, 3)
    return tf.cast(tf.random.uniform(shape, maxval=256, dtype=tf.int32), tf.uint8)


if __name__ == "__main__":
    define_flags()
    flags.DEFINE_string("profile", None, "Write a TensorFlow profile of three steps here.")
    app.run(main)
