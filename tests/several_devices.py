"""`run.py` on several logical CPUs; run by `test_distribution.py`.

    python -m tests.several_devices COUNT --mode=...

In a process of its own, because the number of logical CPUs is fixed once TensorFlow has started.
"""

import sys

import tensorflow as tf

from tfadv import cli


def main():
    """Runs the mode; returns the exit code of `run.py`."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[1])
    tf.config.set_logical_device_configuration(cpu, devices)
    return cli.main(["run.py", *sys.argv[2:]])


if __name__ == "__main__":
    sys.exit(main())
