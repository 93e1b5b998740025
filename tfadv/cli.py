"""Trains privacy-preserving encoders and attacks encoders.

    python run.py --mode=protect|attack|audit|recognizer [--config=configs/NAME.py]
                  [--config.FIELD=VALUE ...] [--workdir=DIR]
    python run.py --mode=reproduce --config=configs/table1.py [--config.scale=small] [--rows=1,2]
                  [--dry_run] [--config.FIELD=VALUE ...] [--workdir=DIR]

Without --config it is configs/demo.py; without --workdir it is runs/NAME/MODE, and runs/reproduce
for all experiments. The same call again resumes where it stopped.
"""

import contextlib
import json
import os
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from tfadv.config import experiment, inputs, validation
from tfadv.config.errors import UserError, exit_code
from tfadv.config.experiment import Plan
from tfadv.config.run_folder import RunFolder
from tfadv.config.schema import MODES, Config, describe, flatten
from tfadv.evaluation.leakage_measures import LimitExceededError, check_limits, parse_limit
from tfadv.evaluation.recognition.files import check_recognizer
from tfadv.training import signals

DEFAULT_CONFIG = Path(__file__).parents[1] / "configs/demo.py"


class TextParser(flags.ArgumentParser):
    """Leaves a list as it was typed, for `validation.split_lists`.

    The parser of ml_collections reads Python literals: 5_o_Clock_Shadow,Male or /a,/b are none.
    """

    def parse(self, argument: str | tuple[str, ...]) -> str | tuple[str, ...]:
        """Returns the argument."""
        return argument


config_flags.register_flag_parser_for_type(tuple, TextParser())


def main(argv: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    try:
        with signals.raised(), owner_only():
            return exit_code("run.py", lambda: start(argv))
    except LimitExceededError as error:
        print(f"run.py: leaks more than allowed: {error}", file=sys.stderr)
        return 3
    except signals.Interrupted as stop:
        done = f"{stop}; " if str(stop) else ""
        print(f"\nrun.py: interrupted; {done}the same command resumes", file=sys.stderr)
        return 128 + stop.signal


def start(argv: list[str]) -> None:
    """Prints the help, says that a run is finished, or runs what the command line asks for."""
    command = parse(argv)
    if command is None:
        print(f"{__doc__}\n{describe()}")
    elif isinstance(command, RunFolder) and command.metrics is not None:
        print(f"{command.path} is finished: see {command.path / 'report.html'}")
        if command.mode == "audit":
            report = json.loads((command.path / "audit.json").read_text())
            check_limits(report, command.config.audit.fail_above)
    else:
        run(command)


@contextlib.contextmanager
def owner_only() -> Iterator[None]:
    """Within it nobody but their owner can read new files: a run's folder shows real people."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def parse(argv: list[str]) -> RunFolder | Plan | None:
    """Turns a command line into a run's folder with a checked config, or an experiment's plan.

    Returns:
        None if it asks for help.

    Raises:
        UserError: the command line or the config has a mistake.
    """
    early = flags.FlagValues()
    flags.DEFINE_string("mode", None, "What to do.", flag_values=early)
    flags.DEFINE_string("config", str(DEFAULT_CONFIG), "Config file.", flag_values=early)
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=early)
    flags.DEFINE_list("rows", [], "Rows of an experiment.", flag_values=early)
    flags.DEFINE_bool("dry_run", False, "Only list an experiment.", flag_values=early)
    flags.DEFINE_bool("help", False, "Show this.", short_name="h", flag_values=early)
    try:
        overrides = early(argv, known_only=True)
    except (flags.Error, ValueError) as error:
        raise UserError(error) from None
    if early.help:
        return None
    if early.mode not in MODES:
        given = f"--mode is {early.mode}" if early.mode else "--mode is missing"
        raise UserError(f"{given}; it must be one of {', '.join(MODES)}")
    if "://" in (early.workdir or ""):
        raise UserError(
            f"--workdir={early.workdir}: a run's folder must be a local or mounted one; data.dir "
            f"may be in object storage"
        )
    if early.mode == "reproduce":
        return parse_experiment(early, overrides)
    for name in ("rows", "dry_run"):
        if early[name].value:
            raise UserError(f"--{name} goes with --mode=reproduce")
    settings = "attack" if early.mode == "audit" else early.mode  # an audit is many attacks
    config = override(read_config(early.config, settings), overrides)
    inputs.check_dataset(config.data)
    path = Path(early.workdir or Path("runs") / Path(early.config).stem / early.mode)
    if early.mode in ("attack", "audit"):
        choose_encoder(config, path)
        choose_recognizer(config, path)
    else:
        inputs.check_weights(config.model.weights)
    if early.mode == "protect" and config.loss.excess_identity:
        choose_recognizer(config, path)
        if not config.recognizer.path:
            raise UserError(
                "loss.excess_identity hides a face embedding: name a recogniser with "
                "--config.recognizer.path, or train one with --mode=recognizer"
            )
    if early.mode == "audit":
        for text in config.audit.fail_above:
            parse_limit(text)
        if config.audit.domain:
            inputs.check_domain(config)
        if config.audit.unprotected:
            inputs.check_saved_model(config.audit.unprotected)
    if validation.needs_vgg(config, early.mode):
        inputs.check_perceptual(config.perceptual.weights)
    return RunFolder(path, early.mode, config)


def parse_experiment(early: flags.FlagValues, overrides: list[str]) -> Plan:
    """Returns the plan of an experiment, every run's config checked.

    Raises:
        UserError: the command line or the experiment has a mistake.
    """
    scale = override(Config(), overrides).scale
    chosen = call_file(early.config, "get_experiment", scale)
    experiment.check(chosen, early.config)
    changed = {name for row in chosen.rows for name in {**row.protect, **(row.attack or {})}}
    for argument in overrides:
        name = argument.partition("=")[0].lstrip("-").removeprefix("no").removeprefix("config.")
        if name in changed:
            raise UserError(f"{argument}: rows of {early.config} set {name} themselves")
    # A path of its own makes the names of the runs the same wherever they are called from.
    root = Path(early.workdir or "runs/reproduce").resolve()
    name = Path(early.config).stem + ("" if scale == "paper" else f"_{scale}")
    plan = experiment.plan(
        chosen, root, name, lambda config: override(config, overrides), early.rows
    )
    for part in plan.parts:
        if part.config.runtime.strategy == "multi_worker":
            raise UserError(
                "--mode=reproduce runs on one machine; on several, run --mode=protect and "
                "--mode=attack"
            )
        inputs.check_dataset(part.config.data)
        inputs.check_weights(part.config.model.weights)
        if validation.needs_vgg(part.config, part.mode):
            inputs.check_perceptual(part.config.perceptual.weights)
        fields = part.config.recognizer
        if part.mode != "recognizer":
            for path in {fields.path, *fields.others} - trained(plan) - {""}:
                check_recognizer(path)
    plan.is_dry = early.dry_run
    return plan


def trained(plan: Plan) -> set[str]:
    """The recognisers that a plan trains itself."""
    return {str(part.path / "recognizer") for part in plan.parts if part.mode == "recognizer"}


def read_config(path: str, mode: str) -> Config:
    """Returns what `get_config(mode)` of a file gives.

    Raises:
        UserError: says what is wrong with the file.
    """
    config = call_file(path, "get_config", mode)
    if not isinstance(config, Config):
        raise UserError(
            f"--config={path}: get_config(mode) must return a tfadv.config.schema.Config"
        )
    validation.split_lists(config)
    validation.check_types(config)
    return config


def call_file(path: str, function: str, argument: str) -> object:
    """Returns what a function of a Python file gives.

    Raises:
        UserError: says what is wrong with the file.
    """
    if not Path(path).is_file():
        raise UserError(f"--config={path}: there is no such file")
    try:
        return runpy.run_path(path)[function](argument)
    except Exception as error:  # a config file is a program: anything can go wrong in it
        hint = validation.hint_for(error)
        raise UserError(f"--config={path}: {type(error).__name__}: {error}{hint}") from None


def override(config: Config, arguments: list[str]) -> Config:
    """Returns a config with --config.FIELD=VALUE applied, checked.

    Args:
        config: as a file gave it.
        arguments: the program's name, then the overrides.

    Raises:
        UserError: names the argument, the field or the value that is wrong.
    """
    for argument in arguments[1:]:
        check_override(argument)
    late = flags.FlagValues()
    holder = config_flags.DEFINE_config_dataclass(
        "config", config, flag_values=late, sys_argv=arguments
    )
    try:
        stray = late(arguments)[1:]
    except (flags.Error, ValueError) as error:  # absl's own of --noFIELD=VALUE
        raise UserError(error) from None
    if stray:
        raise UserError(f"unexpected argument {stray[0]!r}: write options as --name=value")
    config = holder.value
    validation.split_lists(config)
    validation.validate(config)
    return config


def check_override(argument: str) -> None:
    """Raises a UserError unless an argument sets a config field that exists."""
    match = re.match(r"--?(?:no)?config\.([^=]+)", argument)
    if match and match[1] not in flatten(Config()):
        raise validation.unknown_field(match[1])
    if not match and re.match(r"--?[a-zA-Z]", argument):
        raise UserError(
            f"there is no flag {argument.partition('=')[0]}; there are --mode, --config, "
            f"--config.FIELD and --workdir, and --rows and --dry_run for --mode=reproduce"
        )


def choose_encoder(config: Config, workdir: Path) -> None:
    """Fills in the encoder of the protect run beside this attack, if none is named; checks it."""
    if not config.encoder:
        encoder = workdir.parent / "protect" / "encoder"
        if not encoder.exists():
            raise UserError(
                f"there is no encoder to attack at {encoder}: run --mode=protect first, or name a "
                f"SavedModel with --config.encoder=PATH"
            )
        config.encoder = (str(encoder),)
    for path in config.encoder:
        inputs.check_saved_model(path)


def choose_recognizer(config: Config, workdir: Path) -> None:
    """Fills in the recogniser trained beside this attack, if none is named; checks all of them."""
    trained = workdir.parent / "recognizer" / "recognizer"
    if not config.recognizer.path and trained.exists():
        config.recognizer.path = str(trained)
    for path in filter(None, (config.recognizer.path, *config.recognizer.others)):
        check_recognizer(path)
    if config.recognizer.others and not config.recognizer.path:
        raise UserError(
            "recognizer.others only measure beside a first one: name that with "
            "--config.recognizer.path"
        )


def run(command: RunFolder | Plan) -> None:
    """Runs the mode; TensorFlow is imported only here, after all that needs none of it."""
    from tfadv.modes import startup

    startup.import_tensorflow()
    from tfadv.modes import runner

    runner.run(command)
