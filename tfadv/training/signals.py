"""Ends of a run from outside: signals, and a time limit.

After SIGINT (Ctrl-C) or SIGTERM, training saves a checkpoint; everything else ends at once.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LATER = 0.1  # seconds
Pending = Callable[[], int]


class Interrupted(BaseException):
    """A signal asked the program to end.

    Attributes:
        signal: its number; the program's exit code is 128 + signal.
    """

    def __init__(self, number: int, message: str = ""):
        super().__init__(message)
        self.signal = number


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Within the block, signals raise `Interrupted`; does nothing outside the main thread.

    Python drops an exception that is raised while an object is deleted. Then the signal is sent
    again, a little later.
    """
    before = sys.unraisablehook

    def send_again(unraisable):
        if isinstance(unraisable.exc_value, Interrupted):
            threading.Timer(_LATER, os.kill, (os.getpid(), unraisable.exc_value.signal)).start()
        else:
            before(unraisable)

    with _handled(_interrupt):
        sys.unraisablehook = send_again
        try:
            yield
        finally:
            sys.unraisablehook = before


@contextlib.contextmanager
def deferred() -> Iterator[Pending]:
    """Within the block, the first signal is only noted; the second raises `Interrupted`.

    Yields:
        A function that returns the number of the noted signal, 0 if there is none.
    """
    noted = [0]

    def note(number, _):
        noted[0] = number
        signal.signal(number, _interrupt)

    with _handled(note):
        yield lambda: noted[0]


@contextlib.contextmanager
def time_limit(seconds: float, message: str) -> Iterator[None]:
    """Ends the process if the block takes longer, because TensorFlow can't be interrupted.

    Args:
        seconds: the limit.
        message: the line to print then; the exit code is 2.
    """

    def give_up():
        print(f"run.py: {message}", file=sys.stderr, flush=True)
        os._exit(2)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def _handled(handler: Callable) -> Iterator[None]:
    """Sets the handler of both signals within the block; only the main thread may do that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old_handler in before.items():
            signal.signal(number, old_handler)


def _interrupt(number, _):
    raise Interrupted(number)
