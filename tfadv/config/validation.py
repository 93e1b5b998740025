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


def split_lists(config: Config) -> None:
    """Splits lists given as one text, such as --config.task.attributes=Smiling,Male, in place."""
    for name in (name for name, setting in SETTINGS.items() if setting.is_list):
        holder, _, leaf = name.rpartition(".")
        value = getattr(getattr(config, holder, None) if holder else config, leaf, None)
        items = [value] if isinstance(value, str) else value
        if isinstance(items, list | tuple) and all(isinstance(item, str) for item in items):
            parts = [part.strip() for item in items for part in item.split(",")]
            put(config, name, tuple(part for part in parts if part))


def validate(config: Config) -> None:
    """Checks each field and the fields that must fit together.

    Raises:
        UserError: names the field, its value and what it may be.
    """
    check_types(config)
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
    for name in ("nopeek", "excess_pixels", "excess_identity"):
        if getattr(config.loss, name) and config.train.batch < 4:
            raise UserError(
                f"train.batch is {config.train.batch}; loss.{name} needs at least 4 images"
            )


def check_field(name: str, value: Any) -> None:
    """Raises a UserError unless a field, such as `data.size`, may have a value."""
    if problem := SETTINGS[name].problem(value):
        raise UserError(f"{name} {problem}")


def check_types(config: Config) -> None:
    """Raises a UserError unless every field of a config from a file has a value of its type."""
    for name, group in GROUPS.items():
        value = getattr(config, name)
        if type(value) is not group:
            raise UserError(
                f"{name} is {value!r}; it must be a tfadv.config.schema.{group.__name__}"
            )
    for name, setting in SETTINGS.items():
        if problem := setting.type_problem(get(config, name)):
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


def needs_vgg(config: Config, mode: str) -> bool:
    """Returns whether a loss of this mode compares perceptual features."""
    loss = config.loss
    if mode == "audit":
        return "perceptual" in config.audit.losses
    if mode == "protect":
        return bool(loss.lambda2 or (loss.lambda1 and loss.mu2))
    return mode == "attack" and bool(loss.mu2)


def check_dataset(data: Data) -> None:
    """Raises a UserError if a local `data.dir` lacks a dataset that no run prepares by itself."""
    if Path(data.dir).is_file():
        raise UserError(f"data.dir is {data.dir}, a file; it must be a folder")
    for name in (data.dataset, *data.extra):
        if not _is_available(data.dir, name):
            raise missing_dataset(data, name)


def check_domain(data: Data, domain: str) -> None:
    """Raises a UserError if a local `data.dir` lacks the dataset of another domain."""
    if domain and not _is_available(data.dir, domain):
        raise missing_dataset(data, domain, "audit.domain")


def _is_available(data_dir: str, name: str) -> bool:
    if "://" in data_dir or stored_name(name) in RENDERED:
        return True
    return (Path(data_dir) / name.replace(":", "/")).exists()


def missing_dataset(data: Data, name: str, field: str = "") -> UserError:
    """Returns the error for a dataset that is not prepared. It lists those that are.

    Args:
        data: where the datasets are.
        name: the missing dataset.
        field: the config field that names the dataset, if it is neither dataset nor extra of data.
    """
    prepared = sorted(
        path.parents[1].relative_to(data.dir).as_posix()
        for pattern in ("*/*/dataset_info.json", "*/*/*/dataset_info.json")
        for path in Path(data.dir).glob(pattern)
    )
    field = field or ("data.dataset" if name == data.dataset else "data.extra")
    percents = re.fullmatch(r"celeba/[a-z]+_([\d.]+)_([\d.]+)_([\d.]+)", name)
    shares = ",".join(f"{float(share) / 100:g}" for share in percents.groups()) if percents else ""
    return UserError(
        f"{field}: there is no dataset {name} in data.dir={data.dir}, only "
        f"{', '.join(prepared) or 'nothing'}; make it with "
        f"python -m data_prep.celeba{shares and f' --shares={shares}'}, data_prep.folder or "
        f"data_prep.synthetic, or with tfds build if it is one of TFDS"
    )


def check_weights(path: str) -> None:
    """Raises a UserError unless a path is empty or a file of weights."""
    if path and Path(path).suffix not in (".safetensors", ".npz"):
        raise UserError(f"model.weights is {path}; it must be a .safetensors or .npz file")
    if path and not Path(path).is_file():
        raise UserError(f"model.weights is {path}, which does not exist")


def check_perceptual(weights: str) -> None:
    """Raises a UserError unless VGG19's weights are Keras's own or an .h5 file."""
    if weights == "imagenet":
        return
    if Path(weights).suffix != ".h5":
        raise UserError(f"perceptual.weights is {weights!r}; it must be imagenet or an .h5 file")
    if not Path(weights).is_file():
        raise UserError(f"perceptual.weights is {weights}, which does not exist")


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
