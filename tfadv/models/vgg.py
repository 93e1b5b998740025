"""VGG19 features of images, g, for the perceptual distance (Eq. 4 and 8)."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf

from tfadv.config.errors import UserError
from tfadv.config.schema import VGG19_LAYERS
from tfadv.config.validation import check_field

# The paper's "conv1 to conv5 layers".
DEFAULT_LAYERS = tuple(f"block{block}_conv1" for block in range(1, 6))
# The file that keras.applications.VGG19(weights="imagenet", include_top=False) loads.
IMAGENET_FILE = "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
IMAGENET_ADDRESS = (
    f"https://storage.googleapis.com/tensorflow/keras-applications/vgg19/{IMAGENET_FILE}"
)
IMAGENET_MD5 = "253f8cb515780f3b799900260a226db6"
# ImageNet's mean blue, green and red, in levels of 0 to 255.
CHANNEL_MEANS = (103.939, 116.779, 123.68)

# Where Keras's two formats keep a layer's tensors: in a group of its name, or numbered by class.
_LEGACY = re.compile(r"(block\d_conv\d)/")
_KERAS_3 = re.compile(r"layers/conv2d(?:_(\d+))?/vars/")


class VGGFeatures:
    """g of Eq. 4 and 8: outputs of convolutions of VGG19, after their ReLU.

    Neither a Keras layer nor a tf.Module, so that a model that holds it does not track it. Its
    weights, which are never trained, stay out of that model's variables, checkpoints and exports.

    The network runs in the global Keras dtype policy. Its weights, the preprocessing and the
    features are float32 even in mixed_bfloat16 (float64 if that is the policy).

    Args:
        weights: "imagenet", or the path of an .h5 file: Keras's legacy format, or .weights.h5 of
            Keras 3. The file may end after the deepest layer in `layers`. Empty for random
            weights, with which only the time of a step can be measured.
        layers: names out of `VGG19_LAYERS`; deeper layers are not kept. None: `DEFAULT_LAYERS`.
        size: S, the side of the images in pixels, at least 32.

    Attributes:
        layers: the names.

    Raises:
        UserError: there is no such layer; or the weights can't be downloaded, are not in the file,
            or don't fit.
    """

    def __init__(self, weights: str, layers: Sequence[str], size: int):
        layers = tuple(layers or DEFAULT_LAYERS)
        check_field("perceptual.layers", layers)
        self.layers = layers
        self._network = _cut(layers, size)
        if not weights:
            return
        path = _imagenet() if weights == "imagenet" else weights
        needed = VGG19_LAYERS[: 1 + max(map(VGG19_LAYERS.index, layers))]
        tensors = _read(path, needed)
        for name in needed:
            layer = self._network.get_layer(name)
            _check_tensors(path, name, tensors[name], [tuple(v.shape) for v in layer.weights])
            layer.set_weights(tensors[name])

    def __call__(self, images: tf.Tensor) -> list[tf.Tensor]:
        """Returns each layer's features, float32 [N, H, W, C], not negative, as in `layers`.

        Args:
            images: float [N, S, S, 3], RGB in [-1, 1].
        """
        maps = self._network(preprocess(images), training=False)
        dtype = keras.backend.result_type(self._network.compute_dtype, "float32")
        return [tf.cast(maps[name], dtype) for name in self.layers]


def preprocess(images: tf.Tensor) -> tf.Tensor:
    """Returns what `keras.applications.vgg19.preprocess_input` returns for images in 0 to 255.

    Args:
        images: float [N, H, W, 3], RGB in [-1, 1].

    Returns:
        BGR in levels of 0 to 255 minus `CHANNEL_MEANS`, of the same shape and dtype.
    """
    levels = (images[..., ::-1] + 1.0) * 127.5
    return levels - tf.constant(CHANNEL_MEANS, levels.dtype)


def mean_squares(network: VGGFeatures, batches: Iterable[tf.Tensor]) -> np.ndarray:
    """Returns the mean square of each layer's output, the divisor of the perceptual distance.

    Args:
        network: of L layers.
        batches: images, float [N, S, S, 3] in [-1, 1]; at least one batch.

    Returns:
        float32 [L], the mean over images, places and channels, summed in float64.

    Raises:
        ValueError: there is no image.
        UserError: a layer is zero on all images, or not finite, so that it can't be compared.
    """
    sums, count = np.zeros(len(network.layers)), 0
    for images in batches:
        # Per image and channel in the features' own precision: a float64 copy of a map is large.
        squares = [tf.reduce_mean(tf.square(maps), axis=(1, 2)).numpy() for maps in network(images)]
        sums += [values.mean(axis=1, dtype=np.float64).sum() for values in squares]
        count += len(images)
    if not count:
        raise ValueError("mean_squares needs at least one image")
    means = (sums / count).astype(np.float32)
    for name, mean in zip(network.layers, means, strict=True):
        if not 0 < mean < np.inf:
            raise UserError(
                f"perceptual.layers names {name}, whose mean square on these images is {mean}: "
                f"leave it out, or use other perceptual.weights"
            )
    return means


def _cut(layers: Sequence[str], size: int) -> keras.Model:
    """Returns VGG19 up to the deepest of some layers, with their outputs; not trainable."""
    images = keras.Input((size, size, 3), dtype=keras.config.dtype_policy().variable_dtype)
    whole = keras.applications.VGG19(include_top=False, weights=None, input_tensor=images)
    outputs = {name: whole.get_layer(name).output for name in layers}
    # A clone, because the layers of the whole network keep the layers after them alive.
    network = keras.models.clone_model(keras.Model(images, outputs))
    network.trainable = False
    return network


def _imagenet() -> str:
    """Returns the path of Keras's weights, downloaded if they are not in its cache."""
    try:
        # Also checks a cached file, and downloads it again if its checksum is wrong.
        return keras.utils.get_file(
            IMAGENET_FILE, IMAGENET_ADDRESS, cache_subdir="models", file_hash=IMAGENET_MD5
        )
    except Exception as error:  # get_file raises Exception itself
        folder = Path(os.environ.get("KERAS_HOME", "~/.keras")) / "models"
        raise UserError(
            f"perceptual.weights is imagenet, which can't be downloaded ({_first_line(error)}): "
            f"get {IMAGENET_ADDRESS} (MD5 {IMAGENET_MD5}), and put it into {folder} or set "
            f"--config.perceptual.weights=FILE"
        ) from None


def _read(path: str, names: Sequence[str]) -> dict[str, list[np.ndarray]]:
    """Returns the tensors of each layer in an .h5 file, float32, the kernel first.

    Not by Keras: its loader of the legacy format leaves a missing layer at its random weights.
    """
    if not Path(path).is_file():
        raise UserError(f"perceptual.weights is {path}, which is no file")
    try:
        with h5py.File(path, "r") as file:
            stored = _find(file)
            _check_names(path, names, stored)
            return {
                name: [tensor[()].astype(np.float32) for tensor in stored[name]] for name in names
            }
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"perceptual.weights {path} can't be read as .h5: {_first_line(error)}"
        ) from None


def _find(file: h5py.File) -> dict[str, list[h5py.Dataset]]:
    """Returns the tensors of each convolution of VGG19 in a file, the kernel first."""
    named, numbered = defaultdict(list), defaultdict(list)

    def visit(path, item):
        if not isinstance(item, h5py.Dataset):
            return
        if match := _LEGACY.match(path):
            named[match[1]].append(item)
        elif match := _KERAS_3.match(path):
            numbered[int(match[1] or 0)].append(item)

    file.visititems(visit)  # follows no link to another file
    named |= zip(VGG19_LAYERS, (numbered[i] for i in sorted(numbered)), strict=False)
    return {name: sorted(items, key=lambda item: -item.ndim) for name, items in named.items()}


def _check_names(path: str, names: Sequence[str], stored: Mapping[str, Any]) -> None:
    if not stored:
        raise UserError(f"perceptual.weights {path} holds no convolution of VGG19")
    for name, before in zip(names, ("none", *names), strict=False):
        if name not in stored:
            raise UserError(
                f"perceptual.weights {path} lacks {name}; the deepest layer of VGG19 that it has "
                f"is {before}: name none beyond it in --config.perceptual.layers"
            )


def _check_tensors(
    path: str, name: str, tensors: Sequence[np.ndarray], expected: Sequence[tuple[int, ...]]
) -> None:
    shapes = [tensor.shape for tensor in tensors]
    if shapes != expected:
        raise UserError(
            f"perceptual.weights {path} has shapes {shapes} for {name}; VGG19's are {expected}"
        )
    if not all(np.isfinite(tensor).all() for tensor in tensors):
        raise UserError(f"perceptual.weights {path} has values in {name} that are not finite")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
