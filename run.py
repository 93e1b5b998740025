"""Trains privacy-preserving encoders and attacks encoders.

    python run.py --mode=protect|attack [--config=configs/NAME.py] [--config.FIELD=VALUE ...]
                  [--workdir=DIR]

Without --config it is configs/demo.py; without --workdir it is runs/NAME/MODE. The same call again
resumes where it stopped.
"""

import os
import re
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from tfadv import config as settings
from tfadv.config import MODES, Config, UserError
from tfadv.workdir import Workdir

DEFAULT_CONFIG = Path(__file__).parent / "configs/demo.py"


def main(argv: list[str]) -> int:
    """Runs one command line; returns its exit code."""
    try:
        workdir = parse(argv)
        if workdir is None:
            print(f"{__doc__}\n{settings.describe()}")
        elif workdir.metrics is not None:
            print(f"{workdir.path} is finished: see {workdir.path / 'report.html'}")
        else:
            run(workdir)
    except UserError as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    return 0


def parse(argv: list[str]) -> Workdir | None:
    """Turns a command line into a run's folder with a checked config; None if it asks for help.

    Raises:
        UserError: the command line or the config has a mistake.
    """
    early = flags.FlagValues()
    flags.DEFINE_string("mode", None, "What to do.", flag_values=early)
    flags.DEFINE_string("config", str(DEFAULT_CONFIG), "Config file.", flag_values=early)
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=early)
    flags.DEFINE_bool("help", False, "Show this.", short_name="h", flag_values=early)
    try:
        overrides = early(argv, known_only=True)
    except flags.Error as error:
        raise UserError(error) from None
    if early.help:
        return None
    if early.mode not in MODES:
        raise UserError(f"--mode is {early.mode}; it must be one of {', '.join(MODES)}")
    config = load_config(early.config, early.mode, overrides)
    path = Path(early.workdir or Path("runs") / Path(early.config).stem / early.mode)
    if early.mode == "attack":
        choose_encoder(config, path)
    return Workdir(path, early.mode, config)


def load_config(path: str, mode: str, overrides: list[str]) -> Config:
    """Returns what `get_config(mode)` of a file gives, with --config.FIELD=VALUE applied.

    Raises:
        UserError: names the file, the field or the value that is wrong.
    """
    if not Path(path).is_file():
        raise UserError(f"--config={path} does not exist")
    for argument in overrides[1:]:
        check_override(argument)
    late = flags.FlagValues()
    holder = config_flags.DEFINE_config_file(
        "config", f"{path}:{mode}", flag_values=late, sys_argv=overrides
    )
    try:
        late(overrides)
        config = holder.value
        known = isinstance(config, Config)
    except flags.Error as error:
        raise UserError(error) from None
    except Exception as error:  # a config file is a program: anything can go wrong in it
        raise UserError(f"--config={path}: {str(error).strip().splitlines()[-1]}") from None
    if not known:
        raise UserError(f"--config={path}: get_config(mode) must return a tfadv.config.Config")
    settings.normalise(config)
    settings.validate(config)
    return config


def check_override(argument: str) -> None:
    """Raises a UserError unless an argument sets a config field that exists."""
    match = re.match(r"--?(?:no)?config\.([^=]+)", argument)
    if match and match[1] not in settings.flatten(Config()):
        raise settings.unknown_field(match[1])
    if not match and argument.startswith("-"):
        raise UserError(
            f"there is no flag {argument.partition('=')[0]}; there are --mode, --config, "
            f"--config.FIELD and --workdir"
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
        settings.check_saved_model(path)


def run(workdir: Workdir) -> None:
    """Runs the mode; TensorFlow is imported only here, after all that needs none of it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from tfadv import modes

    modes.run(workdir)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
