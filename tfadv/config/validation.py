"""Checks a config, and the files that it names, before TensorFlow is imported.

Every mistake is a `UserError` of one line: the field, its value and the way out.
"""

import math
import re
from pathlib import Path
from typing import Any

from tfadv.config.errors import UserError
from tfadv.config.fields import GROUPS, SETTINGS, get, put
from tfadv.config.schema import Bottleneck, Config, Data

RENDERED = ("synthetic/default", "synthetic/tiny")  # datasets that a run prepares by itself


def validate(config: Config) -> None:
    """Checks each field and the fields that must fit together.

    Raises:
        UserError: names the field, its value and what it may be.
    """
    normalize(config)
    for name in SETTINGS:
        check_field(name, get(config, name))
    if config.black_box.low >= config.black_box.high:
        raise UserError(
            f"black_box.low is {config.black_box.low}; it must be below black_box.high, "
            f"{config.black_box.high}"
        )
    for count in config.audit.few:
        if not count.isdecimal() or not int(count):
            raise UserError(f"audit.few has {count!r}; it must be numbers of images, above 0")
    _check_extra(config.data)
    _check_bottleneck(config)
    check_share(config, devices=1)


def check_share(config: Config, devices: int) -> None:
    """Raises a UserError if a device's share of a batch is too small for a defence."""
    batch = config.train.batch
    for name in ("nopeek", "excess_pixels", "excess_identity"):
        if getattr(config.loss, name) and batch < 4 * devices:
            raise UserError(
                f"train.batch is {batch}; loss.{name} needs at least {4 * devices}: 4 images for "
                f"each device"
            )


def check_field(name: str, value: Any) -> None:
    """Raises a UserError unless a field, such as `data.size`, may have a value."""
    if problem := SETTINGS[name].problem(value):
        raise UserError(f"{name} {problem}")


def normalize(config: Config) -> None:
    """Splits lists given as one text, such as --config.task.attributes=Smiling,Male, in place.

    Raises:
        UserError: a field's value is of another type.
    """
    for name, group in GROUPS.items():
        value = getattr(config, name)
        if type(value) is not group:
            raise UserError(
                f"{name} is {value!r}; it must be a tfadv.config.schema.{group.__name__}"
            )
    for name, setting in SETTINGS.items():
        value = get(config, name)
        items = [value] if isinstance(value, str) else value
        is_texts = isinstance(items, list | tuple) and all(isinstance(item, str) for item in items)
        if setting.is_list and is_texts:
            parts = [part.strip() for part in ",".join(items).split(",")]
            value = tuple(filter(None, parts))
            put(config, name, value)
        if problem := setting.type_problem(value):
            raise UserError(f"{name} {problem}")


def _check_extra(data: Data) -> None:
    """Raises a UserError if `data.extra` names a dataset twice, or `data.dataset` itself."""
    names = set()
    for name in data.extra:
        if stored_name(name) == stored_name(data.dataset):
            raise UserError(f"data.extra names {name}, which is data.dataset itself")
        if stored_name(name) in names:
            raise UserError(f"data.extra names {name} twice")
        names.add(stored_name(name))


def _check_bottleneck(config: Config) -> None:
    """Raises a UserError if parts of the bottleneck contradict each other or other fields."""
    bottleneck, size = config.bottleneck, config.data.size
    _check_variational(bottleneck)
    if math.ceil(3 * bottleneck.blur) > size:
        raise UserError(
            f"bottleneck.blur is {bottleneck.blur:g}; it must be at most a third of data.size, "
            f"{size}"
        )
    if size % bottleneck.downscale:
        raise UserError(
            f"bottleneck.downscale is {bottleneck.downscale}; it must divide data.size, {size}"
        )
    if bottleneck.size and config.model.split == "conv1" and config.model.depth < 50:
        raise UserError(
            f"bottleneck.size is {bottleneck.size} at model.split=conv1 of a "
            f"ResNet-{config.model.depth}, whose next layer adds its input to its output; choose "
            f"another split point"
        )
    if bottleneck.flip and bottleneck.predictions != "hard":
        raise UserError(
            f"bottleneck.flip is {bottleneck.flip:g}, but only hard predictions can be flipped; "
            f"set --config.bottleneck.predictions=hard"
        )


def _check_variational(bottleneck: Bottleneck) -> None:
    """Raises a UserError if a variational bottleneck is combined with noise of another kind."""
    if bottleneck.variational and bottleneck.noise:
        raise UserError(
            f"bottleneck.variational is {bottleneck.variational:g} and bottleneck.noise is "
            f"{bottleneck.noise:g}, but a variational bottleneck has its own noise; set one of "
            f"them to 0"
        )
    if bottleneck.variational and bottleneck.noise_kind != "gaussian":
        raise UserError(
            f"bottleneck.variational is {bottleneck.variational:g} and bottleneck.noise_kind is "
            f"{bottleneck.noise_kind}; the noise of a variational bottleneck must be gaussian"
        )


def stored_name(name: str) -> str:
    """Returns the name of a dataset without its version; `synthetic` is `synthetic/default`."""
    bare = name.partition(":")[0]
    return "synthetic/default" if bare == "synthetic" else bare


def dataset_folder(data_dir: str, name: str) -> Path:
    """Returns the folder of a dataset, or of its version if the name has one, as in NAME:1.0.0."""
    bare, _, version = name.partition(":")
    return Path(data_dir) / stored_name(bare) / version


def needs_vgg(config: Config, mode: str) -> bool:
    """Returns whether a loss of this mode compares perceptual features."""
    loss = config.loss
    if mode == "audit":
        return "perceptual" in config.audit.losses
    if mode == "protect":
        return bool(loss.lambda2 or (loss.lambda1 and loss.mu2))
    return mode == "attack" and bool(loss.mu2)


def check_files(config: Config, mode: str) -> None:
    """Raises a UserError unless the datasets and the files of weights are there."""
    check_dataset(config.data)
    if config.model.weights and mode not in ("attack", "audit"):
        suffixes = (".safetensors", ".npz")
        _check_file("model.weights", config.model.weights, suffixes, "a .safetensors or .npz file")
    if needs_vgg(config, mode) and config.perceptual.weights != "imagenet":
        kinds = "imagenet or an .h5 file"
        _check_file("perceptual.weights", config.perceptual.weights, (".h5",), kinds)


def _check_file(field: str, path: str, suffixes: tuple[str, ...], kinds: str) -> None:
    if Path(path).suffix not in suffixes:
        raise UserError(f"{field} is {path}; it must be {kinds}")
    if not Path(path).is_file():
        raise UserError(f"{field} is {path}, which does not exist")


def check_dataset(data: Data, domain: str = "") -> None:
    """Raises a UserError if a local `data.dir` lacks a dataset that no run prepares by itself.

    Args:
        data: names the folder and its datasets.
        domain: a dataset of another domain; empty for none.
    """
    if Path(data.dir).is_file():
        raise UserError(f"data.dir is {data.dir}, a file; it must be a folder")
    if "://" in data.dir:
        return
    for name in filter(None, (data.dataset, *data.extra, domain)):
        folder = Path(data.dir) / name.replace(":", "/")
        if stored_name(name) not in RENDERED and not folder.exists():
            raise missing_dataset(data, name)


def missing_dataset(data: Data, name: str) -> UserError:
    """Returns the error for a dataset that is not prepared. It lists those that are."""
    prepared = sorted(
        path.parents[1].relative_to(data.dir).as_posix()
        for pattern in ("*/*/dataset_info.json", "*/*/*/dataset_info.json")
        for path in Path(data.dir).glob(pattern)
    )
    fields = {"data.dataset": (data.dataset,), "data.extra": data.extra, "audit.domain": (name,)}
    field = next(field for field, names in fields.items() if name in names)
    percents = re.fullmatch(r"celeba/[a-z]+_([\d.]+)_([\d.]+)_([\d.]+)", name)
    shares = ",".join(f"{float(share) / 100:g}" for share in percents.groups()) if percents else ""
    return UserError(
        f"{field}: there is no dataset {name} in data.dir={data.dir}, "
        f"{'only ' + ', '.join(prepared) if prepared else 'which has none'}; make it with "
        f"python -m data_prep.celeba{shares and f' --shares={shares}'}, data_prep.folder or "
        f"data_prep.synthetic, or with tfds build if it is one of TFDS"
    )


def check_saved_model(path: str) -> None:
    """Raises a UserError if a local path is no SavedModel; the loader checks remote paths."""
    if "://" in path:
        return
    if not Path(path).exists():
        raise UserError(f"encoder {path} does not exist")
    if not (Path(path) / "saved_model.pb").exists():
        inside = Path(path) / "encoder"
        hint = f"; {inside} is one" if (inside / "saved_model.pb").exists() else ""
        raise UserError(f"encoder {path} is no SavedModel: it has no saved_model.pb{hint}")
