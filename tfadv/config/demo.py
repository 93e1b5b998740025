"""The runs of --mode=demo, in order. Nothing here imports TensorFlow."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tfadv.config.experiment import Part
from tfadv.config.schema import Config


@dataclass(frozen=True)
class Demo:
    """The runs that --mode=demo makes.

    Attributes:
        parts: a run of recognizer, of protect and of attack; without the first, if a recognizer is
            named.
    """

    parts: Sequence[Part]


def plan(folder: Path, read: Callable[[str], Config]) -> Demo:
    """Returns the runs of a demo. Each could also be made by its own mode, in the same folder.

    Args:
        folder: of all runs, each of which has the name of its mode.
        read: from a mode to its checked config.
    """
    recognizer, protect, attack = (
        Part(mode, read(mode), folder / mode) for mode in ("recognizer", "protect", "attack")
    )
    attack.config.encoder = (str(protect.path / "encoder"),)
    if attack.config.recognizer.path:
        return Demo([protect, attack])
    for part in (protect, attack):
        if part is attack or part.config.loss.excess_identity:
            part.config.recognizer.path = str(recognizer.path / "recognizer")
    return Demo([recognizer, protect, attack])
