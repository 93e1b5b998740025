"""`run.py` on a CPU that counts as several devices; run by `test_distribution.py`.

    python -m tests.several_devices COUNT --mode=...

In a process of its own: how many devices a CPU counts for is settled before TensorFlow starts.
"""

import sys

import tensorflow as tf

from tfadv import cli


def main():
    """Runs the mode; the process ends as that of `run.py` does."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[1])
    tf.config.set_logical_device_configuration(cpu, devices)
    return cli.main(["run.py", *sys.argv[2:]])


if __name__ == "__main__":
    sys.exit(main())
