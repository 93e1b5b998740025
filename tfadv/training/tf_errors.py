"""TensorFlow's errors in one line, for readers who do not know its graph."""

import re

import tensorflow as tf

_HEADINGS = r"^(Graph execution error:|Detected at node .*|  File .*|    .*|<stack traces? .*)$"
_GRAPH_DETAILS = rf"\{{\{{.*?\}}\}}|\[Op:.*|\[\[.*|{_HEADINGS}|^Name: <unknown>, "


def error_line(error: Exception) -> str:
    """Returns the line that says what went wrong, without details of the graph.

    Args:
        error: of an operation, or any other. A UnicodeDecodeError holds a message of TensorFlow
            that quotes bytes.
    """
    if isinstance(error, UnicodeDecodeError):
        text = error.object.decode("utf-8", "replace")
    else:
        text = error.message if isinstance(error, tf.errors.OpError) else str(error)
    lines = re.sub(_GRAPH_DETAILS, "", text, flags=re.M).strip().splitlines()
    return (lines or [type(error).__name__])[0].strip()[:300]
