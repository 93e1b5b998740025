"""Whether what a config names is there: datasets, weights, encoders; TensorFlow is not needed."""

import dataclasses
import re
from pathlib import Path

from tfadv.config.errors import UserError
from tfadv.config.schema import Config, Data


def check_dataset(data: Data) -> None:
    """Raises a UserError if a local folder lacks a dataset; drawn faces are made on demand."""
    if Path(data.dir).is_file():
        raise UserError(f"data.dir is {data.dir}, a file; it must be a folder")
    for name in (data.dataset, *data.extra):
        is_here = (Path(data.dir) / name.replace(":", "/")).exists()
        if not ("://" in data.dir or name.split("/")[0] == "synthetic" or is_here):
            raise missing_dataset(data, name)


def check_domain(config: Config) -> None:
    """Raises a UserError if a local folder lacks the dataset `audit.domain`."""
    try:
        check_dataset(dataclasses.replace(config.data, extra=(config.audit.domain,)))
    except UserError as error:
        raise UserError(str(error).replace("data.extra", "audit.domain")) from None


def missing_dataset(data: Data, name: str) -> UserError:
    """Returns the error for a dataset that isn't prepared, with those that are."""
    prepared = sorted(
        path.parents[1].relative_to(data.dir).as_posix()
        for pattern in ("*/*/dataset_info.json", "*/*/*/dataset_info.json")
        for path in Path(data.dir).glob(pattern)
    )
    field = "data.dataset" if name == data.dataset else "data.extra"
    percents = re.fullmatch(r"celeba/[a-z]+_([\d.]+)_([\d.]+)_([\d.]+)", name)
    shares = ",".join(f"{float(each) / 100:g}" for each in percents.groups()) if percents else ""
    return UserError(
        f"{field}: there is no dataset {name} in data.dir={data.dir}, only "
        f"{', '.join(prepared) or 'nothing'}; make it with "
        f"python -m data_prep.celeba{shares and f' --shares={shares}'}, data_prep.folder or "
        f"data_prep.synthetic, or, if it is one of TFDS, with tfds build"
    )


def check_weights(path: str) -> None:
    """Raises a UserError unless a path is empty or a file that weights can be read from."""
    if path and Path(path).suffix not in (".safetensors", ".npz"):
        raise UserError(f"model.weights is {path}; it must be a .safetensors or .npz file")
    if path and not Path(path).is_file():
        raise UserError(f"model.weights is {path}, which does not exist")


def check_perceptual(weights: str) -> None:
    """Raises a UserError unless weights of VGG19 can be read from there, or are Keras's own."""
    if weights == "imagenet":
        return
    if Path(weights).suffix != ".h5":
        raise UserError(f"perceptual.weights is {weights!r}; it must be imagenet or an .h5 file")
    if not Path(weights).is_file():
        raise UserError(f"perceptual.weights is {weights}, which does not exist")


def check_saved_model(path: str) -> None:
    """Raises a UserError if a path can't be a SavedModel; remote paths are left to the loader."""
    if "://" in path:
        return
    if not Path(path).exists():
        raise UserError(f"encoder {path} does not exist")
    if not (Path(path) / "saved_model.pb").exists():
        inside = Path(path) / "encoder"
        hint = f"; {inside} is one" if (inside / "saved_model.pb").exists() else ""
        raise UserError(f"encoder {path} is no SavedModel: it has no saved_model.pb{hint}")
