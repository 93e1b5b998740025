import errno

import pytest
import tensorflow as tf

from data_prep import celeba, command, folder, ms_celeb_1m, synthetic
from tfadv.config.errors import UserError


def run(monkeypatch, main, *arguments):
    """Runs main as a command in this process; returns what `sys.exit` was given."""
    monkeypatch.setattr("sys.argv", ["command", *arguments])
    with pytest.raises(SystemExit) as end:
        command.run(main, command.common_flags(source=None))
    return end.value.code


def raises(error):
    def main(values):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/data"), "/data: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (UserError("a name\nin two lines"), "a name in two lines"),
        (UserError("a name\x1b[2J that clears"), "a name [2J that clears"),
        (UserError("too long " * 1000), "too long too ..."),
    ],
    ids=["with a file", "without a file", "two lines", "for the terminal", "long"],
)
def test_an_error_is_one_line_and_exit_code_2(monkeypatch, capsys, error, line):
    assert run(monkeypatch, raises(error)) == 2
    found = capsys.readouterr().err
    assert found.startswith("error: ")
    assert found.endswith(f"{line}\n")
    assert found.count("\n") == 1


def test_an_interrupt_is_one_line_and_exit_code_130(monkeypatch, capsys):
    assert run(monkeypatch, raises(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "interrupted; run the same command again\n"


def test_any_other_error_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("sys.argv", ["command"])
    with pytest.raises(ZeroDivisionError):
        command.run(raises(ZeroDivisionError()), command.common_flags(source=None))


def test_a_data_dir_that_cannot_be_made_is_named(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    builder = synthetic.Synthetic(config="tiny", data_dir=tmp_path / "file/data")
    assert run(monkeypatch, lambda _: command.prepare(builder, None)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: {tmp_path}/file/data: Not a directory"


def test_a_full_disk_that_tensorflow_tells_of_is_one_line(tmp_path, monkeypatch, capsys):
    def fill(*args):
        raise tf.errors.ResourceExhaustedError(None, None, "/data/x.tfrecord; No space left")

    monkeypatch.setattr(synthetic.SyntheticFaces, "example", fill)
    builder = synthetic.Synthetic(config="tiny", data_dir=tmp_path)
    assert run(monkeypatch, lambda _: command.prepare(builder, None)) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.endswith("error: /data/x.tfrecord; No space left")


@pytest.mark.parametrize("module", [celeba, folder, ms_celeb_1m, synthetic])
def test_help_shows_every_flag_of_the_project_and_no_other(monkeypatch, capsys, module):
    monkeypatch.setattr("sys.argv", [module.__name__, "--help"])
    values = module.define_flags()
    command.run(module.main, values)
    _, _, shown = capsys.readouterr().out.partition("\nFlags:\n")
    names = {line.split(":")[0].strip() for line in shown.splitlines() if line[2:4] == "--"}
    assert names == {f"--{name}" for name in values if name not in ("h", "flagfile", "undefok")}
    assert ".py" not in shown
    assert "absl" not in shown


def test_help_shows_defaults(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["synthetic", "--help"])
    command.run(synthetic.main, synthetic.define_flags())
    shown = capsys.readouterr().out
    assert "--seed: of the faces (default: 0)" in shown
    assert "--data_dir: where prepared datasets are (default: data)" in shown
