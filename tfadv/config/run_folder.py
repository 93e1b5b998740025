"""The folder of a run: what it was run with, whether it is done, and what it measured.

Nothing here imports TensorFlow, so that a mistake is found at once.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from tfadv.config.errors import UserError
from tfadv.config.fields import flatten
from tfadv.config.files import write_json
from tfadv.config.schema import Config

PACKAGES = (
    "tfadv",
    "tensorflow",
    "keras",
    "tensorflow-datasets",
    "numpy",
    "scikit-learn",
    "opencv-python-headless",
)

_CHECKS = ("audit.fail_above ",)  # fields that change nothing but what is said of the result


class RunFolder:
    """A run's folder.

    Raises:
        UserError: it belongs to a run of another mode or config; the differing fields are named.
    """

    def __init__(self, path: Path | str, mode: str, config: Config):
        self.path = Path(path)
        self.mode = mode
        self.config = config
        for folder in (self.path, *self.path.parents):
            if folder.is_file():
                raise UserError(f"--workdir={self.path}: {folder} is a file; it must be a folder")
        used = (
            *config.encoder,
            config.audit.unprotected,
            config.model.weights,
            config.perceptual.weights,
        )
        self.digests = {path: _digest(Path(path)) for path in used if path}
        # What an attack or an audit takes with them.
        for encoder in filter(None, (*config.encoder, config.audit.unprotected)):
            beside = Path(encoder).parent
            found = (
                beside / "classifier",
                beside / "unprotected/encoder",
                beside / "unprotected/classifier",
            )
            self.digests |= {str(path): _digest(path) for path in found if path.is_dir()}
        for name in filter(None, (config.data.dataset, *config.data.extra, config.audit.domain)):
            folder = Path(config.data.dir) / name.replace(":", "/")
            if folder.is_dir():
                self.digests[str(folder)] = _digest(folder)
        for path in filter(None, (config.recognizer.path, *config.recognizer.others)):
            self.digests[path] = recognizer_digest(Path(path))
        # What ended on a mistake before anything was trained stands in nobody's way.
        kept = "checkpoints", "metrics.json", "*.npz"
        trained = any(path for name in kept for path in self.path.rglob(name))
        if trained and (self.path / "config.json").exists():
            self._check_same()

    @property
    def metrics(self) -> dict[str, Any] | None:
        """What the run measured, or None if it isn't finished."""
        exists = (self.path / "metrics.json").exists()
        return self._read("metrics.json") if exists else None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps every other run out of the folder; a run that was killed keeps nobody out.

        Raises:
            UserError: another run is at work in it; its process and host are named.
        """
        if fcntl is None:
            yield
            return
        path = self.path / ".lock"
        with contextlib.ExitStack() as stack:
            while True:
                self.path.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(path.open("a+"))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    file.seek(0)
                    raise UserError(
                        f"--workdir={self.path} is in use by {file.read() or 'another run'}; wait "
                        f"for it, or choose another --workdir"
                    ) from None
                except OSError:  # a file system without locks
                    pass
                # Else the run before has just removed what was opened here.
                if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    break
            file.truncate(0)
            now = datetime.datetime.now().isoformat(" ", "minutes")
            print(f"process {os.getpid()} on {platform.node()}, since {now}", end="", file=file)
            file.flush()
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
                if not any(self.path.iterdir()):  # a mistake that was told before any writing
                    self.path.rmdir()

    def begin(self, **facts: Any) -> None:
        """Makes the folder and records the config, the versions and facts such as the dataset."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._check_left_out(facts.get("dataset", {}))
        record = {
            "mode": self.mode,
            "config": dataclasses.asdict(self.config),
            "versions": _versions(),
            "git_commit": _git_commit(),
            "digests": self.digests,
        }
        write_json(self.path / "config.json", record | facts)

    def _check_left_out(self, dataset: dict[str, Any]) -> None:
        """Raises a UserError if a run goes on without the same damaged records as before."""
        if not any(self.path.rglob("checkpoints")) or not (self.path / "config.json").exists():
            return
        before = self._read("config.json").get("dataset", {}).get("damaged", {})
        now = dataset.get("damaged", {})
        if before.get("left_out", []) != now.get("left_out", []):
            raise UserError(
                f"--workdir={self.path} holds a run that left out {before.get('records', 0):,} "
                f"damaged records of {dataset['name']}, which now has {now['records']:,}, or "
                f"others; choose another --workdir or remove that one"
            )

    def finish(self, metrics: dict[str, Any]) -> None:
        """Records what was measured; the run is done."""
        write_json(self.path / "metrics.json", metrics)

    def _read(self, name: str) -> Any:
        try:
            return json.loads((self.path / name).read_text())
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.path / name} can't be read ({error}); remove it or choose another --workdir"
            ) from None

    def _check_same(self) -> None:
        before = self._read("config.json")
        if not isinstance(before, dict) or not {"mode", "config"} <= set(before):
            raise UserError(
                f"{self.path / 'config.json'} was written by another program; choose another "
                f"--workdir"
            )
        now = json.loads(json.dumps(dataclasses.asdict(self.config)))
        # A field that is newer than the run had its default.
        default = _leaves(json.loads(json.dumps(dataclasses.asdict(Config()))))
        old, new = default | _leaves(before["config"]), _leaves(now)
        differing = [
            f"{name} (was {old.get(name)!r}, is {new.get(name)!r})"
            for name in sorted(old | new)
            if old.get(name) != new.get(name)
        ]
        differing = [each for each in differing if not each.startswith(_CHECKS)]
        if before["mode"] != self.mode:
            differing.insert(0, f"mode (was {before['mode']!r}, is {self.mode!r})")
        for path, digest in before.get("digests", {}).items():
            if self.digests.get(path, digest) != digest:
                differing.append(f"the content of {path}")
        if differing:
            raise UserError(
                f"--workdir={self.path} holds another run: {', '.join(differing)}; choose another "
                f"--workdir or remove that one"
            )


def summary(mode: str, config: Config, dataset: dict[str, Any]) -> dict[str, str]:
    """Returns what was run as a flat table for a report."""
    facts = {"mode": mode, "dataset": dataset["name"]}
    facts |= {f"pictures in {name}": f"{size:,}" for name, size in dataset["splits"].items()}
    facts |= {f"public, of {name}": f"{n:,}" for name, n in dataset.get("extra", {}).items()}
    if left_out := dataset.get("damaged", {}).get("records"):
        facts["damaged records left out"] = f"{left_out:,}"
    facts |= {name: str(value) for name, value in flatten(config).items()}
    return facts | {name: version or "not installed" for name, version in _versions().items()}


def _versions() -> dict[str, str | None]:
    """The installed version of each package; None for tfadv run from a folder never installed."""
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = None
    return installed


def _leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            leaves |= _leaves(value, f"{prefix}{name}.")
        else:
            leaves[prefix + name] = value
    return leaves


def _digest(path: Path) -> str:
    """What tells a file, a SavedModel or a dataset from another that has taken its place.

    Of a dataset it is how many pictures and bytes its splits have. What isn't local is left out.
    """
    files = [path, path / "saved_model.pb", *sorted(path.glob("variables/*"))]
    files += [path / "dataset_info.json", *sorted(path.glob("*/dataset_info.json"))]
    digest = hashlib.sha256()
    for file in filter(Path.is_file, files):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def recognizer_digest(path: Path) -> str:
    """Returns the SHA-256 of what a recogniser consists of, its card included."""
    files = [path, path.with_suffix(".prototxt"), path.with_name(f"{path.name}.json")]
    if path.is_dir():
        files = [path / "saved_model.pb", path / "recognizer.json"]
        files += sorted(path.glob("variables/*"))
    digests = [hashlib.sha256(f.read_bytes()).hexdigest() if f.is_file() else "" for f in files]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def _git_commit() -> str | None:
    """The commit of this checkout, if it is one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
