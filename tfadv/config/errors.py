"""The error for a mistake that a user can mend, and the one place that prints it."""

import os
import sys
import textwrap
from collections.abc import Callable


class UserError(Exception):
    """A mistake that the user can mend: printed as one line, exit code 2, never a traceback."""


def exit_code(program: str, main: Callable[[], None]) -> int:
    """Runs `main` and returns 0, or 2 after a mistake of the user or a failed file operation.

    The mistake goes to stderr as one line, `program: message`. Every other exception passes.
    """
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as a shell reports SIGPIPE
    except (UserError, OSError) as error:
        print(f"{program}: {one_line(_message(error))}", file=sys.stderr)
        return 2
    return 0


def one_line(message: str) -> str:
    """Returns a message as one printable line of at most 2,000 characters.

    A message may quote any bytes of a file. Control characters would act on the terminal.
    """
    printable = "".join(char if char.isprintable() else " " for char in message)
    return textwrap.shorten(printable, 2000, placeholder=" ...")


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)
