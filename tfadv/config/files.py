"""Files and folders that are written whole or not at all."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic_write(path: Path, *, is_shared: bool = False) -> Iterator[Path]:
    """Yields a path for a new file or folder, which replaces `path` when the block ends.

    A block that raises, or a process that is killed, leaves `path` as it was.

    Args:
        path: the file or folder to write; its parent folder must exist.
        is_shared: whether other processes may write the same path at the same time. The new file is
            then readable by its owner only.
    """
    unique = f".{os.getpid()}" if is_shared else ""
    partial = path.with_name(f".{path.name}{unique}.partial")
    remove(partial)
    try:
        if is_shared:
            partial.touch(mode=0o600)
        yield partial
    except BaseException:
        remove(partial)
        raise
    if partial.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    partial.replace(path)


@contextlib.contextmanager
def owner_only() -> Iterator[None]:
    """Makes new files readable by their owner only, since they show real people."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a JSON file, whole or not at all."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")


def remove(path: Path) -> None:
    """Removes a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
