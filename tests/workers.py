"""Trains as one of several workers, or alone; run by `test_distribution.py`.

    TF_CONFIG=... python -m tests.workers FOLDER

The first worker writes the weights to FOLDER/weights.npz.
"""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from tests import replicas
from tfadv.config.run_folder import RunFolder
from tfadv.modes.scope import in_scope
from tfadv.training import distribution


def main():
    """Trains; `STOP_AT=N` in the environment kills this process after N steps."""
    folder = Path(sys.argv[1])
    config = replicas.make_config("float32", {"lambda1": 1.0})
    config.runtime.strategy = "multi_worker" if "TF_CONFIG" in os.environ else "one"
    config.train.checkpoint_every = config.train.log_every = 5
    replicas.use()
    if stop_at := int(os.environ.get("STOP_AT", 0)):
        kill_at(stop_at)
    train(RunFolder(folder, "protect", config))


@in_scope
def train(workdir):
    """Trains the protector of `tests.replicas`."""
    _, _, weights = replicas.train_in_scope(replicas.make_protector, workdir.config, workdir.path)
    np.savez(workdir.path / "weights.npz", *weights)
    if distribution.workers() > 1:  # every trace uses up memory
        mean = distribution._mean(tf.distribute.get_strategy())
        assert mean.experimental_get_tracing_count() == 1


def kill_at(step):
    """Kills this process before the first step after `step`."""
    plain = replicas.training.Trainer._steps_until_next_event

    def counted(trainer):
        if trainer.step >= step:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(trainer)

    replicas.training.Trainer._steps_until_next_event = counted


if __name__ == "__main__":
    main()
