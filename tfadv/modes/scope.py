"""The scope of a run: its strategy, and its folder for itself alone."""

import contextlib
import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from tfadv.config.errors import UserError
from tfadv.config.run_folder import RunFolder
from tfadv.training.distribution import agree, check_batch, make_strategy, worker, workers

_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError)


def in_scope(run: Callable[[RunFolder], None]) -> Callable[[RunFolder], None]:
    """Has a mode run in the scope of the strategy that its config names, alone in its folder.

    Of several workers, the first one runs in the folder and the others in copies of it, which they
    drop: whatever makes variables, such as an export, all of them have to do together.
    """

    @functools.wraps(run)
    def scoped(workdir):
        with make_strategy(workdir.config.runtime).scope(), contextlib.ExitStack() as stack:
            check_batch(workdir.config.train.batch)
            try:
                if worker() > 0:
                    copy = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "run"
                    if workdir.path.exists():
                        shutil.copytree(workdir.path, copy)
                    workdir = RunFolder(copy, workdir.mode, workdir.config)
                else:
                    stack.enter_context(workdir.locked())
                agree(0.0)  # nothing changes before all have their copies
                run(workdir)
                agree(0.0)  # who leaves before the others are done ends them
            except _LOST:
                if workers() == 1:
                    raise
                raise UserError(
                    "another worker was lost; start all of them again with the same command: "
                    "training goes on from the last checkpoint"
                ) from None

    return scoped
