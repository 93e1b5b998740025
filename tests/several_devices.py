"""Runs command lines on a CPU divided into logical devices; used by `test_distribution.py`.

    python -m tests.several_devices COUNT --mode=... [-- --mode=... ...]

It needs its own process: logical devices must be set before TensorFlow starts.
"""

import itertools
import sys

import tensorflow as tf

from tfadv import cli


def main():
    """Runs the commands in turn; returns the first exit code that is not 0."""
    count, *arguments = sys.argv[1:]
    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration()] * int(count)
    tf.config.set_logical_device_configuration(cpu, devices)
    groups = itertools.groupby(arguments, lambda argument: argument == "--")
    codes = (cli.main(["run.py", *command]) for is_separator, command in groups if not is_separator)
    return next(filter(None, codes), 0)


if __name__ == "__main__":
    sys.exit(main())
