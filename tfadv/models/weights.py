"""Loads ResNet weights with torchvision's names into an encoder and a classifier."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from zipfile import BadZipFile

import keras
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from tfadv.models.batch_normalization import BatchNormalization
from tfadv.models.classifier import Classifier
from tfadv.models.encoder import Encoder
from tfadv.models.layers import Convolution, Stage
from tfadv.models.resnet import SPLITS, ResidualBlock


def load_torchvision(
    path: str | Path, encoder: Encoder, classifier: Classifier | None = None
) -> None:
    """Sets the weights of the ResNet stages from a file; builds the networks if they are not.

    Nothing is set unless everything fits. Without a classifier, tensors after the split are
    ignored.

    Args:
        path: .safetensors or .npz file with torchvision's names (`conv1.weight`,
            `layer1.0.bn1.running_mean`, `fc.bias`) and torch's layout: OIHW, [out, in].
        encoder: takes the tensors up to its split point.
        classifier: takes the tensors after it; its own two layers stay as they are.

    Raises:
        ValueError: the file can't be read, or has a missing tensor, one too many, or one of another
            shape.
    """
    path = Path(path)
    tensors = _read(path)
    if not encoder.built:
        encoder.build((None, 224, 224, 3))
    if classifier is not None and not classifier.built:
        classifier.build((None, *encoder.feature_shape(224)))
    stages = [*encoder.stages, *(classifier.stages if classifier is not None else [])]
    variables = dict(_named_variables(stages))
    try:
        _check_names(tensors, variables)
        _check_shapes(tensors, variables)
    except ValueError as error:
        network = f"ResNet-{encoder.depth} of width {encoder.width}"
        raise ValueError(f"{path} doesn't fit {network}: {error}") from None
    for name, variable in variables.items():
        variable.assign(_to_keras_layout(tensors[name]))


def _check_names(
    tensors: Mapping[str, np.ndarray], variables: Mapping[str, keras.Variable]
) -> None:
    missing = [name for name in variables if name not in tensors]
    if missing:
        raise ValueError(f"it has no tensor {_enumerate(missing)}")
    # Else a deeper network's file would fit, because its first blocks have the same shapes.
    groups = {name.split(".")[0] for name in variables}
    unknown = [
        name
        for name in tensors
        if name.split(".")[0] in groups
        and name not in variables
        and not name.endswith(".num_batches_tracked")
    ]
    if unknown:
        raise ValueError(f"the network has no tensor {_enumerate(unknown)}")


def _check_shapes(
    tensors: Mapping[str, np.ndarray], variables: Mapping[str, keras.Variable]
) -> None:
    for name, variable in variables.items():
        expected = _to_torch_shape(tuple(variable.shape))
        if tensors[name].shape != expected:
            raise ValueError(f"{name} has shape {tensors[name].shape}, not {expected}")


def _enumerate(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _read(path: Path) -> Mapping[str, np.ndarray]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except (SafetensorError, BadZipFile, OSError, ValueError, EOFError, TypeError) as error:
        raise ValueError(f"{path} can't be read as {path.suffix[1:]}: {error}") from None


def _named_variables(stages: list[Stage]) -> Iterator[tuple[str, keras.Variable]]:
    for stage in stages:
        for prefix, layer in _named_layers(stage):
            for name, variable in _own_variables(layer):
                yield f"{prefix}.{name}", variable


def _named_layers(stage: Stage) -> Iterator[tuple[str, keras.layers.Layer]]:
    if stage.name == "conv1":
        yield from zip(("conv1", "bn1"), stage.layers[:2], strict=True)
        return
    if stage.name == "fc":
        yield "fc", stage.layers[0]
        return
    blocks = [layer for layer in stage.layers if isinstance(layer, ResidualBlock)]
    for i, block in enumerate(blocks):
        prefix = f"layer{SPLITS.index(stage.name)}.{i}"
        for j, convolution in enumerate(block.convolutions, start=1):
            yield f"{prefix}.conv{j}", convolution
            yield f"{prefix}.bn{j}", block.normalizations[j - 1]
        for j, layer in enumerate(block.shortcut):
            yield f"{prefix}.downsample.{j}", layer


def _own_variables(layer: keras.layers.Layer) -> list[tuple[str, keras.Variable]]:
    if isinstance(layer, BatchNormalization):
        return [
            ("weight", layer.gamma),
            ("bias", layer.beta),
            ("running_mean", layer.moving_mean),
            ("running_var", layer.moving_variance),
        ]
    if isinstance(layer, Convolution):
        return [("weight", layer.kernel)]
    return [("weight", layer.kernel), ("bias", layer.bias)]


def _to_keras_layout(tensor: np.ndarray) -> np.ndarray:
    """Returns HWIO from OIHW, [in, out] from [out, in], and vectors unchanged."""
    return tensor.transpose((2, 3, 1, 0)) if tensor.ndim == 4 else tensor.T


def _to_torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in (3, 2, 0, 1)) if len(shape) == 4 else shape[::-1]
