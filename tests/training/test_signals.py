import os
import signal
import sys
import time

import pytest

from tfadv.training import signals


def test_a_signal_while_an_object_is_deleted_is_not_lost():
    class Deleted:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0)  # the handler runs here

    def delete_and_go_on():
        with signals.raised():
            Deleted()
            for _ in range(100):
                time.sleep(0.01)

    before = sys.unraisablehook
    with pytest.raises(signals.Interrupted) as caught:
        delete_and_go_on()
    assert caught.value.signal == signal.SIGTERM
    assert sys.unraisablehook is before


def test_other_exceptions_of_deletions_go_where_they_went(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: seen.append(found.exc_type))

    class Deleted:
        def __del__(self):
            raise ValueError

    with signals.raised():
        Deleted()
    assert seen == [ValueError]
