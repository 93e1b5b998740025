"""What `run.py` runs: each mode takes a run's folder through data, models, measures and report."""

import tensorflow as tf

from tfadv.config.errors import UserError
from tfadv.config.experiment import Plan
from tfadv.config.run_folder import RunFolder
from tfadv.data.dataset import explain
from tfadv.data.record_files import CHANGED
from tfadv.modes import attack, audit, protect, recognizer, reproduce
from tfadv.training.tf_errors import error_line

# What reading damaged data ends in.
OF_DATA = (
    tf.errors.DataLossError,
    tf.errors.FailedPreconditionError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    UnicodeDecodeError,  # of what such an error quotes
)


def run(command: RunFolder | Plan) -> None:
    """Runs the mode of a folder, or an experiment.

    Raises:
        UserError: something that the user can mend; damaged data among it.
    """
    try:
        _run(command)
    except OF_DATA as error:
        if CHANGED in str(error):
            raise UserError(error_line(error)) from None
        seen = []
        for part in command.parts if isinstance(command, Plan) else [command]:
            if part.config.data not in seen:
                seen.append(part.config.data)
                explain(part.config.data)
        raise


def _run(command: RunFolder | Plan) -> None:
    if isinstance(command, Plan):
        (reproduce.show if command.is_dry else reproduce.run)(command)
        return
    modes = {"protect": protect, "attack": attack, "audit": audit, "recognizer": recognizer}
    modes[command.mode].run(command)
