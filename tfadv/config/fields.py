"""The fields of the config by their full names, such as `data.size`."""

import dataclasses
import difflib
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tfadv.config.errors import UserError
from tfadv.config.schema import Config
from tfadv.config.setting import Setting


def _declared(group: type = Config, prefix: str = "") -> Iterator[tuple[str, Setting]]:
    for item in dataclasses.fields(group):
        if "setting" in item.metadata:
            yield prefix + item.name, item.metadata["setting"]
        else:
            yield from _declared(item.type, f"{prefix}{item.name}.")


GROUPS = {item.name: item.type for item in dataclasses.fields(Config) if not item.metadata}
SETTINGS = dict(_declared())
DEFENCES = {name: setting for name, setting in SETTINGS.items() if setting.off is not None}
# What people change most: the short help shows these.
COMMON = (
    "encoder",
    "baseline",
    "data.dir",
    "data.dataset",
    "data.size",
    "task.attributes",
    "model.depth",
    "model.split",
    "bottleneck.size",
    "bottleneck.bits",
    "bottleneck.predictions",
    "loss.lambda1",
    "loss.lambda2",
    "loss.mu1",
    "loss.mu2",
    "train.steps",
    "train.batch",
    "audit.unprotected",
    "audit.fail_above",
    "recognizer.path",
    "runtime.precision",
    "runtime.seed",
)
PENALTIES = tuple(name for name in DEFENCES if name.startswith("loss."))


def flatten(config: Config) -> dict[str, Any]:
    """Returns the values of a config as {"data.size": 64, ...}."""
    return {name: get(config, name) for name in SETTINGS}


def get(config: Config, name: str) -> Any:
    """Returns the value of a field, such as `data.size`."""
    group, _, leaf = name.rpartition(".")
    return getattr(getattr(config, group) if group else config, leaf)


def put(config: Config, name: str, value: Any) -> None:
    """Sets a field, such as `data.size`, in place."""
    group, _, leaf = name.rpartition(".")
    setattr(getattr(config, group) if group else config, leaf, value)


def defences(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the defences that are on: what each is called, and its strength.

    Args:
        values: values of the config's fields, as from `flatten`. A missing field is off.
    """
    return {
        setting.defence or name.rpartition(".")[2].replace("_", " "): values[name]
        for name, setting in DEFENCES.items()
        if name in values and values[name] != setting.off
    }


def unknown_field(name: str) -> UserError:
    """Returns the error for a field that does not exist. It suggests the nearest that does."""
    return UserError(f"there is no config field {name}{_suggestion(name)}")


def suggestion_for(error: Exception) -> str:
    """Returns a suggestion if an exception says that a dataclass lacks a field, else ""."""
    words = re.findall(r"\w+(?=\.__init__)|(?<=')\w+(?=')", str(error))
    names = {kind.__name__: name for name, kind in GROUPS.items()}
    if len(words) < 2 or words[0] not in names:
        return ""
    return _suggestion(f"{names[words[0]]}.{words[1]}")


def _suggestion(name: str) -> str:
    leaf = name.rpartition(".")[2]
    near = [known for known in SETTINGS if known.rpartition(".")[2] == leaf]
    near = near or difflib.get_close_matches(name, SETTINGS, n=1, cutoff=0.4)
    return f"; did you mean {near[0]}?" if near else ""


def describe(config: Config, names: Iterable[str], *, with_rules: bool = True) -> str:
    """Returns a help text: fields with their values and meanings.

    Args:
        config: whose values to show.
        names: of the fields to show, those of a group after each other.
        with_rules: whether to say of each field what it may be.
    """
    lines = []
    group = None
    for name in names:
        setting = SETTINGS[name]
        if (now := name.rpartition(".")[0]) != group:
            group = now
            lines += ["", f"{group}: {GROUPS[group].__doc__}" if group else "run: What to run."]
        option = f"  --config.{name}={shown(get(config, name))}"
        meaning = setting.help() if with_rules else setting.meaning
        meaning = textwrap.wrap(meaning, 100 - _COLUMN)
        if len(option) >= _COLUMN:
            lines.append(option)
            option = ""
        lines.append(f"{option:<{_COLUMN}}{meaning[0]}")
        lines += [" " * _COLUMN + line for line in meaning[1:]]
    return "\n".join(lines)


def shown(value: Any) -> str:
    """Returns a field's value as one would type it on the command line."""
    return ",".join(value) if isinstance(value, tuple) else str(value)


_COLUMN = 40  # where the meanings start
