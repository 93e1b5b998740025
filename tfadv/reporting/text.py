"""Values and names as people read them."""

import math
from numbers import Real


def format_value(value: object, spec: str = "") -> str:
    """A cell as text: numbers by `spec`, NaN and None as "–", no control characters."""
    if value is None or (isinstance(value, Real) and math.isnan(value)):
        return "\N{EN DASH}"
    if isinstance(value, Real) and math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if isinstance(value, Real) and not isinstance(value, bool):
        return format(value, spec)
    if isinstance(value, list | tuple):
        return ", ".join(map(format_value, value))
    return printable(str(value))


def printable(text: str) -> str:
    """The text without control characters, which could rewrite a terminal or reorder a line."""
    return "".join(character if character.isprintable() else "�" for character in text)
