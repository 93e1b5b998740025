"""Runs the mode that the command line names."""

import tensorflow as tf

from tfadv.config.demo import Demo
from tfadv.config.experiment import Plan
from tfadv.config.run_folder import RunFolder
from tfadv.data.dataset import explain
from tfadv.modes import attack, audit, demo, protect, recognizer, reproduce

# Errors of TensorFlow that damaged data may cause.
DATA_ERRORS = (
    tf.errors.DataLossError,
    tf.errors.FailedPreconditionError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    UnicodeDecodeError,  # such an error may quote bytes that are no text
)


def run(command: RunFolder | Demo | Plan) -> None:
    """Runs the mode of a run's folder, a demo, or an experiment.

    Raises:
        UserError: a mistake that the user can mend, such as damaged data.
    """
    modes = {"protect": protect, "attack": attack, "audit": audit, "recognizer": recognizer}
    try:
        if isinstance(command, Plan):
            (reproduce.show if command.is_dry else reproduce.run)(command)
        elif isinstance(command, Demo):
            demo.run(command)
        else:
            modes[command.mode].run(command)
    except DATA_ERRORS:
        explained = []
        for part in [command] if isinstance(command, RunFolder) else command.parts:
            if part.config.data not in explained:
                explained.append(part.config.data)
                folder = RunFolder(part.path, part.mode, part.config)
                explain(part.config.data, folder.left_out)  # a UserError if records are damaged
        raise
