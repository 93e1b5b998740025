"""The scope of a run: its distribution strategy, and a lock on its folder."""

import contextlib
import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from tfadv.config.errors import UserError
from tfadv.config.files import owner_only
from tfadv.config.run_folder import RunFolder
from tfadv.training.distribution import (
    check_batch,
    make_strategy,
    mean_over_workers,
    worker,
    workers,
)

Announce = Callable[[str], None]  # is told what a mode works on next

_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError)


def quiet(subject: str) -> None:
    """Announces nothing."""


def in_scope(run: Callable[..., None]) -> Callable[..., None]:
    """Returns a mode that runs in the scope of its strategy, with its folder locked.

    Only the owner can read the files that it writes.

    Of several workers, the first one runs in the folder. The others run in temporary copies of it,
    because all workers must create the same variables, for example in an export.
    """

    @functools.wraps(run)
    def scoped(folder, *arguments):
        with contextlib.ExitStack() as stack:
            stack.enter_context(owner_only())
            stack.enter_context(make_strategy(folder.config.runtime).scope())
            check_batch(folder.config.train.batch)
            try:
                if worker() > 0:
                    copy = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "run"
                    if folder.path.exists():
                        shutil.copytree(folder.path, copy)
                    folder = RunFolder(copy, folder.mode, folder.config)
                else:
                    stack.enter_context(folder.locked())
                mean_over_workers(0.0)  # waits until all have their copies
                run(folder, *arguments)
                mean_over_workers(0.0)  # waits: a worker that leaves early ends the others
            except _LOST:
                if workers() == 1:
                    raise
                raise UserError(
                    "another worker was lost; start all of them again with the same command: "
                    "training resumes from the last checkpoint"
                ) from None

    return scoped
