"""Values and names as text."""

import math
from numbers import Real


def format_value(value: object, spec: str = "") -> str:
    """Returns a value as text: numbers by `spec`, NaN and None as "–", no control characters."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, Real) and not isinstance(value, bool):
        if math.isnan(value):
            return "\N{EN DASH}"
        if math.isinf(value):
            return "∞" if value > 0 else "-∞"
        return format(value, spec)
    if isinstance(value, list | tuple):
        return ", ".join(map(format_value, value))
    return printable(str(value))


def printable(text: str) -> str:
    """Returns the text without control characters, which could rewrite a terminal's line."""
    return "".join(character if character.isprintable() else "�" for character in text)
