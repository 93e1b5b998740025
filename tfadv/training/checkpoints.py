"""Checkpoints: written whole or not at all, and read from the newest that is whole."""

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfadv.config.errors import UserError

_FILE = re.compile(r"ckpt-(\d+)\.(index|data-\d+-of-\d+)")


class Checkpoints:
    """The newest checkpoints of a training, each of one step.

    TensorFlow writes a checkpoint beside its place and moves it there, and keeps a checksum of each
    variable, so that a damaged one is noticed.

    Args:
        folder: where they are.
        kept: how many; the older ones are removed.
        **state: objects with variables; all of them are saved and restored.
    """

    def __init__(self, folder: Path, kept: int = 2, **state: Any):
        self._folder = folder
        self._kept = kept
        self._checkpoint = tf.train.Checkpoint(**state)

    @property
    def steps(self) -> list[int]:
        """Of which steps there are checkpoints, damaged ones too; the newest first."""
        names = (path.name for path in self._folder.glob("ckpt-*"))
        return sorted({int(match[1]) for match in map(_FILE.fullmatch, names) if match})[::-1]

    def restore(self) -> None:
        """Gives all state what the newest whole checkpoint holds, if there is any.

        Raises:
            UserError: there are checkpoints, and none is whole.
        """
        damaged = []
        for step in self.steps:
            try:
                # All of ours must be there; that it may hold more is for those of older versions.
                self._checkpoint.read(self._path(step)).assert_existing_objects_matched()
            except (tf.errors.OpError, IndexError) as error:
                damaged.append(f"{self._path(step)} is damaged ({_first_line(error)})")
                continue
            except AssertionError:
                raise UserError(
                    f"{self._path(step)} is of other networks than these, by another version of "
                    f"tfadv: choose another --workdir or remove that one"
                ) from None
            for each in damaged:
                message = f"warning: {each}; going on from the one of step {step:,}"
                print(message, file=sys.stderr, flush=True)
            return
        if damaged:
            raise UserError(
                f"no checkpoint can be read: {', '.join(damaged)}; to start anew, move "
                f"{self._folder} away"
            )

    def save(self, step: int) -> None:
        """Writes a checkpoint of a step, then removes old and damaged ones.

        Raises:
            UserError: it can't be written, as on a full disk; the earlier ones are kept.
        """
        before = self._files(step)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._checkpoint.write(self._path(step))
        except (tf.errors.OpError, OSError) as error:
            for leftover in self._files(step) - before:
                _remove(leftover)
            raise UserError(
                f"the checkpoint of step {step:,} can't be written to {self._folder} "
                f"({_first_line(error)}); earlier ones are kept: mend that and "
                f"run the same command again"
            ) from None
        # Later ones than this are damaged: had one been whole, training would have gone on from it.
        kept = [each for each in self.steps if each <= step][: self._kept]
        for other in set(self.steps).difference(kept):
            for path in self._files(other):
                _remove(path)
        for path in self._folder.glob("ckpt-*_temp*"):  # of a run that was killed in writing
            _remove(path)

    def _files(self, step: int) -> set[Path]:
        return set(self._folder.glob(f"ckpt-{step}[._]*"))

    def _path(self, step: int) -> str:
        return str(self._folder / f"ckpt-{step}")


def _first_line(error: Exception) -> str:
    message = getattr(error, "message", None) or str(error)
    return message.strip().splitlines()[0][:200]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
