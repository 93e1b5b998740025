"""One process of `benchmarks.input_pipeline`: images per second of one side."""

import itertools
import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from absl import app, flags

from benchmarks import runner

FLAGS = flags.FLAGS
PASSES = 3  # after one that is not counted


def main(_) -> None:
    """Prints one line of JSON."""
    from tfadv.modes import startup

    startup.import_tensorflow()
    print(json.dumps(measure(FLAGS)))


def measure(options) -> dict[str, float]:
    """Times the side `options.what`; `options` has the values of this module's flags.

    Returns:
        `images_per_s`, over `PASSES` passes; `peak_mib`, the memory of this process.
    """
    count, one_pass = SIDES[options.what](options)
    one_pass()
    began = time.perf_counter()
    for _ in range(PASSES):
        one_pass()
    rate = PASSES * count / (time.perf_counter() - began)
    return {"images_per_s": rate, "peak_mib": runner.peak_memory()}


def _read(options) -> tuple[int, Callable[[], None]]:
    """Returns the images that a pass reads through tfadv's pipeline, and the pass."""
    from tfadv.config.schema import Data
    from tfadv.data.dataset import PRIVATE, WHOLE, Dataset
    from tfadv.data.images import normalize

    dataset = Dataset(Data(dir=options.data_dir, dataset=options.dataset, size=options.size))
    count = min(options.images, dataset.count(PRIVATE))
    if options.what == "batches":
        batch = dataset.evaluation_batch
        batches = dataset.batches(PRIVATE, WHOLE).take(-(-count // batch)).repeat()
        count = min(-(-count // batch) * batch, dataset.count(PRIVATE))
    else:
        batch = min(options.batch, count)
        batches = dataset.training_batches(PRIVATE, WHOLE, batch, seed=0)
        count -= count % batch
    images = iter(batches.map(lambda batch: normalize(batch["images"])).prefetch(1))
    return count, lambda: _exhaust(itertools.islice(images, -(-count // batch)))


def _train(options) -> tuple[int, Callable[[], None]]:
    """Returns the private images of a pass of training steps, and the pass."""
    import tensorflow as tf

    from tfadv.config.schema import Config, Data, Loss, Model, Train
    from tfadv.data.dataset import Dataset
    from tfadv.defences import build as defence_build
    from tfadv.defences.batches import training_batches
    from tfadv.training import trainer

    config = Config(
        data=Data(dir=options.data_dir, dataset=options.dataset, size=options.size),
        model=Model(depth=options.depth, width=options.width, decoder_width=options.width),
        loss=Loss(lambda1=1.0),
        train=Train(batch=options.batch),
    )
    trainer.set_up(config.runtime)
    dataset = Dataset(config.data)
    protector = defence_build.build_protector(config, len(dataset.attributes))
    batches = training_batches(
        dataset,
        dataset.columns(()),
        config.train,
        seed=config.runtime.seed,
        with_public=True,
        inputs={},
        start=0,
    )
    if options.what == "protect_in_memory":
        batches = batches.take(1).cache().repeat()
    iterator = iter(batches)
    step = tf.function(lambda: protector.train_step(next(iterator)))

    def one_pass() -> None:
        for _ in range(options.steps):
            float(step()["utility"])

    return options.steps * options.batch, one_pass


def _decode(options) -> tuple[int, Callable[[], None]]:
    """Returns the images that a pass decodes from memory, and the pass."""
    import cv2
    import numpy as np
    import tensorflow_datasets as tfds

    cv2.setNumThreads(1)
    stored = tfds.builder(options.dataset, data_dir=options.data_dir).as_dataset(
        split="private", decoders={"image": tfds.decode.SkipDecoding()}
    )
    examples = stored.take(options.images).as_numpy_iterator()
    encoded = [np.frombuffer(example["image"], np.uint8) for example in examples]
    threads = runner.cores()

    def decode(share: int) -> None:
        for image in encoded[share::threads]:
            cv2.imdecode(image, cv2.IMREAD_COLOR)

    pool = ThreadPoolExecutor(threads)
    return len(encoded), lambda: _exhaust(pool.map(decode, range(threads)))


def _exhaust(values: Iterable) -> None:
    for _ in values:
        pass


SIDES = {
    "batches": _read,
    "training_batches": _read,
    "decode": _decode,
    "protect": _train,
    "protect_in_memory": _train,
}

if __name__ == "__main__":
    flags.DEFINE_enum("what", "batches", list(SIDES), "Side to time.")
    flags.DEFINE_string("data_dir", None, "Folder of the dataset.", required=True)
    flags.DEFINE_string("dataset", None, "The dataset's name.", required=True)
    flags.DEFINE_integer("images", 4096, "Images to time.")
    flags.DEFINE_integer("size", 64, "Side of the images in pixels.")
    flags.DEFINE_integer("batch", 64, "Images in a training batch.")
    flags.DEFINE_integer("steps", 2, "Training steps in a pass.")
    flags.DEFINE_integer("depth", 50, "Depth of the ResNet.")
    flags.DEFINE_float("width", 1.0, "Width of the networks.")
    app.run(main)
