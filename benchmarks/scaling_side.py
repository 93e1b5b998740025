"""One process of `benchmarks.scaling`: times a step divided among logical devices of one CPU."""

import functools
import json

from absl import app, flags

from benchmarks import runner, train_step_ours
from tfadv.modes import startup

FLAGS = flags.FLAGS


def main(_) -> None:
    """Prints one line of JSON."""
    startup.import_tensorflow()
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    logical = [tf.config.LogicalDeviceConfiguration()] * FLAGS.devices
    tf.config.set_logical_device_configuration(cpu, logical)
    from tfadv.training import distribution, trainer

    config = train_step_ours.make_config(
        FLAGS.size,
        FLAGS.batch,
        FLAGS.precision,
        depth=FLAGS.depth,
        width=FLAGS.width,
        synchronised=FLAGS.synchronised,
    )
    trainer.set_up(config.runtime)
    reduced = count_reductions()
    with distribution.make_strategy(config.runtime).scope():
        model, batch, _ = train_step_ours.build(FLAGS.what, config)
        batches = iter(distribution.distribute(tf.data.Dataset.from_tensors(batch).repeat()))
        step = tf.function(functools.partial(distribution.run, model.train_step))
        seconds = train_step_ours.median_seconds(lambda: step(next(batches)), FLAGS.steps)
    result = {
        "images_per_s": FLAGS.batch / seconds,
        "peak_mib": runner.peak_memory(),
        "reductions": len(reduced),
        "reduced_mib": sum(reduced) / 2**20,
    }
    print(json.dumps(result))


def count_reductions() -> list[int]:
    """Returns a list that receives the bytes of each tensor that the replicas reduce.

    The tensors are counted while the step is traced, which happens once.
    """
    import tensorflow as tf

    sizes = []

    def counted(method, tensors_of):
        def call(self, reduce_op, argument, *args, **kwargs):
            for tensor in tensors_of(argument):
                value = tensor.values[0] if hasattr(tensor, "values") else tensor
                sizes.append(value.dtype.size * value.shape.num_elements())
            return method(self, reduce_op, argument, *args, **kwargs)

        return call

    kind = tf.distribute.CrossDeviceOps
    kind.reduce = counted(kind.reduce, lambda value: [value])
    kind.batch_reduce = counted(kind.batch_reduce, lambda pairs: [value for value, _ in pairs])
    return sizes


if __name__ == "__main__":
    train_step_ours.define_flags()
    flags.DEFINE_integer("devices", 1, "Logical devices of the CPU.", lower_bound=1)
    flags.DEFINE_integer("depth", 50, "Depth of the ResNet.")
    flags.DEFINE_float("width", 1.0, "Width of the networks.")
    flags.DEFINE_bool("synchronised", False, "Whether batch norm sees the whole batch.")
    app.run(main)
