"""What the modes show in TensorBoard besides curves: the final metrics, and what numbers mean."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tfadv.reporting.glossary import describe
from tfadv.reporting.text import format_value

_HELD_OUT = "held_out_"


def meaning(name: str) -> str:
    """Returns what a logged value means; empty for one that the glossary lacks.

    Args:
        name: a metric, or `held_out_METRIC`: the metric on held-out images.
    """
    known = describe(name).meaning
    if known or not name.startswith(_HELD_OUT):
        return known
    known = describe(name.removeprefix(_HELD_OUT)).meaning
    return known and f"On held-out images. {known}"


def write_metrics(writer: tf.summary.SummaryWriter, step: int, metrics: Mapping[str, Any]) -> None:
    """Shows the final metrics as one table of text: a curve of a single point says nothing."""
    lines = ["| metric | value | 95% interval | meaning |", "| --- | --- | --- | --- |"]
    for name, value in metrics.items():
        if isinstance(value, list):
            continue
        column = describe(name)
        interval = metrics.get(f"{name}_ci95", ())
        low_to_high = " to ".join(format_value(bound, column.format) for bound in interval)
        cells = (name, format_value(value, column.format), low_to_high, column.meaning)
        lines.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
    with writer.as_default(step=step):
        tf.summary.text("test", "\n".join(lines))
    writer.flush()
