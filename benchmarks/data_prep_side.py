"""One process of `benchmarks.data_prep`: images per second of one side."""

import json
import tempfile
import time
from pathlib import Path

from absl import app, flags

from benchmarks import runner
from data_prep import builder, celeba, command, images

FLAGS = flags.FLAGS


def main(_) -> None:
    """Prints one line of JSON."""
    from tfadv.modes import startup

    startup.import_tensorflow()
    side = {"prepare": _prepare, "copy": _copy}[FLAGS.what]
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        count = side(Path(FLAGS.source), Path(folder))
        rate = count / (time.perf_counter() - began)
    result = {"images_per_s": rate, "images": count, "peak_mib": runner.peak_memory()}
    print(json.dumps(result))


def _prepare(source: Path, folder: Path) -> int:
    config = builder.SplitConfig(name="benchmark", scheme="identity", shares=(0.7, 0.2, 0.1))
    made = celeba.Celeba(config=config, data_dir=folder)
    command.build(made, source)
    return sum(split.num_examples for split in made.info.splits.values())


def _copy(source: Path, folder: Path) -> int:
    import tensorflow as tf

    root = source / celeba.IMAGES
    names = images.list_images(root)
    for start in range(0, len(names), builder.IMAGES_PER_SHARD):
        with tf.io.TFRecordWriter(str(folder / f"{start}.tfrecord")) as writer:
            for name in names[start : start + builder.IMAGES_PER_SHARD]:
                writer.write((root / name).read_bytes())
    return len(names)


if __name__ == "__main__":
    flags.DEFINE_enum("what", "prepare", ["prepare", "copy"], "Side to time.")
    flags.DEFINE_string("source", None, "Folder with CelebA's files.", required=True)
    app.run(main)
