import errno

import pytest

from tfadv.config.errors import UserError, exit_code


def failing(error):
    def main():
        raise error

    return main


def test_a_program_that_succeeds_has_exit_code_0(capsys):
    assert exit_code("tool", lambda: None) == 0
    assert capsys.readouterr() == ("", "")


def test_a_mistake_is_one_printable_line_and_exit_code_2(capsys):
    assert exit_code("tool", failing(UserError("one\ntwo\x1b[2J"))) == 2
    assert capsys.readouterr() == ("", "tool: one two [2J\n")


def test_a_long_message_is_cut(capsys):
    exit_code("tool", failing(UserError("word " * 1000)))
    error = capsys.readouterr().err
    assert len(error) < 2010
    assert error.endswith(" ...\n")


def test_a_failed_file_operation_names_the_file(capsys):
    error = OSError(errno.ENOSPC, "No space left on device", "a/b")
    assert exit_code("tool", failing(error)) == 2
    assert capsys.readouterr().err == "tool: a/b: No space left on device\n"


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        exit_code("tool", lambda: 1 / 0)
