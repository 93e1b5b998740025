"""What ends a run from outside: signals, and the time.

SIGINT (Ctrl-C) and SIGTERM: training saves and says so, everything else ends at once.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)
Asked = Callable[[], int]


class Interrupted(BaseException):
    """A signal asked the program to end.

    Attributes:
        signal: its number; a program that it ends has 128 + signal as exit code.
    """

    def __init__(self, number: int, message: str = ""):
        super().__init__(message)
        self.signal = number


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Within it the signals raise `Interrupted`, where this is the main thread."""
    with _handled(_interrupt):
        yield


@contextlib.contextmanager
def deferred() -> Iterator[Asked]:
    """Within it a first signal waits for whoever asks; the second one ends everything at once.

    Yields:
        A function that returns the number of the signal that came, 0 if there was none.
    """
    came = [0]

    def note(number, _):
        came[0] = number
        signal.signal(number, _interrupt)

    with _handled(note):
        yield lambda: came[0]


@contextlib.contextmanager
def time_limit(seconds: float, message: str) -> Iterator[None]:
    """Ends the process if what is within takes longer: TensorFlow itself can't be interrupted.

    Args:
        seconds: how long it may take.
        message: the line that is printed then; the exit code is 2.
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
    """Only the main thread may say what a signal does; another one leaves that as it is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number, _):
    raise Interrupted(number)
