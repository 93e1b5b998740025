import os
import subprocess
import sys


def call_python(program):
    program = "import os, sys\nfrom tfadv.modes import startup\n" + program
    environment = {n: v for n, v in os.environ.items() if n != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        env=environment,
    )


NOISE = """
with startup.stderr_without(startup.NOISE):
    os.write(2, b"WARNING: All log messages before absl::InitializeLog() are written to STDERR\\n")
    os.write(2, b"I0000 00:00 port.cc:153] oneDNN custom operations are on. You may see\\n")
    os.write(2, b"E0000 00:00 gpu.cc:1] \\xff the GPU is on fire\\n")
    print("from Python", file=sys.stderr)
"""


def test_known_noise_is_dropped_and_all_else_is_shown():
    done = call_python(NOISE + "print('after', file=sys.stderr)")
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert lines[0].endswith("the GPU is on fire")
    assert lines[1:] == ["from Python", "after"]


def test_the_last_words_of_a_crash_are_shown():
    done = call_python(NOISE + "    os.write(2, b'F0000 no AVX\\n'); os.abort()")
    assert done.returncode < 0
    assert "F0000 no AVX" in done.stderr


def test_an_exception_passes_through_the_filter():
    done = call_python(NOISE + "    raise ImportError('no TensorFlow')")
    assert done.stderr.rstrip().endswith("ImportError: no TensorFlow")


def test_tensorflow_starts_silently_with_onednn_and_without_warnings_of_retracing():
    program = """
os.environ.pop("TF_ENABLE_ONEDNN_OPTS", None)
startup.import_tensorflow()
print("tensorflow" in sys.modules, os.environ["TF_ENABLE_ONEDNN_OPTS"])
import tensorflow as tf
for _ in range(8):
    tf.function(lambda x: x + 1)(tf.constant(1))
tf.get_logger().warning("%s", "mind the gap")
"""
    done = call_python(program)
    assert done.stdout == "True 1\n"
    (line,) = done.stderr.splitlines()
    assert line.endswith("mind the gap")


def test_a_setting_of_onednn_by_the_user_stays():
    program = """
from unittest import mock
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
sys.modules["tensorflow"] = mock.MagicMock()  # starts faster
startup.import_tensorflow()
print(os.environ["TF_ENABLE_ONEDNN_OPTS"])
"""
    assert call_python(program).stdout == "0\n"
