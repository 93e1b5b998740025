"""What an error of TensorFlow says, for people who don't know its graph."""

import re

import tensorflow as tf

_HEADINGS = r"^(Graph execution error:|Detected at node .*|  File .*|    .*|<stack traces? .*)$"
_AROUND = rf"\{{\{{.*?\}}\}}|\[Op:.*|\[\[.*|{_HEADINGS}|^Name: <unknown>, "


def error_line(error: Exception) -> str:
    """Returns the line that says what went wrong, without what TensorFlow says around it.

    Args:
        error: of an operation; of the bytes that it quotes, which needn't be text; or another.
    """
    if isinstance(error, UnicodeDecodeError):
        text = error.object.decode("utf-8", "replace")
    else:
        text = error.message if isinstance(error, tf.errors.OpError) else str(error)
    lines = re.sub(_AROUND, "", text, flags=re.M).strip().splitlines()
    return (lines or [type(error).__name__])[0].strip()[:300]
