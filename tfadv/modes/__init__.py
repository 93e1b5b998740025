"""What `run.py` runs: each mode takes a run's folder through data, models, measures and report."""

from tfadv.experiment import Plan
from tfadv.modes import attack, protect, recognizer, reproduce
from tfadv.workdir import Workdir


def run(command: Workdir | Plan) -> None:
    """Runs the mode of a folder, or an experiment."""
    if isinstance(command, Plan):
        (reproduce.show if command.is_dry else reproduce.run)(command)
        return
    modes = {"protect": protect.run, "attack": attack.run, "recognizer": recognizer.run}
    modes[command.mode](command)
