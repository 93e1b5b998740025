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


def test_tensorflow_starts_without_a_word():
    done = call_python("startup.import_tensorflow(); print('tensorflow' in sys.modules)")
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_kernels_of_onednn_are_on_unless_the_user_says_otherwise():
    program = "startup.import_tensorflow(); print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    assert call_python("os.environ.pop('TF_ENABLE_ONEDNN_OPTS', 0);" + program).stdout == "1\n"
    assert call_python("os.environ['TF_ENABLE_ONEDNN_OPTS'] = '0';" + program).stdout == "0\n"


def test_that_each_model_is_traced_anew_is_no_warning():
    program = """
startup.import_tensorflow()
import tensorflow as tf
for _ in range(8):
    tf.function(lambda x: x + 1)(tf.constant(1))
tf.get_logger().warning("%s", "mind the gap")
"""
    stderr = call_python(program).stderr
    assert "mind the gap" in stderr
    assert "retracing" not in stderr
