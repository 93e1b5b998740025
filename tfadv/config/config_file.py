"""Reads config files and applies --config.FIELD=VALUE to what they return."""

import re
import runpy
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from tfadv.config import validation
from tfadv.config.errors import UserError
from tfadv.config.fields import SETTINGS, suggestion_for, unknown_field
from tfadv.config.schema import Config


class TextParser(flags.ArgumentParser):
    """Leaves a list as it was typed; `validation.normalize` splits it.

    The parser of ml_collections reads Python literals, and names such as 5_o_Clock_Shadow or /a are
    none.
    """

    def parse(self, argument: str | tuple[str, ...]) -> str | tuple[str, ...]:
        """Returns the argument."""
        return argument


config_flags.register_flag_parser_for_type(tuple, TextParser())


def read_config(path: str, mode: str) -> Config:
    """Returns what `get_config(mode)` of a file returns.

    Raises:
        UserError: says what is wrong with the file.
    """
    config = call_file(path, "get_config", mode)
    if not isinstance(config, Config):
        raise UserError(
            f"--config={path}: get_config(mode) must return a tfadv.config.schema.Config"
        )
    validation.normalize(config)
    return config


def call_file(path: str, function: str, argument: str) -> object:
    """Returns what a function of a Python file returns.

    Raises:
        UserError: says what is wrong with the file.
    """
    if not Path(path).is_file():
        raise UserError(f"--config={path}: there is no such file")
    try:
        defined = runpy.run_path(path)
        if function in defined:
            return defined[function](argument)
    except Exception as error:  # a config file is a program: any exception may come from it
        hint = suggestion_for(error)
        raise UserError(f"--config={path}: {type(error).__name__}: {error}{hint}") from None
    hint = ""
    if function == "get_experiment":
        hint = "; name an experiment, such as --config=configs/table1.py"
    elif "get_experiment" in defined:
        hint = "; an experiment runs with --mode=reproduce"
    raise UserError(f"--config={path} defines no {function}(){hint}")


def override(config: Config, arguments: list[str]) -> Config:
    """Returns a copy of a config with --config.FIELD=VALUE applied and checked.

    Args:
        config: the config from a file.
        arguments: the program's name, then the overrides.

    Raises:
        UserError: names the argument, the field or the value that is wrong.
    """
    for argument in arguments[1:]:
        check_override(argument)
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_dataclass(
        "config", config, flag_values=values, sys_argv=arguments
    )
    try:
        stray = values(arguments)[1:]
    except (flags.Error, ValueError) as error:  # absl raises ValueError for --noFIELD=VALUE
        raise UserError(in_our_words(str(error))) from None
    if stray:
        raise UserError(f"unexpected argument {stray[0]!r}; write options as --name=value")
    config = holder.value
    validation.validate(config)
    return config


def in_our_words(message: str) -> str:
    """Returns absl's message; on a value of the wrong type, the message of the setting."""
    pattern = r"flag --config\.([\w.]+)=(.*): (?:invalid literal|could not convert|\('Non-boolean)"
    match = re.match(pattern, message, re.DOTALL)
    return f"{match[1]} {SETTINGS[match[1]].type_problem(match[2])}" if match else message


def check_override(argument: str) -> None:
    """Raises a UserError unless an argument sets a config field that exists."""
    match = re.match(r"--?(?:no)?config\.([^=]+)", argument)
    if match and match[1] not in SETTINGS:
        raise unknown_field(match[1])
    if match and "-noconfig" in argument and not isinstance(SETTINGS[match[1]].default, bool):
        raise UserError(f"{argument}: {match[1]} is no boolean; write --config.{match[1]}=VALUE")
    if not match and re.match(r"--?[a-zA-Z]", argument):
        raise UserError(
            f"there is no flag {argument.partition('=')[0]}; there are --mode, --config, "
            f"--config.FIELD and --workdir, and --rows and --dry_run for --mode=reproduce"
        )
