"""Imports TensorFlow with its fast kernels, and without the lines that it prints on every CPU."""

import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Iterator

# Most of it is said before TF_CPP_MIN_LOG_LEVEL is read.
NOISE = (
    r"WARNING: All log messages before absl::InitializeLog|.*(oneDNN custom operations are on"
    r"|Could not find cuda drivers|failed call to cuInit: .*UNKNOWN ERROR \(303\))"
)


def import_tensorflow() -> None:
    """Imports TensorFlow and lets it look for GPUs."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors are shown
    # TensorFlow leaves oneDNN's kernels out on CPUs with AVX2 only, where the gradients of
    # convolutions on small maps then take up to 80 times as long.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    with stderr_without(NOISE):
        import tensorflow as tf

        tf.config.list_physical_devices("GPU")
    # An attack asks model after model, and each is rightly traced anew.
    tf.get_logger().addFilter(_is_no_retracing)


def _is_no_retracing(record: logging.LogRecord) -> bool:
    return "triggered tf.function retracing" not in str(record.msg)


@contextlib.contextmanager
def stderr_without(noise: str) -> Iterator[None]:
    """Drops the lines that match from what Python and native libraries write to stderr meanwhile.

    The filter is a process of its own, so that the last words of a crash get through.
    """
    program = (
        "import os, re, sys\n"
        "for line in sys.stdin.buffer:\n"
        "    re.match(os.fsencode(sys.argv[1]), line) or os.write(2, line)\n"
    )
    command = [sys.executable, "-I", "-c", program, noise]
    stderr = os.dup(2)
    # In a session of its own, Ctrl-C doesn't reach it.
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process:
        os.dup2(process.stdin.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
