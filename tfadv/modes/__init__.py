"""What `run.py` runs: each mode takes a run's folder through data, models, measures and report."""

from tfadv.modes import attack, protect, recognizer
from tfadv.workdir import Workdir


def run(workdir: Workdir) -> None:
    """Runs the mode of a folder."""
    modes = {"protect": protect.run, "attack": attack.run, "recognizer": recognizer.run}
    modes[workdir.mode](workdir)
