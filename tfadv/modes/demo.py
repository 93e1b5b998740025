"""--mode=demo: trains a recognizer and two encoders and attacks them; says how long that takes."""

import time
from collections.abc import Sequence
from functools import partial

from tfadv.config.demo import Demo
from tfadv.config.run_folder import RunFolder
from tfadv.evaluation.leakage_measures import HARD_PREDICTIONS, UNPROTECTED
from tfadv.modes import attack, protect, recognizer
from tfadv.modes.loading import PROTECTED

_MODES = {"recognizer": recognizer.run, "protect": protect.run, "attack": attack.run}
# (mode, what it works on) -> a title, and the seconds it takes on two CPU cores.
STAGES = {
    ("recognizer", ""): ("training a face recognizer, to measure identity with", 30),
    ("protect", UNPROTECTED): ("training the unprotected encoder", 40),
    ("protect", PROTECTED): ("training the protected encoder", 80),
    ("attack", PROTECTED): ("attacking the protected encoder", 60),
    ("attack", UNPROTECTED): ("attacking the unprotected encoder", 60),
    ("attack", HARD_PREDICTIONS): ("attacking hard predictions, sent without features", 45),
}


def run(demo: Demo) -> None:
    """Makes the runs that are not finished."""
    announce = Announcer()
    for part in demo.parts:
        folder = RunFolder(part.path, part.mode, part.config)  # checks what a finished run used
        if folder.metrics is None:
            _MODES[part.mode](folder, partial(announce, part.mode))
        else:
            print(f"{part.path} is finished: see {part.path / 'report.html'}")


class Announcer:
    """Says which stage of the demo begins, and about how long the rest takes."""

    def __init__(self):
        self._began = time.monotonic()
        self._usual = 0.0  # seconds that the stages of this process usually take
        self._current: tuple[str, str] | None = None

    def __call__(self, mode: str, subject: str = "") -> None:
        """Prints the number and the title of a stage that begins, and the time left.

        A stage takes as many times its usual time as the stages before it did.
        """
        stages = list(STAGES)
        number = stages.index((mode, subject))
        if self._current:
            self._usual += _seconds([self._current])
        self._current = stages[number]
        left = _seconds(stages[number:])
        if self._usual:
            left *= (time.monotonic() - self._began) / self._usual
        minutes = max(1, round(left / 60))
        unit = "minute" if minutes == 1 else "minutes"
        title = STAGES[self._current][0]
        print(f"\n{number + 1} of {len(stages)}: {title} (about {minutes} {unit} left)", flush=True)


def _seconds(stages: Sequence[tuple[str, str]]) -> float:
    return sum(STAGES[stage][1] for stage in stages)
