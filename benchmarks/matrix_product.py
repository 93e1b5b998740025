"""Prints the rate of a large matrix product on this machine in 1e9 operations/s, by precision."""

import json
import time

from absl import app, flags

from tfadv.modes import startup

SIDE = {"CPU": 4096, "GPU": 8192}
REPEATS = 10


def main(_) -> None:
    """Prints one line of JSON."""
    startup.import_tensorflow()
    import tensorflow as tf

    side = flags.FLAGS.side or SIDE["GPU" if tf.config.list_physical_devices("GPU") else "CPU"]
    product = tf.function(tf.matmul)
    rates = {}
    for name, dtype in (("float32", tf.float32), ("mixed_bfloat16", tf.bfloat16)):
        matrix = tf.cast(tf.random.normal((side, side)), dtype)
        seconds = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            product(matrix, matrix)[0, 0].numpy()
            seconds.append(time.perf_counter() - began)
        rates[name] = 2 * side**3 / min(seconds) / 1e9
    print(json.dumps(rates))


if __name__ == "__main__":
    flags.DEFINE_integer("side", 0, "Side of the matrices; 0: by device.", lower_bound=0)
    app.run(main)
