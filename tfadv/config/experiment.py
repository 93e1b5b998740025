"""An experiment: a grid of runs, each row a change of a base config, and what its page shows.

A file in `configs/` defines `get_experiment(scale)`, which returns an `Experiment`. `plan` turns it
into runs. Rows that need the same run share it. Nothing here imports TensorFlow.
"""

import copy
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfadv.config import validation
from tfadv.config.errors import UserError
from tfadv.config.fields import PENALTIES, defences, flatten, get, put, unknown_field
from tfadv.config.schema import VECTORS, Config


@dataclass(frozen=True)
class Row:
    """One row of a table: an encoder, and an attack on it.

    Attributes:
        name: such as "1" or "λ₂ = 3".
        protect: field -> value, changes of the base config of --mode=protect.
        attack: field -> value, changes of the base config of --mode=attack; None for no attack.
        about: what the row is, in a few words.
        paper: metric -> the number in the paper.
    """

    name: str
    protect: Mapping[str, Any] = field(default_factory=dict)
    attack: Mapping[str, Any] | None = field(default_factory=dict)
    about: str = ""
    paper: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """A claim of the paper: in each pair of rows, the first has less of a metric than the second.

    Attributes:
        text: the claim.
        metric: its name in metrics.json.
        pairs: names of rows, (less, more).
        at_most: the largest difference that the claim allows, for a claim of a small loss.
    """

    text: str
    metric: str
    pairs: Sequence[tuple[str, str]]
    at_most: float = math.inf


@dataclass(frozen=True)
class Plot:
    """A plot of lines through rows.

    Attributes:
        title: of the figure.
        x: a metric; "" for the names of the rows.
        y: a metric.
        series: name of a line -> names of its rows.
    """

    title: str
    x: str
    y: str
    series: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Experiment:
    """A table or figure: its runs, and what its page shows.

    Attributes:
        title: of the page.
        about: a paragraph: what the table shows, and where it differs from the paper's.
        base: mode -> the config that rows change.
        rows: in the table's order, with unique names.
        metrics: the columns, by their names in metrics.json.
        claims: claims of the paper to check.
        plots: to draw.
        latent: the two attributes that colour the t-SNE maps of the features; empty for no maps.
    """

    title: str
    about: str
    base: Callable[[str], Config]
    rows: Sequence[Row]
    metrics: Sequence[str] = ()
    claims: Sequence[Claim] = ()
    plots: Sequence[Plot] = ()
    latent: tuple[str, ...] = ()


@dataclass
class Part:
    """One run of a plan.

    Attributes:
        mode: "recognizer", "protect" or "attack".
        config: of the run.
        path: its folder.
        encoder_run: of an attack: the protect run of the encoder.
        rows: names of the rows that need the run.
    """

    mode: str
    config: Config
    path: Path
    encoder_run: "Part | None" = None
    rows: list[str] = field(default_factory=list)

    @property
    def metrics(self) -> dict[str, Any] | None:
        """The run's metrics; None if it is not finished."""
        path = self.path / "metrics.json"
        return json.loads(path.read_text()) if path.exists() else None


@dataclass
class Plan:
    """An experiment as runs, in an order in which they can be made.

    Attributes:
        experiment: the experiment.
        rows: names of the rows to run. The page shows all rows that are finished.
        folder: the page's folder.
        parts: the runs that these rows need.
        encoders: row -> its protect run, for all rows.
        attacks: row -> its attack, for all rows that have one.
        is_dry: whether to list the runs only.
        missing: of a dry run: sentences that say what has to be there before the runs can start.
    """

    experiment: Experiment
    rows: Sequence[str]
    folder: Path
    parts: list[Part]
    encoders: dict[str, Part]
    attacks: dict[str, Part]
    is_dry: bool = False
    missing: dict[str, None] = field(default_factory=dict)


def check(experiment: Any, path: str) -> None:
    """Raises a UserError unless the value that a file returned is a consistent experiment.

    Args:
        experiment: the value.
        path: the file.
    """
    start = f"--config={path}:"
    if not isinstance(experiment, Experiment):
        raise UserError(
            f"{start} get_experiment(scale) must return a tfadv.config.experiment.Experiment"
        )
    names = [row.name for row in experiment.rows]
    if not names:
        raise UserError(f"{start} an experiment needs rows")
    for name in names:
        if "," in name:
            raise UserError(f"{start} row {name} has a comma in its name, which --rows splits at")
        if names.count(name) > 1:
            raise UserError(f"{start} two rows are called {name}")
    used = [name for claim in experiment.claims for pair in claim.pairs for name in pair]
    used += [name for plot in experiment.plots for rows in plot.series.values() for name in rows]
    for name in used:
        if name not in names:
            raise UserError(f"{start} a claim or plot names row {name}, which does not exist")
    if len(experiment.latent) not in (0, 2):
        raise UserError(f"{start} latent must name two attributes, not {len(experiment.latent)}")


def plan(
    experiment: Experiment,
    root: Path,
    name: str,
    override: Callable[[Config], Config],
    rows: Sequence[str] = (),
) -> Plan:
    """Returns the runs of an experiment, each once.

    The folder of a run is named after its config, so that experiments with the same root share
    runs: in `root/encoders`, `root/attacks` and, if no recognizer is named, `root/recognizer`.

    Args:
        experiment: the experiment.
        root: the folder of all experiments.
        name: the folder of this experiment's page.
        override: applies the command line to a base config.
        rows: names of the rows to run; empty for all rows.

    Raises:
        UserError: a row changes a field that does not exist, to a value that is not allowed, or
            without effect; or `rows` names a row that does not exist.
    """
    known = [row.name for row in experiment.rows]
    for row in rows:
        if row not in known:
            raise UserError(f"--rows names {row}; the rows are {', '.join(known)}")
    rows = [row for row in known if row in (rows or known)]
    parts: dict[Path, Part] = {}

    def add(mode: str, config: Config, folder: Path, row: str, run: Part | None = None) -> Part:
        part = parts.setdefault(folder, Part(mode, config, folder, run))
        part.rows.append(row)
        return part

    base = {mode: override(experiment.base(mode)) for mode in ("protect", "attack")}
    encoders, attacks = {}, {}
    for row in experiment.rows:
        config = _row_config(base["protect"], row.protect, row.name, "protect")
        recognizer = base["attack"].recognizer.path
        if not recognizer and (row.attack is not None or config.loss.excess_identity):
            trained = _without_unused(override(experiment.base("recognizer")), "recognizer")
            folder = root / "recognizer" / _digest(trained)
            add("recognizer", trained, folder, row.name)
            recognizer = str(folder / "recognizer")
        if config.loss.excess_identity:
            config.recognizer.path = recognizer
        folder = root / "encoders" / _folder_name(row.protect, config)
        encoders[row.name] = encoder = add("protect", config, folder, row.name)
        if row.attack is None:
            continue
        config = _row_config(base["attack"], row.attack, row.name, "attack")
        config.recognizer.path = recognizer
        if encoder.config.model.split in VECTORS:  # which are not pooled
            config.feature_map.pooling = Config().feature_map.pooling
        folder = root / "attacks" / encoder.path.name / _folder_name(row.attack, config)
        config.encoder = (str(encoder.path / "encoder"),)
        attacks[row.name] = add("attack", config, folder, row.name, encoder)
    needed = [part for part in parts.values() if set(part.rows) & set(rows)]
    return Plan(experiment, rows, root / name, needed, encoders, attacks)


# Fields without effect in a mode. They get their default, so that rows can share runs.
_UNUSED = {
    "recognizer": (
        *("scale", "baseline", "encoder", "attack", "feature_map", "black_box", "loss", "task"),
        *("audit", "bottleneck"),
        *(f"recognizer.{name}" for name in ("path", "others", "alignment", "layer")),
    ),
    "protect": ("scale", "baseline", "encoder", "attack", "black_box", "metrics", "audit"),
    "attack": ("scale", "baseline", "task", "bottleneck", "audit", *PENALTIES, "loss.warm_up"),
}
_PLANNED = ("encoder", "recognizer")  # fields that the plan sets


def _row_config(base: Config, changes: Mapping[str, Any], row: str, mode: str) -> Config:
    """A copy of the base config with a row's changes, checked, and without unused fields."""
    config = copy.deepcopy(base)
    known = flatten(config)
    for name, value in changes.items():
        if any(f"{name}.".startswith(f"{fixed}.") for fixed in (*_UNUSED[mode], *_PLANNED)):
            raise UserError(f"row {row} changes {name}, which rows cannot change in {mode} mode")
        if name not in known:
            raise UserError(f"row {row}: {unknown_field(name)}")
        if isinstance(known[name], float) and isinstance(value, int):
            value = float(value)  # 1 and 1.0 are the same config
        put(config, name, value)
    try:
        validation.validate(config)
    except UserError as error:
        raise UserError(f"row {row}: {error}") from None
    return _without_unused(config, mode)


def _without_unused(config: Config, mode: str) -> Config:
    """A copy of a config in which fields without effect in a mode have their default."""
    config, default = copy.deepcopy(config), Config()
    unused = list(_UNUSED[mode])
    if mode == "protect":
        if not (config.loss.lambda1 or config.loss.lambda2):  # no simulated attacker
            unused += ["loss.mu1", "loss.mu2", "loss.saturating", "data.extra"]
        if not defences(flatten(config)):
            unused.append("loss.warm_up")
        if not config.loss.excess_identity:
            unused.append("recognizer")
        if not config.loss.max_entropy:  # its identity classifier is a FeatureMap
            unused.append("feature_map")
    if not validation.needs_vgg(config, mode):
        unused.append("perceptual")
    for name in unused:
        put(config, name, get(default, name))
    return config


def _folder_name(changes: Mapping[str, Any], config: Config) -> str:
    """A name for a run's folder: its changes, readable, then a digest of its config."""
    words = []
    for name, value in _changed(config).items():
        if name in changes:
            shown = ",".join(value) if isinstance(value, tuple) else f"{value}"
            words.append(f"{name.rpartition('.')[2]}={shown}")
    readable = re.sub(r"[^\w=.,+-]+", "_", "-".join(words))[:60]
    return f"{readable or 'base'}-{_digest(config)}"


def _digest(config: Config) -> str:
    """A digest of the fields without their default, so that new fields change no folder."""
    fields = json.dumps(_changed(config), sort_keys=True)
    return hashlib.sha256(fields.encode()).hexdigest()[:8]


def _changed(config: Config) -> dict[str, Any]:
    default = flatten(Config())
    return {name: value for name, value in flatten(config).items() if value != default[name]}
