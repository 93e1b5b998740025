"""Checkpoints of a training: the newest undamaged one is restored.

`tf.train.CheckpointManager` is not used: it finds checkpoints only through an index file of its
own, and would start anew without a word if that file were lost or damaged.
"""

import re
import sys
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfadv.config.errors import UserError
from tfadv.config.files import remove

_FILE = re.compile(r"ckpt-(\d+)\.(index|data-\d+-of-\d+)")


class Checkpoints:
    """The newest checkpoints of a training, named by their steps.

    TensorFlow renames a checkpoint's files into place once they are complete, and keeps a checksum
    of each variable, which reveals damage.

    Args:
        folder: where they are.
        kept: how many to keep.
        **state: objects with variables to save and restore.
    """

    def __init__(self, folder: Path, kept: int = 2, **state: Any):
        self._folder = folder
        self._kept = kept
        self._checkpoint = tf.train.Checkpoint(**state)

    @property
    def steps(self) -> list[int]:
        """The steps of all checkpoints, damaged ones included; the newest first."""
        names = (path.name for path in self._folder.glob("ckpt-*"))
        return sorted({int(match[1]) for match in map(_FILE.fullmatch, names) if match})[::-1]

    def restore(self) -> None:
        """Restores the newest undamaged checkpoint, if there is any.

        Raises:
            UserError: all checkpoints are damaged, or the newest is of other networks.
        """
        damaged = []
        for step in self.steps:
            try:
                # A checkpoint may hold more than is asked for, but not less.
                self._checkpoint.read(self._path(step)).assert_existing_objects_matched()
            except (tf.errors.OpError, IndexError) as error:
                damaged.append(f"{self._path(step)} is damaged ({_first_line(error)})")
                continue
            except AssertionError:
                raise UserError(
                    f"{self._path(step)} is a checkpoint of other networks, by another version of "
                    f"tfadv: choose another --workdir or remove that one"
                ) from None
            for message in damaged:
                message = f"warning: {message}; continuing from the checkpoint of step {step:,}"
                print(message, file=sys.stderr, flush=True)
            return
        if damaged:
            raise UserError(
                f"no checkpoint can be read: {', '.join(damaged)}; to start anew, move "
                f"{self._folder} away"
            )

    def save(self, step: int) -> None:
        """Writes the checkpoint of a step, then removes old and damaged ones.

        Raises:
            UserError: the checkpoint can't be written, for example on a full disk; earlier ones
                are kept.
        """
        before = self._files(step)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._checkpoint.write(self._path(step))
        except (tf.errors.OpError, OSError) as error:
            for path in self._files(step) - before:
                remove(path)
            raise UserError(
                f"the checkpoint of step {step:,} can't be written to {self._folder} "
                f"({_first_line(error)}); earlier ones are kept: make room or repair the folder, "
                f"then run the same command again"
            ) from None
        # Those of later steps are damaged: training would have resumed from an undamaged one.
        kept = [earlier for earlier in self.steps if earlier <= step][: self._kept]
        for other in set(self.steps).difference(kept):
            for path in self._files(other):
                remove(path)
        for path in self._folder.glob("ckpt-*_temp*"):  # left by a process killed while writing
            remove(path)

    def _files(self, step: int) -> set[Path]:
        return set(self._folder.glob(f"ckpt-{step}[._]*"))

    def _path(self, step: int) -> str:
        return str(self._folder / f"ckpt-{step}")


def _first_line(error: Exception) -> str:
    message = getattr(error, "message", None) or str(error)
    return message.strip().splitlines()[0][:200]
