"""Imports TensorFlow with its fast kernels, and without its messages on every CPU."""

import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Iterator

# TensorFlow prints most of these lines before it reads TF_CPP_MIN_LOG_LEVEL.
NOISE = (
    r"WARNING: All log messages before absl::InitializeLog|.*(oneDNN custom operations are on"
    r"|Could not find cuda drivers|failed call to cuInit: .*UNKNOWN ERROR \(303\))"
)


def import_tensorflow() -> None:
    """Imports TensorFlow and lets it look for GPUs."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors are shown
    # By default, TensorFlow does not use oneDNN's kernels on CPUs with AVX2 only. The gradients of
    # convolutions on small maps then take up to 80 times as long.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    with stderr_without(NOISE):
        import tensorflow as tf

        tf.config.list_physical_devices("GPU")
    # A run uses many models, each of which is traced anew for a good reason.
    tf.get_logger().addFilter(_is_no_retracing)


def _is_no_retracing(record: logging.LogRecord) -> bool:
    return "triggered tf.function retracing" not in str(record.msg)


@contextlib.contextmanager
def stderr_without(noise: str) -> Iterator[None]:
    """Within the block, drops lines on stderr that match, also those of native libraries.

    The filter is a process of its own, so that the last lines of a crash get through.
    """
    program = (
        "import os, re, sys\n"
        "for line in sys.stdin.buffer:\n"
        "    re.match(os.fsencode(sys.argv[1]), line) or os.write(2, line)\n"
    )
    command = [sys.executable, "-I", "-c", program, noise]
    stderr = os.dup(2)
    # A new session keeps Ctrl-C away from the filter.
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process:
        os.dup2(process.stdin.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
