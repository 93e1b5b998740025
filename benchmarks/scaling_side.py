"""One process of `benchmarks.scaling`: a step divided among logical devices of one CPU."""

import functools
import json
import statistics
import time

from absl import app, flags

from benchmarks import runner, train_step_ours
from tfadv.modes import startup

FLAGS = flags.FLAGS
flags.DEFINE_integer("devices", 1, "Devices that the CPU counts for.", lower_bound=1)
flags.DEFINE_integer("depth", 50, "Of the ResNet.")
flags.DEFINE_float("width", 1.0, "Of the networks.")
flags.DEFINE_bool("synchronised", False, "Whether BN sees the whole batch.")


def main(_) -> None:
    """Prints one line of JSON."""
    startup.import_tensorflow()
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    logical = [tf.config.LogicalDeviceConfiguration()] * FLAGS.devices
    tf.config.set_logical_device_configuration(cpu, logical)
    from tfadv.config.schema import Config
    from tfadv.training import distribution, trainer

    config = Config()
    config.data.size, config.train.batch = FLAGS.size, FLAGS.batch
    config.model.depth, config.model.width = FLAGS.depth, FLAGS.width
    config.model.decoder_width = FLAGS.width
    config.runtime.precision, config.runtime.synchronised = FLAGS.precision, FLAGS.synchronised
    trainer.set_up(config.runtime)
    sizes = count_reductions()
    with distribution.make_strategy(config.runtime).scope():
        model, batch = train_step_ours.build(config)
        batches = iter(distribution.distribute(tf.data.Dataset.from_tensors(batch).repeat()))
        step = tf.function(functools.partial(distribution.run, model.train_step))

        def timed_step() -> float:
            began = time.perf_counter()
            for loss in step(next(batches)).values():
                loss.numpy()
            return time.perf_counter() - began

        for _ in range(train_step_ours.WARM_UP):
            timed_step()
        seconds = statistics.median(timed_step() for _ in range(FLAGS.steps))
    result = {"images_per_s": FLAGS.batch / seconds, "peak_mib": runner.peak_memory()}
    print(json.dumps(result | {"reductions": len(sizes), "reduced_mib": sum(sizes) / 2**20}))


def count_reductions() -> list[int]:
    """Returns a list that gets the bytes of each tensor that the replicas bring together.

    They are counted while the step is traced, which happens once.
    """
    import tensorflow as tf

    sizes = []

    def counted(method, tensors_of):
        def call(self, reduce_op, what, *args, **kwargs):
            for each in tensors_of(what):
                value = each.values[0] if hasattr(each, "values") else each
                sizes.append(value.dtype.size * value.shape.num_elements())
            return method(self, reduce_op, what, *args, **kwargs)

        return call

    kind = tf.distribute.CrossDeviceOps
    kind.reduce = counted(kind.reduce, lambda value: [value])
    kind.batch_reduce = counted(kind.batch_reduce, lambda pairs: [value for value, _ in pairs])
    return sizes


if __name__ == "__main__":
    app.run(main)
