"""A setting declares its default, meaning, allowed values and off-value in one place."""

import dataclasses
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Any

_KINDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    tuple: "a list of names, such as a,b",
}
_SHORT = {bool: "True or False", int: "whole number", float: "number", str: "text", tuple: "list"}
_LARGEST = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a field of the config may be and what it means.

    A text may be empty only if the default is empty. A list names each item once.

    Attributes:
        default: the value if nobody sets another; its type is the field's type.
        meaning: one line of help.
        low: the smallest number that is allowed.
        high: the largest number that is allowed; None: no limit beyond the type's own.
        multiple_of: divides the number.
        choices: the values that are allowed, or the items of a list; empty: any.
        off: the value at which a defence does nothing; None: the field is no defence.
        defence: what the defence is called; empty: by the field's own name.
    """

    default: Any
    meaning: str
    low: float | None = None
    high: float | None = None
    multiple_of: int = 1
    choices: tuple[Any, ...] = ()
    off: Any = None
    defence: str = ""

    @property
    def is_list(self) -> bool:
        """Whether the value is a tuple of texts, split on commas on the command line."""
        return isinstance(self.default, tuple)

    def type_problem(self, value: Any) -> str:
        """Returns how the type of a value is wrong, or "" if it is right."""
        kind = type(self.default)
        return "" if _has_type(value, kind) else f"is {value!r}; it must be {_KINDS[kind]}"

    def problem(self, value: Any) -> str:
        """Returns what is wrong with a value, or "" if nothing is: "is 0; it must be ..."."""
        if message := self.type_problem(value):
            return message
        if self.is_list:
            return self._item_problem(value)
        if self.low is not None and not self.low <= value <= self._highest:
            return f"is {value}; it must be {self._range()}"
        if self.choices and value not in self.choices:
            return f"is {value!r}; it must be one of {_listed(self.choices)}"
        if self.multiple_of > 1 and value % self.multiple_of:
            return f"is {value}; it must be a multiple of {self.multiple_of}"
        if value == "" and self.default:
            return f"is empty; give it a value, such as {self.default}"
        return ""

    def help(self) -> str:
        """Returns the meaning, then in parentheses what the value may be and the off-value."""
        return f"{self.meaning} ({self.rules()})"

    def rules(self) -> str:
        """Returns the type, the choices or the range, and the off-value."""
        kind = _SHORT[type(self.default)]
        if self.choices:
            choices = _listed(choice or repr(choice) for choice in self.choices)
            kind = f"{kind} of {choices}" if self.is_list else f"one of {choices}"
        elif self.low is not None and self.high is not None:
            kind += f" {self._range()}"
        elif self.low is not None:
            kind += f", at least {self.low:,}"
        return kind if self.off is None else f"{kind}; off: {self.off!r}"

    @property
    def _highest(self) -> float:
        if self.high is not None:
            return self.high
        return _LARGEST if isinstance(self.default, int) else float("inf")

    def _range(self) -> str:
        if self._highest < float("inf"):
            return f"from {self.low:,} to {self._highest:,}"
        return f"at least {self.low}"

    def _item_problem(self, items: tuple[str, ...]) -> str:
        for item, times in Counter(items).items():
            if self.choices and item not in self.choices:
                return f"names {item}; it must be one of {_listed(self.choices)}"
            if times > 1:
                return f"names {item} twice"
        return ""


def setting(default: Any, meaning: str, **rules: Any) -> Any:
    """Returns a dataclass field that carries its `Setting`; `rules` are attributes of it."""
    metadata = {"setting": Setting(default=default, meaning=meaning, **rules)}
    return dataclasses.field(default=default, metadata=metadata)


def _listed(values: Any) -> str:
    return ", ".join(map(str, values))


def _has_type(value: Any, kind: type) -> bool:
    if kind is tuple:
        return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    if kind is float:
        is_number = _has_type(value, int) or isinstance(value, float)
        return is_number and abs(value) <= sys.float_info.max
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
