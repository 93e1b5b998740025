"""What is wrong with a config, told before TensorFlow is imported: one line, with the way out."""

import dataclasses
import difflib
import math
import re
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tfadv.config.errors import UserError
from tfadv.config.schema import (
    DECODERS,
    LOSSES,
    NOISES,
    ON_ERROR,
    PRECISIONS,
    PREDICTIONS,
    SCALES,
    SPLITS,
    STRATEGIES,
    VGG19_LAYERS,
    Audit,
    Config,
    Data,
    flatten,
)


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


def split_lists(config: Config) -> None:
    """Splits lists given as one string: --config.task.attributes=Smiling,Male, in place."""
    lists = (
        (config, "encoder"),
        (config.data, "extra"),
        (config.task, "attributes"),
        (config.perceptual, "layers"),
        (config.recognizer, "others"),
        *((config.audit, name) for name in ("decoders", "losses", "few", "fail_above")),
    )
    for holder, name in lists:
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
    for name, example in _EXAMPLES.items():
        if not values[name]:
            raise UserError(f"{name} is empty; give it a value, such as {example}")
    twice = [name for name, times in Counter(config.task.attributes).items() if times > 1]
    if twice:
        raise UserError(f"task.attributes names {twice[0]} twice")
    check_extra(config.data)
    check_layers(config.perceptual.layers)
    check_defences(config)
    check_audit(config.audit)


def check_audit(audit: Audit) -> None:
    """Raises a UserError unless the lists of an audit name what there is."""
    for field, choices in (("decoders", DECODERS), ("losses", LOSSES)):
        for name in getattr(audit, field):
            if name not in choices:
                raise UserError(
                    f"audit.{field} names {name}; it must be one of {', '.join(choices)}"
                )
    for count in audit.few:
        if not count.isdecimal() or not int(count):
            raise UserError(f"audit.few has {count!r}; it must be numbers of pictures, above 0")


def check_defences(config: Config) -> None:
    """Raises a UserError if parts of a defence don't go together."""
    bottleneck, loss = config.bottleneck, config.loss
    if bottleneck.variational and bottleneck.noise:
        raise UserError(
            f"bottleneck.variational is {bottleneck.variational:g} and bottleneck.noise is "
            f"{bottleneck.noise:g}: a variational bottleneck has noise of its own; set one of "
            f"them to 0"
        )
    if bottleneck.variational and bottleneck.noise_kind != "gaussian":
        raise UserError(
            f"bottleneck.variational is {bottleneck.variational:g} and bottleneck.noise_kind is "
            f"{bottleneck.noise_kind}: the noise of a variational bottleneck is gaussian"
        )
    if math.ceil(3 * bottleneck.blur) > config.data.size:
        raise UserError(
            f"bottleneck.blur is {bottleneck.blur:g}; it must be at most a third of data.size, "
            f"{config.data.size}"
        )
    if bottleneck.size and config.model.split == "conv1" and config.model.depth < 50:
        raise UserError(
            f"bottleneck.size is {bottleneck.size} at model.split=conv1 of a "
            f"ResNet-{config.model.depth}, whose next layer adds its input to its output: choose "
            f"another split point"
        )
    if config.data.size % bottleneck.downscale:
        raise UserError(
            f"bottleneck.downscale is {bottleneck.downscale}; it must divide data.size, "
            f"{config.data.size}"
        )
    if bottleneck.flip and bottleneck.predictions != "hard":
        raise UserError(
            f"bottleneck.flip is {bottleneck.flip:g}: only yes or no can be turned round; set "
            f"--config.bottleneck.predictions=hard"
        )
    for name in ("nopeek", "excess_pixels", "excess_identity"):
        if getattr(loss, name) and config.train.batch < 4:
            raise UserError(
                f"train.batch is {config.train.batch}; loss.{name} needs at least 4 pictures"
            )


def check_layers(layers: Sequence[str]) -> None:
    """Raises a UserError unless layers of VGG19 are known, and named once each."""
    for name, times in Counter(layers).items():
        if name not in VGG19_LAYERS:
            raise UserError(
                f"perceptual.layers names {name}; it must be one of {', '.join(VGG19_LAYERS)}"
            )
        if times > 1:
            raise UserError(f"perceptual.layers names {name} twice")


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
                f"{group.name} is {value!r}; it must be a "
                f"tfadv.config.schema.{type(default).__name__}"
            )
    values = flatten(config)
    for name, default in flatten(defaults).items():
        if not _fits(values[name], type(default)):
            kind = _KINDS[type(default)]
            raise UserError(f"{name} is {values[name]!r}; it must be {kind}")


def check_extra(data: Data) -> None:
    """Raises a UserError if a further dataset is named twice, or is the dataset itself."""
    seen = {stored_name(data.dataset)}
    for name in data.extra:
        if stored_name(name) == stored_name(data.dataset):
            raise UserError(f"data.extra names {name}, which is data.dataset itself")
        if stored_name(name) in seen:
            raise UserError(f"data.extra names {name} twice")
        seen.add(stored_name(name))


def stored_name(name: str) -> str:
    """Returns the name of a dataset without its version, with its config where it is the demo's."""
    bare = name.partition(":")[0]
    return "synthetic/default" if bare == "synthetic" else bare


def needs_vgg(config: Config, mode: str) -> bool:
    """Returns whether a loss of this mode compares perceptual features."""
    loss = config.loss
    if mode == "audit":
        return "perceptual" in config.audit.losses
    if mode == "protect":
        return bool(loss.lambda2 or (loss.lambda1 and loss.mu2))
    return mode == "attack" and bool(loss.mu2)


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
    "data.skip_at_most": (0.0, 1.0),
    "black_box.timeout": (1.0, 1e6),
    "data.shuffle_buffer": (1, _LARGEST),
    "model.width": (0.05, 4.0),
    "model.decoder_width": (0.05, 4.0),
    "model.discriminator_width": (0.05, 4.0),
    "loss.lambda1": (0.0, _INFINITY),
    "loss.lambda2": (0.0, _INFINITY),
    "loss.mu1": (0.0, _INFINITY),
    "loss.mu2": (0.0, _INFINITY),
    "loss.nopeek": (0.0, _INFINITY),
    "loss.excess_pixels": (0.0, _INFINITY),
    "loss.excess_identity": (0.0, _INFINITY),
    "loss.max_entropy": (0.0, _INFINITY),
    "loss.warm_up": (0.0, 1.0),
    "bottleneck.downscale": (1, 1024),
    "bottleneck.blur": (0.0, 32.0),
    "bottleneck.size": (0, 65_536),
    "bottleneck.variational": (0.0, _INFINITY),
    "bottleneck.noise": (0.0, 1e6),
    "bottleneck.bits": (0, 16),
    "bottleneck.flip": (0.0, 0.5),
    "train.steps": (1, _LARGEST),
    "train.batch": (2, _LARGEST),
    "train.learning_rate": (1e-9, 10.0),
    "train.decoder_learning_rate": (1e-9, 10.0),
    "train.discriminator_learning_rate": (1e-9, 10.0),
    "train.decoder_steps": (1, 100),
    "train.clip_norm": (0.0, _INFINITY),
    "train.log_every": (1, _LARGEST),
    "train.evaluate_every": (1, _LARGEST),
    "train.checkpoint_every": (1, _LARGEST),
    "train.rollbacks": (0, 100),
    "attack.patience": (1, _LARGEST),
    "attack.rate_drops": (0, 20),
    "attack.cache_mb": (0, _LARGEST),
    "attack.random_features": (1, 20_000),
    "attack.white_box": (0, _LARGEST),
    "audit.steps": (1, _LARGEST),
    "audit.seeds": (1, 100),
    "audit.repeats": (1, 10_000),
    "feature_map.hidden": (1, _LARGEST),
    "feature_map.steps": (1, _LARGEST),
    "feature_map.learning_rate": (1e-9, 10.0),
    "metrics.replicates": (10, 100_000),
    "runtime.seed": (0, _LARGEST),
    "report.examples": (1, 64),
}
_EXAMPLES = {
    "data.dataset": "synthetic",
    "data.dir": "data",
    "data.private": "private",
    "data.public": "public",
    "data.test": "test",
    "data.labels": "attributes",
}
_CHOICES = {
    "scale": SCALES,
    "data.on_error": ON_ERROR,
    "model.depth": (18, 34, 50),
    "model.split": SPLITS,
    "bottleneck.noise_kind": NOISES,
    "bottleneck.predictions": PREDICTIONS,
    "model.decoder": DECODERS,
    "feature_map.pooling": ("flatten", "average"),
    "recognizer.alignment": ("auto", "celeba", "whole"),
    "recognizer.split": ("private", "public"),
    "runtime.strategy": STRATEGIES,
    "runtime.precision": PRECISIONS,
}


def _fits(value: Any, kind: type) -> bool:
    if kind is tuple:
        return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    if kind is float:
        is_number = _fits(value, int) or isinstance(value, float)
        return is_number and abs(value) <= sys.float_info.max
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
