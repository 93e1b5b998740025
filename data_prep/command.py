"""What the commands `python -m data_prep.NAME` share: flags, the preparation, a summary."""

import argparse
import contextlib
import io
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import tensorflow_datasets as tfds
from absl import flags, logging
from etils import epath

from data_prep.builder import ImageBuilder
from data_prep.spec import SPLITS, Source, parse_shares
from tfadv.config.errors import UserError, exit_code


def common_flags(*, source: str | None, shares: bool = True) -> flags.FlagValues:
    """Returns the flags of every command.

    Args:
        source: help of `--source`; None for a builder that reads no source.
        shares: whether there is a `--shares`; a builder of a single split has no use for it.
    """
    values = flags.FlagValues()
    flags.DEFINE_bool("help", False, "show this help", short_name="h", flag_values=values)
    flags.DEFINE_string("data_dir", "data", "where prepared datasets are", flag_values=values)
    if shares:
        flags.DEFINE_string(
            "shares",
            None,
            "of private, public and test images, such as 0.7,0.2,0.1",
            flag_values=values,
        )
    if source:
        flags.DEFINE_string("source", None, source, flag_values=values)
        flags.DEFINE_enum(
            "on_error",
            "stop",
            ["stop", "skip"],
            "what to do about an image that is missing or doesn't decode",
            flag_values=values,
        )
    flags.DEFINE_bool("beam", False, "write through Apache Beam", flag_values=values)
    flags.DEFINE_string(
        "beam_options",
        "",
        'options of its pipeline, such as "--runner=FlinkRunner --parallelism=8"; implies --beam',
        flag_values=values,
    )
    return values


def shares(values: flags.FlagValues, default: tuple[float, ...]) -> tuple[float, ...]:
    """Returns the shares that the flags ask for, or the default."""
    return parse_shares(values.shares) if values.shares else default


def beam_options(values: flags.FlagValues) -> Any:
    """Returns Beam's PipelineOptions if the flags ask for Beam, else None.

    Raises:
        UserError: Beam is not installed, or its options name no runner or are wrong.
    """
    if not (values.beam or values.beam_options):
        return None
    try:
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError:
        raise UserError("--beam needs apache-beam: pip install -e .[beam]") from None
    try:
        words = shlex.split(values.beam_options)
        unknown = _unknown_options(words)
        options = PipelineOptions(words)
        # Other runners have options of their own, which only they know.
        if _is_direct(_runner_name(options)) and unknown:
            raise ValueError(
                f"DirectRunner has no option {unknown[0]!r}: write options as --name=value"
            )
    except (ValueError, ImportError, AttributeError, TypeError) as error:  # as Beam raises them
        raise UserError(f"--beam_options: {error}") from error
    return options


def _unknown_options(words: Sequence[str]) -> list[str]:
    """Returns the words that are neither options of Beam nor their values.

    Raises:
        ValueError: an option of Beam has a wrong value.
    """
    from apache_beam.options.pipeline_options import PipelineOptions

    unknown = []

    def fail(message: str) -> NoReturn:
        raise ValueError(message)

    def parse(parser: argparse.ArgumentParser) -> None:
        # The parser's own methods would print pages and end the process.
        parser.error = fail
        parser.print_help = lambda: fail("give a pipeline's options, not --help")
        unknown.extend(parser.parse_known_args(words)[1])

    PipelineOptions([]).get_all_options(add_extra_args_fn=parse)
    return unknown


def _runner_name(options: Any) -> str:
    from apache_beam.options.pipeline_options import StandardOptions

    return options.view_as(StandardOptions).runner or "DirectRunner"


def _is_direct(runner_name: str) -> bool:
    from apache_beam.runners import DirectRunner, create_runner

    return isinstance(create_runner(runner_name), DirectRunner)


def source_folder(values: flags.FlagValues) -> epath.Path:
    """Returns `--source`.

    Raises:
        UserError: it is missing, no folder, or empty.
    """
    if not values.source:
        raise UserError("--source=DIR is missing: the folder that holds the images")
    folder = epath.Path(values.source).expanduser()
    if not folder.is_dir():
        raise UserError(f"--source={folder}: no such folder")
    if not any(folder.iterdir()):
        raise UserError(f"--source={folder}: the folder is empty")
    return folder


def prepare(builder: ImageBuilder, source: epath.Path | None, beam: Any = None) -> None:
    """Prepares a dataset unless it exists, and prints a summary.

    Args:
        builder: of the dataset.
        source: holds the images; None for synthetic faces.
        beam: from `beam_options`.

    Raises:
        UserError: the source is wrong, or another dataset of this name exists. The lists are
            checked before TensorFlow is imported.
        OSError: a file can't be read or written.
    """
    lists = builder.read_source(source)
    if builder.data_path.exists():
        _check_same(builder, lists)
        print(f"{dataset_name(builder)} is prepared already in {builder.data_dir}")
    else:
        builder.split(lists)
        build(builder, source, beam)
    print(summary(builder))


def build(builder: ImageBuilder, source: epath.Path | None, beam: Any = None) -> None:
    """Writes a dataset, without TFDS's lines about a download of unknown size.

    Raises:
        UserError: an image is broken, or a Beam runner other than the direct one fails.
        OSError: a file can't be read or written.
    """
    import tensorflow as tf  # slow to import; wrong lists are found before

    config = tfds.download.DownloadConfig(manual_dir=source)
    if beam is not None:
        config.beam_options = beam
        config.beam_runner = _runner_name(beam)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(download_config=config)
    except tf.errors.OpError as error:  # TensorFlow's own name for a full disk
        raise OSError(error.message) from error
    except (UserError, OSError):
        raise
    except Exception as error:  # a cluster's runner may raise anything
        if beam is None or _is_direct(config.beam_runner):
            raise
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"--beam_options: {config.beam_runner}: {reason}") from error


def dataset_name(builder: ImageBuilder) -> str:
    """Returns the name to give as `data.dataset` or `data.extra`, such as `celeba/identity`."""
    return f"{builder.name}/{builder.builder_config.name}"


def summary(builder: ImageBuilder) -> str:
    """Returns a table of the splits, what was skipped, and how to use the dataset."""
    metadata = builder.info.metadata
    lines = [f"{'split':<10}{'images':>10}{'identities':>12}"]
    for split, info in builder.info.splits.items():
        identities = metadata["identities"][split]
        lines.append(f"{split:<10}{info.num_examples:>10,}{identities:>12,}")
    if skipped := metadata["skipped"]["count"]:
        names = metadata["skipped"]["names"]
        more = ", ..." if skipped > len(names) else ""
        lines.append(f"skipped {skipped:,} broken images: {', '.join(names)}{more}")
    root = builder.data_dir.removesuffix(f"/{dataset_name(builder)}/{builder.version}")
    field = "dataset" if set(SPLITS) <= set(builder.info.splits) else "extra"
    lines.append(f"use: --config.data.{field}={dataset_name(builder)} --config.data.dir={root}")
    return "\n".join(lines)


def run(main: Callable[[flags.FlagValues], None], values: flags.FlagValues) -> None:
    """Parses `sys.argv` and runs `main`; ends the process unless it returns.

    After a mistake of the user the exit code is 2, after Ctrl-C it is 130, as in shells.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.set_verbosity(logging.ERROR)
    try:
        code = exit_code("error", lambda: _run(main, values))
    except KeyboardInterrupt:
        print("interrupted; run the same command again", file=sys.stderr)
        code = 130
    if code:
        sys.exit(code)


def _run(main: Callable[[flags.FlagValues], None], values: flags.FlagValues) -> None:
    try:
        rest = values(sys.argv)[1:]
    except flags.Error as error:
        raise UserError(str(error)) from None
    if rest:
        raise UserError(f"unexpected argument {rest[0]!r}: write options as --name=value")
    if values.help:
        print(f"{sys.modules['__main__'].__doc__}\nFlags:\n{_flags_help(values)}")
    else:
        main(values)


def _flags_help(values: flags.FlagValues) -> str:
    """Returns a line or two for each flag, without absl's own, which get_help() would add."""
    by_module = values.flags_by_module_dict()
    ours = [flag for module in by_module if module != "absl.flags" for flag in by_module[module]]
    lines = []
    for flag in sorted(ours, key=lambda flag: flag.name):
        has_default = flag.default not in (None, "") and not flag.boolean
        default = f" (default: {flag.default})" if has_default else ""
        lines.append(flags.text_wrap(f"--{flag.name}: {flag.help}{default}", 79, " " * 6, "  "))
    return "\n".join(lines)


def _check_same(builder: ImageBuilder, lists: Source) -> None:
    """Raises a UserError if a prepared dataset has other settings or another source."""
    wanted, stored = builder.metadata(), builder.info.metadata
    different = [name for name in wanted if stored.get(name) != wanted[name]]
    if different:
        fault = f"exists with other {', '.join(different)}"
    elif stored.get("source") not in (None, builder.digest(lists)):  # older sets have no digest
        fault = "was made from other images or labels"
    else:
        return
    raise UserError(f"{builder.data_dir} {fault}: choose another name or data_dir, or delete it")
