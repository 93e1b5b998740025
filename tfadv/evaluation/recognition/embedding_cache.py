"""C(X) of a split, computed once and kept in a file that no other data or recogniser can hit."""

import hashlib
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from tfadv.config.run_folder import RunFolder
from tfadv.data.dataset import Dataset
from tfadv.data.images import normalize
from tfadv.evaluation.recognition.alignment import INTERPOLATION
from tfadv.evaluation.recognition.recognizer import Embeddings, Recognizer
from tfadv.training.history import Progress

_FORMAT = 1  # of the files, and of what is done to a picture on the way: raise it with either
_SILENT_S = 3  # seconds before it is worth a line


def cache_folder(workdir: RunFolder) -> Path:
    """Where the embeddings of real pictures are kept: beside the data, for the next run too.

    In the run's folder where the data is remote or can't be written to.
    """
    beside = Path(workdir.config.data.dir) / "embeddings"
    is_local = "://" not in workdir.config.data.dir
    if is_local and os.access(beside if beside.exists() else beside.parent, os.W_OK):
        return beside
    return workdir.path / "embeddings"


def embed_split(
    recognizer: Recognizer, dataset: Dataset, split: str, part: str, folder: Path
) -> Embeddings:
    """Returns C(X) of a part of a split, in the order of `dataset.batches(split, part)`.

    It is read from the folder if it was computed before: from the same record files at the same
    size, by the same files of the recogniser, with the same alignment and inner layer. A file that
    is damaged is computed again.

    Args:
        recognizer: C.
        dataset: where the pictures come from.
        split: of the dataset.
        part: of the split.
        folder: where the embeddings are kept, in files that only their owner can read: they are
            personal data, as faces are. Nothing is ever removed from it.
    """
    path = Path(folder) / f"{_key(recognizer, dataset, split, part)}.npz"
    count = dataset.count(split, part)
    kept = _load(path, count)
    if kept is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = _compute(recognizer, dataset, split, part, count)
        _save(path, kept)
    return kept


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
    progress = Progress(f"{recognizer.name} on {split} pictures", count, 0)
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
    """What a file holds; None if there is none, or if it isn't whole."""
    try:
        with np.load(path, allow_pickle=False) as file:
            kept = Embeddings(*(file[name] for name in Embeddings._fields))
    except Exception:  # a damaged file raises nearly anything
        return None
    is_whole = all(a.dtype == np.float32 and a.ndim == 2 and len(a) == count for a in kept)
    return kept if is_whole else None


def _save(path: Path, embeddings: Embeddings) -> None:
    """Writes all or nothing, readable by the owner alone."""
    descriptor, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez(file, **embeddings._asdict())
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
