"""One process of `benchmarks.input_pipeline`: pictures a second of one side."""

import itertools
import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from absl import app, flags

from benchmarks import runner

FLAGS = flags.FLAGS
PASSES = 3  # after one that isn't counted


def main(_) -> None:
    """Prints one line of JSON."""
    from tfadv.modes import startup

    startup.import_tensorflow()
    pictures, one_pass = SIDES[FLAGS.what]()
    one_pass()
    began = time.perf_counter()
    for _ in range(PASSES):
        one_pass()
    rate = PASSES * pictures / (time.perf_counter() - began)
    print(json.dumps({"pictures_per_s": rate, "peak_mib": runner.peak_memory()}))


def _read() -> tuple[int, Callable[[], None]]:
    """How many pictures a pass over the project's own pipeline reads, and the pass."""
    from tfadv.config.schema import Data
    from tfadv.data.dataset import PRIVATE, WHOLE, Dataset
    from tfadv.data.images import normalize

    dataset = Dataset(Data(dir=FLAGS.data_dir, dataset=FLAGS.dataset, size=FLAGS.size))
    count = min(FLAGS.pictures, dataset.count(PRIVATE))
    if FLAGS.what == "batches":
        batch = dataset.evaluation_batch
        batches = dataset.batches(PRIVATE, WHOLE).take(-(-count // batch)).repeat()
        count = min(-(-count // batch) * batch, dataset.count(PRIVATE))
    else:
        batch = min(FLAGS.batch, count)
        batches = dataset.training_batches(PRIVATE, WHOLE, batch, seed=0)
        count -= count % batch
    images = iter(batches.map(lambda batch: normalize(batch["images"])).prefetch(1))
    return count, lambda: _exhaust(itertools.islice(images, -(-count // batch)))


def _train() -> tuple[int, Callable[[], None]]:
    """As `_read`, for training."""
    import tensorflow as tf

    from tfadv.config.schema import Config, Data, Loss, Model, Train
    from tfadv.data.dataset import Dataset
    from tfadv.defences import build as defence_build
    from tfadv.defences.batches import training_batches
    from tfadv.training import trainer

    config = Config(
        data=Data(dir=FLAGS.data_dir, dataset=FLAGS.dataset, size=FLAGS.size),
        model=Model(width=FLAGS.width, decoder_width=FLAGS.width),
        loss=Loss(lambda1=1.0),
        train=Train(batch=FLAGS.batch),
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
    if FLAGS.what == "protect_in_memory":
        batches = batches.take(1).cache().repeat()
    iterator = iter(batches)
    step = tf.function(lambda: protector.train_step(next(iterator)))

    def one_pass() -> None:
        for _ in range(FLAGS.steps):
            float(step()["utility"])

    return FLAGS.steps * FLAGS.batch, one_pass


def _decode() -> tuple[int, Callable[[], None]]:
    """As `_read`, for decoding alone."""
    import cv2
    import numpy as np
    import tensorflow_datasets as tfds

    cv2.setNumThreads(1)
    stored = tfds.builder(FLAGS.dataset, data_dir=FLAGS.data_dir).as_dataset(
        split="private", decoders={"image": tfds.decode.SkipDecoding()}
    )
    examples = stored.take(FLAGS.pictures).as_numpy_iterator()
    encoded = [np.frombuffer(example["image"], np.uint8) for example in examples]
    threads = runner.cores()

    def decode(share: int) -> None:
        for picture in encoded[share::threads]:
            cv2.imdecode(picture, cv2.IMREAD_COLOR)

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
    flags.DEFINE_integer("pictures", 4096, "Pictures to time.")
    flags.DEFINE_integer("size", 64, "Side of the pictures in pixels.")
    flags.DEFINE_integer("batch", 64, "Pictures in a training batch.")
    flags.DEFINE_integer("steps", 2, "Training steps in a pass.")
    flags.DEFINE_float("width", 1.0, "Of the networks that are trained.")
    app.run(main)
