"""Trains privacy-preserving image encoders, attacks encoders, and measures what they leak.

    python run.py MODE [--config=NAME] [--config.FIELD=VALUE ...] [--workdir=DIR]

Modes:
    demo         trains and attacks on synthetic faces: the modes recognizer, protect and attack
    protect      trains an encoder with a defence, measures its task and exports it
    attack       attacks encoders and measures what is recovered
    audit        attacks encoders with more effort and writes verdicts, also as a gate in CI
    recognizer   trains a face recognizer, with which the other modes measure identity
    reproduce    makes a table or figure of the paper: all runs of its rows
                 [--rows=1,2: only these rows] [--dry_run: only list the runs and what they cost]

Examples:
    python run.py demo
    python run.py protect --config.loss.lambda1=5 --workdir=runs/lambda5/protect
    python run.py protect --config=celeba --config.data.dataset=folder/mine
    python run.py attack  --workdir=runs/lambda5/attack
    python run.py audit   --config.audit.fail_above=linkage_rank1:0.05

--config is a file, or the name of one in configs/ (demo, if you name none). --workdir is the run's
folder: runs/NAME/MODE, for demo runs/NAME, for reproduce runs/reproduce. The same command resumes a
run that was stopped. --help=all shows every setting, with the values of --config and the mode.
"""

import difflib
import functools
import json
import re
import sys
from pathlib import Path

from absl import flags

from tfadv.config import demo, experiment, validation
from tfadv.config.config_file import call_file, override, read_config
from tfadv.config.demo import Demo
from tfadv.config.errors import UserError, exit_code
from tfadv.config.experiment import Plan
from tfadv.config.fields import COMMON, SETTINGS, describe
from tfadv.config.files import owner_only
from tfadv.config.run_folder import RunFolder
from tfadv.config.schema import MODES, Config
from tfadv.evaluation.leakage_measures import LimitExceededError, check_gate, parse_limit
from tfadv.evaluation.recognition.files import check_recognizer
from tfadv.training import signals

DEFAULT_CONFIG = Path(__file__).parents[1] / "configs/demo.py"


def main(argv: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    try:
        with signals.raised(), owner_only():
            return exit_code("run.py", lambda: start(argv))
    except LimitExceededError as error:
        print(f"run.py: does not pass: {error}", file=sys.stderr)
        return 3
    except signals.Interrupted as stop:
        done = f"{stop}; " if str(stop) else ""
        print(f"\nrun.py: interrupted; {done}the same command resumes", file=sys.stderr)
        return 128 + stop.signal


def start(argv: list[str]) -> None:
    """Does what a command line asks for: prints the help, or runs what is not finished.

    Raises:
        UserError: the command line or the config has a mistake.
        LimitExceededError: a finished audit does not pass its gate.
    """
    command = parse(argv)
    if isinstance(command, str):
        print(command)
    elif isinstance(command, RunFolder) and command.metrics is not None:
        print(f"{command.path} is finished: see {command.path / 'report.html'}")
        if command.mode == "audit":
            report = json.loads((command.path / "audit.json").read_text())
            check_gate(report, command.config.audit)
    else:
        run(command)


def run(command: RunFolder | Demo | Plan) -> None:
    """Prepares the synthetic faces and runs the mode. Only here TensorFlow is imported."""
    from tfadv.modes import startup

    startup.import_tensorflow()
    from tfadv.modes import runner

    if not (isinstance(command, Plan) and command.is_dry):
        for part in [command] if isinstance(command, RunFolder) else command.parts:
            prepare_synthetic(part.config)
    runner.run(command)


def prepare_synthetic(config: Config) -> None:
    """Renders the synthetic faces that a config names, unless they are in `data.dir`."""
    from data_prep import synthetic

    for name in (config.data.dataset, *config.data.extra, config.audit.domain):
        stored = validation.stored_name(name)
        if stored in validation.RENDERED:
            synthetic.prepare(config.data.dir, stored.removeprefix("synthetic/"))


def parse(argv: list[str]) -> RunFolder | Demo | Plan | str:
    """Returns a run's folder with a checked config, or the plan of a demo or an experiment.

    Returns:
        The help text if the command line asks for help.

    Raises:
        UserError: the command line or the config has a mistake.
    """
    values, overrides = read_flags(argv)
    if values.help:
        return help_text(values)
    check_flags(values)
    if values.mode == "reproduce":
        return parse_experiment(values, overrides)
    if values.mode == "demo":
        return parse_demo(values, overrides)
    return parse_run(values, overrides)


def read_flags(argv: list[str]) -> tuple[flags.FlagValues, list[str]]:
    """Returns the values of all flags but --config.FIELD, and the arguments that are left.

    `run.py MODE` is `run.py --mode=MODE`, and `--help` is `--help=short`.
    """
    program, *arguments = argv
    names_mode = any(re.match(r"--?mode\b", argument) for argument in arguments)
    if arguments and not arguments[0].startswith("-") and not names_mode:
        arguments[0] = f"--mode={arguments[0]}"
    short = ("--help", "-help", "-h")
    arguments = ["--help=short" if argument in short else argument for argument in arguments]
    values = flags.FlagValues()
    flags.DEFINE_string("mode", None, "What to do.", flag_values=values)
    flags.DEFINE_string("config", str(DEFAULT_CONFIG), "Config file.", flag_values=values)
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    flags.DEFINE_list("rows", [], "Rows of an experiment.", flag_values=values)
    flags.DEFINE_bool("dry_run", False, "Only list an experiment.", flag_values=values)
    flags.DEFINE_string("help", None, "Show this.", flag_values=values)
    try:
        left = values([program, *arguments], known_only=True)
    except (flags.Error, ValueError) as error:
        raise UserError(error) from None
    if not Path(values.config).exists():
        values.config = find_config(values.config)
    return values, left


def find_config(name: str) -> str:
    """Returns the path of a config in configs/ by its name, such as celeba.

    Raises:
        UserError: there is none.
    """
    folder = DEFAULT_CONFIG.parent
    path = folder / f"{name}.py"
    if not path.exists():
        names = sorted(path.stem for path in folder.glob("*.py"))
        raise UserError(
            f"--config={name}: there is no such file, and configs/ has only {', '.join(names)}"
        )
    return str(path)


def help_text(values: flags.FlagValues) -> str:
    """Returns the short help, or with --help=all every setting of a config in a mode.

    Raises:
        UserError: the help that is asked for does not exist, or the config has a mistake.
    """
    if values.help not in ("short", "all"):
        raise UserError(f"--help is {values.help}; it must be --help or --help=all")
    mode = {"attack": "attack", "audit": "attack", "recognizer": "recognizer"}.get(values.mode)
    config = read_config(values.config, mode or "protect")
    values_of = f"with the values of {Path(values.config).name} in mode {mode or 'protect'}"
    if values.help == "all":
        return f"All settings, {values_of}:\n{describe(config, SETTINGS)}"
    settings = describe(config, COMMON, with_rules=False)
    return f"{__doc__}\nThe settings that people change most, {values_of}:\n{settings}"


def check_flags(values: flags.FlagValues) -> None:
    """Raises a UserError unless the flags go together."""
    if values.mode not in MODES:
        given = f"--mode is {values.mode}" if values.mode else "--mode is missing"
        near = difflib.get_close_matches(values.mode or "", MODES, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; it must be one of {', '.join(MODES)}"
        raise UserError(f"{given}{hint}")
    if "://" in (values.workdir or ""):
        raise UserError(
            f"--workdir={values.workdir}: a run's folder must be local or mounted; only data.dir "
            f"may be in object storage"
        )
    for name in ("rows", "dry_run"):
        if values[name].value and values.mode != "reproduce":
            raise UserError(f"--{name} goes with --mode=reproduce")


def parse_run(values: flags.FlagValues, overrides: list[str]) -> RunFolder:
    """Returns the folder of a single run. Its config and the files it names are checked.

    Raises:
        UserError: the config has a mistake, or the folder belongs to another run.
    """
    mode = values.mode
    settings = "attack" if mode == "audit" else mode
    config = override(read_config(values.config, settings), overrides)
    path = Path(values.workdir or Path("runs") / Path(values.config).stem / mode)
    validation.check_files(config, mode)
    if mode in ("attack", "audit"):
        choose_encoder(config, path)
        choose_recognizer(config, path)
    if mode == "protect" and config.loss.excess_identity:
        choose_recognizer(config, path)
        if not config.recognizer.path:
            raise UserError(
                "loss.excess_identity hides a face embedding; name a recognizer with "
                "--config.recognizer.path, or train one with --mode=recognizer"
            )
    if mode == "audit":
        check_audit(config)
    return RunFolder(path, mode, config)


def parse_demo(values: flags.FlagValues, overrides: list[str]) -> Demo:
    """Returns the plan of a demo. The config of every run is checked.

    Raises:
        UserError: a config has a mistake.
    """

    def read(mode: str) -> Config:
        config = override(read_config(values.config, mode), overrides)
        validation.check_files(config, mode)
        if config.recognizer.path:
            check_recognizer(config.recognizer.path)
        return config

    return demo.plan(Path(values.workdir or Path("runs") / Path(values.config).stem), read)


def check_audit(config: Config) -> None:
    """Raises a UserError if what an audit needs beyond an attack is not there."""
    for name in ("fail_above", "fail_below"):
        for text in getattr(config.audit, name):
            parse_limit(text, f"audit.{name}")
    validation.check_dataset(config.data, config.audit.domain)
    if config.audit.unprotected:
        validation.check_saved_model(config.audit.unprotected)


def parse_experiment(values: flags.FlagValues, overrides: list[str]) -> Plan:
    """Returns the plan of an experiment. The config of every run is checked.

    Raises:
        UserError: the command line or the experiment has a mistake.
    """
    scale = override(Config(), overrides).scale
    chosen = call_file(values.config, "get_experiment", scale)
    experiment.check(chosen, values.config)
    changed = {name for row in chosen.rows for name in {**row.protect, **(row.attack or {})}}
    for argument in overrides:
        name = argument.partition("=")[0].lstrip("-").removeprefix("no").removeprefix("config.")
        if name in changed:
            raise UserError(f"{argument}: rows of {values.config} set {name} themselves")
    # With an absolute path, the runs have the same names wherever the command is called from.
    root = Path(values.workdir or "runs/reproduce").resolve()
    name = Path(values.config).stem + ("" if scale == "paper" else f"_{scale}")
    plan = experiment.plan(
        chosen, root, name, lambda config: override(config, overrides), values.rows
    )
    plan.is_dry = values.dry_run
    check_parts(plan)
    return plan


def check_parts(plan: Plan) -> None:
    """Raises a UserError if a run of a plan would fail for what its config names.

    A dry run needs no data set and no file: `plan.missing` lists those that are not there.
    """
    trained = {str(part.path / "recognizer") for part in plan.parts if part.mode == "recognizer"}
    for part in plan.parts:
        config = part.config
        if config.runtime.strategy == "multi_worker":
            raise UserError(
                "--mode=reproduce runs on one machine; on several, run --mode=protect and "
                "--mode=attack"
            )
        checks = [functools.partial(validation.check_files, config, part.mode)]
        if part.mode != "recognizer":
            named = {config.recognizer.path, *config.recognizer.others} - trained - {""}
            checks += [functools.partial(check_recognizer, path) for path in sorted(named)]
        for check in checks:
            try:
                check()
            except UserError as error:
                if not plan.is_dry:
                    raise
                plan.missing[str(error)] = None


def choose_encoder(config: Config, path: Path) -> None:
    """Fills in the encoder of the protect run next to an attack's folder, if none is named.

    Raises:
        UserError: there is no encoder, or it is no SavedModel.
    """
    if not config.encoder:
        encoder = path.parent / "protect" / "encoder"
        if not encoder.exists():
            raise UserError(
                f"there is no encoder to attack at {encoder}; run --mode=protect first, or name a "
                f"SavedModel with --config.encoder=PATH"
            )
        config.encoder = (str(encoder),)
    for encoder in config.encoder:
        validation.check_saved_model(encoder)


def choose_recognizer(config: Config, path: Path) -> None:
    """Fills in the recognizer trained next to a run's folder, if none is named.

    Raises:
        UserError: a recognizer is missing.
    """
    trained = path.parent / "recognizer" / "recognizer"
    if not config.recognizer.path and trained.exists():
        config.recognizer.path = str(trained)
    for recognizer in filter(None, (config.recognizer.path, *config.recognizer.others)):
        check_recognizer(recognizer)
    if config.recognizer.others and not config.recognizer.path:
        raise UserError(
            "recognizer.others only measure, next to a first recognizer; name that one with "
            "--config.recognizer.path"
        )
