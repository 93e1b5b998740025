"""One typed tree of settings, validated before TensorFlow is imported.

A file in `configs/` defines `get_config(mode)`, which returns a `Config`; `run.py` applies
`--config.FIELD=VALUE` to it and calls `validate`. Nothing here imports TensorFlow.
"""

import dataclasses
import difflib
import inspect
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MODES = ("protect", "attack")
SPLITS = ("conv1", "conv2", "conv3", "conv4", "avgpool", "fc")
PRECISIONS = ("auto", "float32", "mixed_bfloat16")


class UserError(Exception):
    """A mistake that the user can mend: shown as one line, exit code 2, never a traceback."""


@dataclass(slots=True)
class Data:
    """Where the pictures come from."""

    dir: str = "data"  # the folder of the TFDS datasets
    dataset: str = "synthetic"  # TFDS name, with its config where it has several: celeba/identity
    size: int = 64  # pixels a side of the square pictures; a multiple of 32
    held_out: float = 0.1  # share of a split's identities never trained on, for tuning and stopping
    shuffle_buffer: int = 10_000  # encoded pictures to shuffle among, at most 512 MiB of them


@dataclass(slots=True)
class Task:
    """What the encoder is for."""

    attributes: tuple[str, ...] = ()  # the attributes that f predicts; empty: all of the dataset


@dataclass(slots=True)
class Model:
    """Enc, f and Dec; in attack mode only `decoder_width` counts."""

    depth: int = 50  # of the ResNet: 18, 34 or 50 (the paper's)
    width: float = 1.0  # multiplies the ResNet's channels
    split: str = "fc"  # the layer whose output is the feature Z
    decoder_width: float = 1.0  # multiplies the channels of Dec and Dec^a (Figure 6)
    weights: str = ""  # torchvision-named .safetensors or .npz to start Enc and f from


@dataclass(slots=True)
class Loss:
    """The weights of the loss terms."""

    lambda1: float = 1.0  # negative pixel reconstruction loss in Eq. 9; 0: no defence


@dataclass(slots=True)
class Train:
    """Training, of the protector in protect mode and of Dec^a in attack mode."""

    steps: int = 10_000  # in attack mode a cap: it stops before, once it no longer improves
    batch: int = 64  # pictures in a batch
    learning_rate: float = 1e-3  # Adam's; cosine decay to 0 in protect mode
    decoder_learning_rate: float = 1e-3  # Adam's for Dec in protect mode, constant
    decoder_steps: int = 1  # updates (a) of Dec for each update (b) of Enc and f
    clip_norm: float = 5.0  # global norm that gradients are clipped to; 0: not clipped
    log_every: int = 50  # steps between two rows of the log
    evaluate_every: int = 500  # steps between two evaluations on held-out pictures
    checkpoint_every: int = 500  # steps between two checkpoints


@dataclass(slots=True)
class Attack:
    """How long the attacker tries."""

    patience: int = 5  # evaluations without improvement before the rate falls, or it all ends
    rate_drops: int = 2  # times that the learning rate falls to 0.3 of itself before the end
    cache_mb: int = 4096  # MiB for features and pictures of each part, else computed every time


@dataclass(slots=True)
class BlackBox:
    """How to call an encoder that is not ours; an encoder of ours says it itself."""

    output: str = ""  # name of the output to attack, where there are several
    low: float = -1.0  # what black is on a floating-point input
    high: float = 1.0  # what white is


@dataclass(slots=True)
class Runtime:
    """The machine."""

    precision: str = "auto"  # auto: mixed_bfloat16 where the hardware is fast at it, else float32
    seed: int = 0  # of initial weights and data order
    deterministic: bool = False  # bit-identical repeats, slower


@dataclass(slots=True)
class Report:
    """What the report shows."""

    pictures: bool = True  # False: no picture of the dataset leaves for report or TensorBoard
    examples: int = 8  # pictures in a grid


@dataclass(slots=True)
class Config:
    """Everything that a run depends on."""

    encoder: tuple[str, ...] = ()  # attack: SavedModels; empty: of the same config's protect run
    baseline: bool = False  # protect: also train the same encoder without defence, to compare
    data: Data = field(default_factory=Data)
    task: Task = field(default_factory=Task)
    model: Model = field(default_factory=Model)
    loss: Loss = field(default_factory=Loss)
    train: Train = field(default_factory=Train)
    attack: Attack = field(default_factory=Attack)
    black_box: BlackBox = field(default_factory=BlackBox)
    runtime: Runtime = field(default_factory=Runtime)
    report: Report = field(default_factory=Report)


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of a tree of dataclasses as {"data.size": 64, ...}."""
    leaves = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            leaves |= flatten(value, f"{prefix}{item.name}.")
        else:
            leaves[prefix + item.name] = value
    return leaves


def describe() -> str:
    """Returns every field with its default and what it is: the comments of this file."""
    lines = ["config fields, and their values where a config file sets no other:"]
    groups = {"": Config} | {f"{g.name}.": g.type for g in dataclasses.fields(Config)}
    for prefix, group in groups.items():
        if dataclasses.is_dataclass(group):
            for name, default, meaning in _FIELD.findall(inspect.getsource(group)):
                lines.append(f"  --config.{prefix + name + '=' + default:<34} {meaning}")
    return "\n".join(lines)


def unknown_field(name: str) -> UserError:
    """Returns the error for a field that does not exist, with the nearest that does."""
    return UserError(f"there is no config field {name}{_nearest(name)}")


def hint_for(error: Exception) -> str:
    """Returns which field was meant, where a config file names one that does not exist."""
    words = re.findall(r"\w+(?=\.__init__)|(?<=')\w+(?=')", str(error))
    groups = {group.type.__name__: group.name for group in dataclasses.fields(Config)}
    if len(words) < 2 or words[0] not in groups:
        return ""
    return _nearest(f"{groups[words[0]]}.{words[1]}")


def _nearest(name: str) -> str:
    names, leaf = list(flatten(Config())), name.rpartition(".")[2]
    near = [known for known in names if known.rpartition(".")[2] == leaf]
    near = near or difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    return f"; did you mean {near[0]}?" if near else ""


def normalise(config: Config) -> None:
    """Splits lists given as one string: --config.task.attributes=Smiling,Male, in place."""
    for holder, name in ((config, "encoder"), (config.task, "attributes")):
        value = getattr(holder, name, None)
        items = [value] if isinstance(value, str) else value
        if isinstance(items, list | tuple) and all(isinstance(item, str) for item in items):
            parts = [part.strip() for item in items for part in item.split(",")]
            setattr(holder, name, tuple(part for part in parts if part))


def validate(config: Config) -> None:
    """Checks every field's value by itself.

    Raises:
        UserError: names the field, its value and what it may be.
    """
    check_types(config)
    values = flatten(config)
    for name, (low, high) in _RANGES.items():
        if not low <= values[name] <= high:
            limit = f"from {low} to {high}" if high < float("inf") else f"at least {low}"
            raise UserError(f"{name} is {values[name]}; it must be {limit}")
    for name, choices in _CHOICES.items():
        if values[name] not in choices:
            listed = ", ".join(map(str, choices))
            raise UserError(f"{name} is {values[name]!r}; it must be one of {listed}")
    if config.data.size % 32:
        raise UserError(f"data.size is {config.data.size}; it must be a multiple of 32")
    if config.black_box.low >= config.black_box.high:
        raise UserError(
            f"black_box.low is {config.black_box.low}; it must be below black_box.high, "
            f"{config.black_box.high}"
        )
    for name, example in (("data.dataset", "synthetic"), ("data.dir", "data")):
        if not values[name]:
            raise UserError(f"{name} is empty; give it a value, such as {example}")
    twice = [name for name, times in Counter(config.task.attributes).items() if times > 1]
    if twice:
        raise UserError(f"task.attributes names {twice[0]} twice")


def check_types(config: Config) -> None:
    """Checks that every field has a value of its type: a config file can put anything into it.

    Raises:
        UserError: names the field, its value and the type.
    """
    defaults = Config()
    for group in dataclasses.fields(Config):
        value, default = getattr(config, group.name), getattr(defaults, group.name)
        if dataclasses.is_dataclass(default) and type(value) is not type(default):
            raise UserError(
                f"{group.name} is {value!r}; it must be a tfadv.config.{type(default).__name__}"
            )
    values = flatten(config)
    for name, default in flatten(defaults).items():
        if not _fits(values[name], type(default)):
            kind = _KINDS[type(default)]
            raise UserError(f"{name} is {values[name]!r}; it must be {kind}")


def check_dataset(data: Data) -> None:
    """Raises a UserError if a local folder lacks the dataset; drawn faces are made on demand."""
    if Path(data.dir).is_file():
        raise UserError(f"data.dir is {data.dir}, a file; it must be a folder")
    if "://" in data.dir or data.dataset.split("/")[0] == "synthetic":
        return
    if not (Path(data.dir) / data.dataset.replace(":", "/")).exists():
        raise missing_dataset(data)


def missing_dataset(data: Data) -> UserError:
    """Returns the error for a dataset that isn't prepared, with those that are."""
    prepared = sorted(
        path.parents[1].relative_to(data.dir).as_posix()
        for path in Path(data.dir).glob("*/*/*/dataset_info.json")
    )
    return UserError(
        f"there is no dataset {data.dataset} in data.dir={data.dir}, only "
        f"{', '.join(prepared) or 'nothing'}; make it with python -m data_prep.celeba, "
        f"data_prep.folder or data_prep.synthetic"
    )


def check_weights(path: str) -> None:
    """Raises a UserError unless a path is empty or a file that weights can be read from."""
    if path and Path(path).suffix not in (".safetensors", ".npz"):
        raise UserError(f"model.weights is {path}; it must be a .safetensors or .npz file")
    if path and not Path(path).is_file():
        raise UserError(f"model.weights is {path}, which does not exist")


def check_saved_model(path: str) -> None:
    """Raises a UserError if a path can't be a SavedModel; remote paths are left to the loader."""
    if "://" in path:
        return
    if not Path(path).exists():
        raise UserError(f"encoder {path} does not exist")
    if not (Path(path) / "saved_model.pb").exists():
        raise UserError(f"encoder {path} is no SavedModel: it has no saved_model.pb")


_FIELD = re.compile(r"^    (\w+): [^=]+ = (\S+)  # (.+)$", re.MULTILINE)
_KINDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    tuple: "a list of names, such as a,b",
}
_INFINITY = float("inf")
_LARGEST = 2**31 - 1
_RANGES = {
    "data.size": (32, 1024),
    "data.held_out": (0.01, 0.5),
    "data.shuffle_buffer": (1, _LARGEST),
    "model.width": (0.05, 4.0),
    "model.decoder_width": (0.05, 4.0),
    "loss.lambda1": (0.0, _INFINITY),
    "train.steps": (1, _LARGEST),
    "train.batch": (2, _LARGEST),
    "train.learning_rate": (1e-9, 10.0),
    "train.decoder_learning_rate": (1e-9, 10.0),
    "train.decoder_steps": (1, 100),
    "train.clip_norm": (0.0, _INFINITY),
    "train.log_every": (1, _LARGEST),
    "train.evaluate_every": (1, _LARGEST),
    "train.checkpoint_every": (1, _LARGEST),
    "attack.patience": (1, _LARGEST),
    "attack.rate_drops": (0, 20),
    "attack.cache_mb": (0, _LARGEST),
    "runtime.seed": (0, _LARGEST),
    "report.examples": (1, 64),
}
_CHOICES = {
    "model.depth": (18, 34, 50),
    "model.split": SPLITS,
    "runtime.precision": PRECISIONS,
}


def _fits(value: Any, kind: type) -> bool:
    if kind is tuple:
        return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    if kind is float:
        is_number = _fits(value, int) or isinstance(value, float)
        return is_number and abs(value) <= sys.float_info.max
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
