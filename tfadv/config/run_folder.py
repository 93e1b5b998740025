"""The folder of a run: its record, its lock and its result.

Nothing here imports TensorFlow, so that a mistake is reported at once.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from tfadv.config.errors import UserError
from tfadv.config.fields import flatten, shown
from tfadv.config.files import write_json
from tfadv.config.schema import Config
from tfadv.config.validation import dataset_folder

PACKAGES = (
    "tfadv",
    "tensorflow",
    "keras",
    "tensorflow-datasets",
    "numpy",
    "scikit-learn",
    "opencv-python-headless",
)

# Fields that no result depends on.
_WITHOUT_EFFECT = ("audit.fail_above", "audit.fail_below", "audit.baseline")


class RunFolder:
    """The folder of a run.

    Attributes:
        path: the folder.
        mode: the mode of the run.
        config: the config of the run.
        digests: path of a file or folder that the run reads -> digest of its content.

    Raises:
        UserError: the folder holds a run of another mode or config. Differing fields are named.
    """

    def __init__(self, path: Path | str, mode: str, config: Config):
        self.path = Path(path)
        self.mode = mode
        self.config = config
        for folder in (self.path, *self.path.parents):
            if folder.is_file():
                raise UserError(f"--workdir={self.path}: {folder} is a file; it must be a folder")
        self.digests = {path: digest(Path(path)) for path in _inputs(config) if Path(path).exists()}
        if self._has_results():
            self._check_same()

    @property
    def metrics(self) -> dict[str, Any] | None:
        """The content of metrics.json, or None if the run is not finished."""
        exists = (self.path / "metrics.json").exists()
        return self._read("metrics.json") if exists else None

    @property
    def left_out(self) -> list[str] | None:
        """The damaged records that the run left out, or None if it has not begun."""
        if not (self.path / "config.json").exists():
            return None
        return self._read("config.json").get("dataset", {}).get("damaged", {}).get("left_out")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps every other run out of the folder. The lock of a killed run is free again.

        A folder that is still empty at the end is removed.

        Raises:
            UserError: another run is using the folder. Its process and host are named.
        """
        if fcntl is None:
            yield
            return
        with self._take_lock() as file:
            now = datetime.datetime.now().isoformat(" ", "minutes")
            owner = f"process {os.getpid()} on {platform.node()}, since {now}"
            print(owner, end="", file=file, flush=True)
            try:
                yield
            finally:
                Path(file.name).unlink(missing_ok=True)
                if not any(self.path.iterdir()):
                    self.path.rmdir()

    def _take_lock(self) -> IO[str]:
        """Returns the lock file, open, locked and empty."""
        path = self.path / ".lock"
        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            file = path.open("a+")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                with file:
                    file.seek(0)
                    owner = file.read() or "another run"
                raise UserError(
                    f"--workdir={self.path} is in use by {owner}; wait for it, or choose another "
                    f"--workdir"
                ) from None
            except OSError:  # a file system without locks
                pass
            # A run that has just ended may have removed the file that was opened here.
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.truncate(0)
                return file
            file.close()

    def begin(self, **facts: Any) -> None:
        """Makes the folder and records the config, the versions and facts such as the dataset.

        Raises:
            UserError: the run resumes with other damaged records than it began with.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._check_damaged(facts.get("dataset", {}))
        record = {
            "mode": self.mode,
            "config": dataclasses.asdict(self.config),
            "versions": _versions(),
            "git_commit": _git_commit(),
            "digests": self.digests,
        }
        write_json(self.path / "config.json", record | facts)

    def finish(self, metrics: dict[str, Any]) -> None:
        """Writes metrics.json, which marks the run as finished."""
        write_json(self.path / "metrics.json", metrics)

    def _read(self, name: str) -> Any:
        try:
            return json.loads((self.path / name).read_text())
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.path / name} can't be read ({error}); remove it or choose another --workdir"
            ) from None

    def _has_results(self) -> bool:
        """Whether there is a run to protect. One that failed before it trained anything is none."""
        results = "checkpoints", "metrics.json", "*.npz"
        is_begun = (self.path / "config.json").exists()
        return is_begun and any(path for name in results for path in self.path.rglob(name))

    def _check_damaged(self, dataset: dict[str, Any]) -> None:
        """Raises a UserError if a resumed run skips other damaged records than before."""
        if not self._has_results():
            return
        before = self._read("config.json").get("dataset", {}).get("damaged", {})
        now = dataset.get("damaged", {})
        if before.get("left_out", []) != now.get("left_out", []):
            raise UserError(
                f"--workdir={self.path} holds a run that skipped {before.get('records', 0):,} "
                f"damaged records of {dataset['name']}, which now has {now['records']:,}, or "
                f"others; choose another --workdir or remove that one"
            )

    def _check_same(self) -> None:
        """Raises a UserError unless the folder's run has this mode, config and inputs."""
        before = self._read("config.json")
        if not isinstance(before, dict) or not {"mode", "config"} <= set(before):
            raise UserError(
                f"{self.path / 'config.json'} was written by another program; choose another "
                f"--workdir"
            )
        # A field that the run's version of tfadv lacked had its default.
        old, new = _values(Config()) | _leaves(before["config"]), _values(self.config)
        differing = [
            f"{name} (was {old.get(name)!r}, is {new.get(name)!r})"
            for name in sorted(old | new)
            if old.get(name) != new.get(name) and name not in _WITHOUT_EFFECT
        ]
        if before["mode"] != self.mode:
            differing.insert(0, f"mode (was {before['mode']!r}, is {self.mode!r})")
        for path, old_digest in before.get("digests", {}).items():
            if self.digests.get(path, old_digest) != old_digest:
                differing.append(f"the content of {path}")
        if differing:
            raise UserError(
                f"--workdir={self.path} holds another run: {', '.join(differing)}; choose another "
                f"--workdir or remove that one"
            )


def summary(
    mode: str, config: Config, dataset: dict[str, Any], digests: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Returns what was run, as a flat table for a report.

    Args:
        mode: of the run.
        config: of the run; the settings that differ from the defaults are in the table.
        dataset: a data set's description.
        digests: what a SHA-256 is of -> the SHA-256.
    """
    now = datetime.datetime.now(datetime.UTC)
    facts = {"command": command_line(), "mode": mode, "date": now.strftime("%Y-%m-%d %H:%M UTC")}
    facts["dataset"] = dataset["name"]
    facts |= {f"{name} SHA-256": value[:16] for name, value in (digests or {}).items()}
    facts |= {f"images in {split}": f"{count:,}" for split, count in dataset["splits"].items()}
    for name, count in dataset.get("extra", {}).items():
        facts[f"public images from {name}"] = f"{count:,}"
    if damaged := dataset.get("damaged", {}).get("records"):
        facts["damaged records skipped"] = f"{damaged:,}"
    default = flatten(Config())
    for name, value in flatten(config).items():
        if value != default[name]:
            facts[f"--config.{name}"] = shown(value)
    facts |= {name: version or "not installed" for name, version in _versions().items()}
    return {name: value for name, value in facts.items() if value != ""}


def command_line() -> str:
    """Returns the command of this process, if it is run.py; else an empty text."""
    program, *arguments = sys.argv
    return shlex.join(["python", "run.py", *arguments]) if Path(program).name == "run.py" else ""


def digest(path: Path) -> str:
    """Returns the SHA-256 of a file or folder that a run reads.

    For a recognizer in several files these are all its files, for a SavedModel its graph and
    variables, for a dataset the sizes of its splits in images and bytes.
    """
    if path.is_dir():
        names = ("saved_model.pb", "recognizer.json", "variables/*")
        names += ("dataset_info.json", "*/dataset_info.json")
        files = [file for name in names for file in sorted(path.glob(name))]
    else:
        files = [path, path.with_suffix(".prototxt"), path.with_name(f"{path.name}.json")]
    digests = [hashlib.sha256(f.read_bytes()).hexdigest() if f.is_file() else "" for f in files]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def _inputs(config: Config) -> Iterator[str]:
    """Yields the paths of all that a run with this config may read; some may not exist."""
    encoders = list(filter(None, (*config.encoder, config.audit.unprotected)))
    yield from encoders
    # Attacks also use the models that a protect run exports next to its encoder.
    for encoder in encoders:
        for name in ("classifier", "unprotected/encoder", "unprotected/classifier"):
            yield str(Path(encoder).parent / name)
    for dataset in filter(None, (config.data.dataset, *config.data.extra, config.audit.domain)):
        yield str(dataset_folder(config.data.dir, dataset))
    files = (config.model.weights, config.perceptual.weights)
    yield from filter(None, (*files, config.recognizer.path, *config.recognizer.others))


def _values(config: Config) -> dict[str, Any]:
    """Returns the fields of a config as JSON returns them, with lists for tuples."""
    return json.loads(json.dumps(flatten(config)))


def _leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            leaves |= _leaves(value, f"{prefix}{name}.")
        else:
            leaves[prefix + name] = value
    return leaves


def _versions() -> dict[str, str | None]:
    """Returns the version of each package; None for a package that is not installed."""
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = None
    return installed


def _git_commit() -> str | None:
    """Returns the commit of this checkout; None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
