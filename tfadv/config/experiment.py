"""A grid of runs: rows as changes to a base config, and what is to be shown and checked of them.

A file in `configs/` defines `get_experiment(scale)`, which returns an `Experiment`; `plan` turns it
into parts: encoders to train and attacks on them, each once, whichever rows need it. Nothing here
imports TensorFlow.
"""

import copy
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfadv.config import validation
from tfadv.config.errors import UserError
from tfadv.config.fields import PENALTIES, defences, flatten, unknown_field
from tfadv.config.schema import VECTORS, Config


@dataclass(frozen=True)
class Row:
    """One line of a table: an encoder, and an attack on it.

    Attributes:
        name: such as "1", or "λ₂ = 3".
        protect: field -> value, changes to the base config of protect mode.
        attack: as `protect`, of attack mode; None: the encoder isn't attacked.
        about: what it is, in a few words.
        paper: metric -> what the paper reports.
    """

    name: str
    protect: Mapping[str, Any] = field(default_factory=dict)
    attack: Mapping[str, Any] | None = field(default_factory=dict)
    about: str = ""
    paper: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """What the paper says of a measure: in each pair of rows the first has less than the second.

    Attributes:
        text: the claim.
        metric: the measure.
        pairs: names of rows, (less, more).
        at_most: the difference may be this much at most: "at a small loss".
    """

    text: str
    metric: str
    pairs: Sequence[tuple[str, str]]
    at_most: float = float("inf")


@dataclass(frozen=True)
class Plot:
    """Lines through rows: y over x.

    Attributes:
        title: of the figure.
        x: a metric; or "" for the places of the rows.
        y: a metric.
        series: name of a line -> names of its rows.
    """

    title: str
    x: str
    y: str
    series: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Experiment:
    """A table or figure: what to run, what to show of it, what to check.

    Attributes:
        title: of the page.
        about: a paragraph: what the table is about, and where ours has to differ from the paper.
        base: from a mode to the config that rows change.
        rows: in the table's order; their names are unique.
        metrics: columns, names as in metrics.json.
        claims: of the paper, to be checked.
        plots: to be drawn.
        latent: attributes by which t-SNE maps of the rows' features are coloured; two, or none.
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
    """A run that rows need.

    Attributes:
        mode: "recognizer", "protect" or "attack".
        config: of the run.
        path: its folder.
        target: the protect run that an attack is on.
        rows: names of the rows that need it.
    """

    mode: str
    config: Config
    path: Path
    target: "Part | None" = None
    rows: list[str] = field(default_factory=list)

    @property
    def metrics(self) -> dict[str, Any] | None:
        """What the run measured, or None if it isn't finished."""
        path = self.path / "metrics.json"
        return json.loads(path.read_text()) if path.exists() else None


@dataclass
class Plan:
    """An experiment as runs, in the order in which they can be made.

    Attributes:
        experiment: what is planned.
        rows: names of those that are to be run; the page shows all that are done.
        folder: where the page goes.
        parts: the runs that these rows need.
        encoders: row -> its protect run, of all rows.
        attacks: row -> its attack, if it has one.
        is_dry: whether it is only to be shown.
    """

    experiment: Experiment
    rows: Sequence[str]
    folder: Path
    parts: list[Part]
    encoders: dict[str, Part]
    attacks: dict[str, Part]
    is_dry: bool = False


def check(experiment: Any, path: str) -> None:
    """Raises a UserError unless what a file gave is an experiment whose names fit together."""
    at = f"--config={path}:"
    if not isinstance(experiment, Experiment):
        raise UserError(
            f"{at} get_experiment(scale) must return a tfadv.config.experiment.Experiment"
        )
    names = [row.name for row in experiment.rows]
    if not names:
        raise UserError(f"{at} an experiment needs rows")
    for name in names:
        if "," in name:
            raise UserError(f"{at} row {name} has a comma in its name, which parts names in --rows")
        if names.count(name) > 1:
            raise UserError(f"{at} two rows are called {name}")
    used = [name for claim in experiment.claims for pair in claim.pairs for name in pair]
    used += [name for plot in experiment.plots for rows in plot.series.values() for name in rows]
    for name in used:
        if name not in names:
            raise UserError(f"{at} a claim or plot names row {name}, which there is not")
    if len(experiment.latent) not in (0, 2):
        raise UserError(f"{at} latent must name two attributes, not {len(experiment.latent)}")


def plan(
    experiment: Experiment,
    root: Path,
    name: str,
    override: Callable[[Config], Config],
    rows: Sequence[str] = (),
) -> Plan:
    """Returns the runs of an experiment, those that rows share once.

    A run's folder is named after its config, so that other experiments with the same root find it
    as well: `root/encoders`, `root/attacks` and, where no recogniser is named, `root/recognizer`.

    Args:
        experiment: what to run.
        root: the folder of all experiments.
        name: of this one, the folder of its page.
        override: applies the command line to a base config.
        rows: names of those that are to be run; all, if there are none.

    Raises:
        UserError: a row changes a field that there is not, or to what it can't be; or there is no
            row of such a name.
    """
    known = [row.name for row in experiment.rows]
    for row in rows:
        if row not in known:
            raise UserError(f"--rows names {row}; the rows are {', '.join(known)}")
    rows = [row for row in known if row in (rows or known)]
    parts: dict[Path, Part] = {}

    def add(mode: str, config: Config, folder: Path, row: str, target: Part | None = None) -> Part:
        part = parts.setdefault(folder, Part(mode, config, folder, target))
        part.rows.append(row)
        return part

    base = {mode: override(experiment.base(mode)) for mode in ("protect", "attack")}
    recognizer = base["attack"].recognizer.path
    encoders, attacks = {}, {}
    for row in experiment.rows:
        hides = row.protect.get("loss.excess_identity", base["protect"].loss.excess_identity)
        if (row.attack is not None or hides) and not base["attack"].recognizer.path:
            config = _without_unused(override(experiment.base("recognizer")), "recognizer")
            folder = root / "recognizer" / _digest(config)
            add("recognizer", config, folder, row.name)
            recognizer = str(folder / "recognizer")
        _check_used(row)
        config = _without_unused(_change(base["protect"], row.protect, row.name), "protect")
        if config.loss.excess_identity:
            config.recognizer.path = recognizer
        folder = root / "encoders" / _slug(row.protect, config)
        encoders[row.name] = encoder = add("protect", config, folder, row.name)
        if row.attack is None:
            continue
        config = _without_unused(_change(base["attack"], row.attack, row.name), "attack")
        config.recognizer.path = recognizer
        if encoder.config.model.split in VECTORS:
            config.feature_map.pooling = Config().feature_map.pooling
        folder = root / "attacks" / encoder.path.name / _slug(row.attack, config)
        config.encoder = (str(encoder.path / "encoder"),)
        attacks[row.name] = add("attack", config, folder, row.name, encoder)
    needed = [part for part in parts.values() if set(part.rows) & set(rows)]
    return Plan(experiment, rows, root / name, needed, encoders, attacks)


# What a mode doesn't look at: there its default counts, so that runs can be shared.
_UNUSED = {
    "recognizer": (
        *("scale", "baseline", "encoder", "attack", "feature_map", "black_box", "loss", "task"),
        *("audit", "bottleneck"),
        *(f"recognizer.{name}" for name in ("path", "others", "alignment", "layer")),
    ),
    "protect": ("scale", "baseline", "encoder", "attack", "black_box", "metrics", "audit"),
    "attack": ("scale", "baseline", "task", "bottleneck", "audit", *PENALTIES, "loss.warm_up"),
}
_CHOSEN = ("encoder", "recognizer")  # for all attacks, by the plan


def _check_used(row: Row) -> None:
    """Raises a UserError for a change that a row's run would not look at."""
    for mode, changes in (("protect", row.protect), ("attack", row.attack or {})):
        for name in changes:
            lost = (*_UNUSED[mode], *_CHOSEN)
            if any(name == known or name.startswith(f"{known}.") for known in lost):
                raise UserError(f"row {row.name} changes {name}, which can't differ in {mode} mode")


def _without_unused(config: Config, mode: str) -> Config:
    """A copy in which what a mode doesn't look at has its default."""
    config, default = copy.deepcopy(config), Config()
    unused = list(_UNUSED[mode])
    if mode == "protect":
        if not (config.loss.lambda1 or config.loss.lambda2):  # there is no simulated attacker
            unused += ["loss.mu1", "loss.mu2", "loss.saturating", "data.extra"]
        if not defences(flatten(config)):
            unused.append("loss.warm_up")
        if not config.loss.excess_identity:
            unused.append("recognizer")
        if not config.loss.max_entropy:  # whose classifier is a FeatureMap
            unused.append("feature_map")
    if not validation.needs_vgg(config, mode):
        unused.append("perceptual")
    for name in unused:
        group, _, leaf = name.rpartition(".")
        holder, source = (getattr(each, group) if group else each for each in (config, default))
        setattr(holder, leaf, getattr(source, leaf))
    return config


def _change(base: Config, changes: Mapping[str, Any], row: str) -> Config:
    """A copy of a config with fields changed, checked."""
    config = copy.deepcopy(base)
    known = flatten(config)
    for name, value in changes.items():
        if name not in known:
            raise UserError(f"row {row}: {unknown_field(name)}")
        if isinstance(known[name], float) and isinstance(value, int):
            value = float(value)  # 1 and 1.0 are one config
        *groups, leaf = name.split(".")
        holder = config
        for group in groups:
            holder = getattr(holder, group)
        setattr(holder, leaf, value)
    try:
        validation.split_lists(config)
        validation.validate(config)
    except UserError as error:
        raise UserError(f"row {row}: {error}") from None
    return config


def _slug(changes: Iterable[str], config: Config) -> str:
    """A folder's name: what a person recognises, then what no other config has."""
    default, words = flatten(Config()), []
    for name, value in flatten(config).items():
        if name in changes and value != default[name]:
            shown = ",".join(value) if isinstance(value, tuple) else f"{value}"
            words.append(f"{name.rpartition('.')[2]}={shown}")
    readable = re.sub(r"[^\w=.,+-]+", "_", "-".join(words))[:60]
    return f"{readable or 'base'}-{_digest(config)}"


def _digest(config: Config) -> str:
    """What tells a config from others; a field that is added later doesn't matter by default."""
    default = flatten(Config())
    changed = {name: value for name, value in flatten(config).items() if value != default[name]}
    fields = json.dumps(changed, sort_keys=True)
    return hashlib.sha256(fields.encode()).hexdigest()[:8]
