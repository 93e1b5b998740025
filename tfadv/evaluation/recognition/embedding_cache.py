"""Face embeddings of a split, computed once and kept in a file per recognizer and data."""

import hashlib
import json
import os
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np

from tfadv.config.files import atomic_write
from tfadv.data.dataset import Dataset
from tfadv.data.images import normalize
from tfadv.evaluation.recognition.alignment import INTERPOLATION
from tfadv.evaluation.recognition.recognizer import Embeddings, Recognizer
from tfadv.training.history import Progress

_FORMAT = 1  # of the files and of the preparation of an image: raise it when either changes
_SILENT_S = 3  # seconds before progress is shown
# What np.load raises for files with one byte changed.
_DAMAGED = (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)


def cache_folder(data_dir: str, run_folder: Path) -> Path:
    """Returns the folder for embeddings: next to the data, so that the next run finds them.

    In the run's folder if the data is remote or its folder cannot be written to.
    """
    shared = Path(data_dir) / "embeddings"
    is_local = "://" not in data_dir
    if is_local and os.access(shared if shared.exists() else shared.parent, os.W_OK):
        return shared
    return run_folder / "embeddings"


def cached_embeddings(
    recognizer: Recognizer, dataset: Dataset, split: str, part: str, folder: Path
) -> Embeddings:
    """Returns the embeddings of a part of a split, in the order of `dataset.batches(split, part)`.

    They are read from the folder if they were computed before: from the same record files at the
    same size, by the same files of the recognizer, with the same alignment and inner layer. A
    damaged file is computed again. Only the owner can read the files: embeddings are personal data,
    as faces are. Nothing is ever removed from the folder.
    """
    path = Path(folder) / f"{_key(recognizer, dataset, split, part)}.npz"
    count = dataset.count(split, part)
    embeddings = _load(path, count)
    if embeddings is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        embeddings = _compute(recognizer, dataset, split, part, count)
        with atomic_write(path, is_shared=True) as partial, partial.open("wb") as file:
            np.savez(file, **embeddings._asdict())
    return embeddings


def _key(recognizer: Recognizer, dataset: Dataset, split: str, part: str) -> str:
    facts = {
        "format": _FORMAT,
        "recognizer": recognizer.digest,
        "alignment": recognizer.alignment,
        "layer": recognizer.layer,
        "interpolation": INTERPOLATION,
        "data": dataset.digest(split, part),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _compute(
    recognizer: Recognizer, dataset: Dataset, split: str, part: str, count: int
) -> Embeddings:
    progress = Progress(f"{recognizer.name} on {split} images", count, 0)
    began, done, parts, is_shown = time.monotonic(), 0, [], False
    for batch in dataset.batches(split, part):
        parts.append(recognizer(normalize(batch["images"]).numpy()))
        done += len(parts[-1].embedding)
        seconds = time.monotonic() - began
        if seconds > _SILENT_S:
            progress.show(done, {}, done / seconds)
            is_shown = True
    if is_shown:
        progress.close()
    return Embeddings(*map(np.concatenate, zip(*parts, strict=True)))


def _load(path: Path, count: int) -> Embeddings | None:
    """The embeddings in a file; None if there is no file or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            embeddings = Embeddings(*(file[name] for name in Embeddings._fields))
    except _DAMAGED:
        return None
    is_whole = all(a.dtype == np.float32 and a.ndim == 2 and len(a) == count for a in embeddings)
    return embeddings if is_whole else None
