"""g: VGG19 features of pictures, for the perceptual distance (Eq. 4 and 8)."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import h5py
import keras
import numpy as np
import tensorflow as tf

from tfadv.config.errors import UserError
from tfadv.config.schema import VGG19_LAYERS
from tfadv.config.validation import check_field

# The paper's "conv1 to conv5 layers".
DEFAULT_LAYERS = tuple(f"block{block}_conv1" for block in range(1, 6))
# Keras's own file, which keras.applications.VGG19(weights="imagenet", include_top=False) takes.
IMAGENET_FILE = "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
IMAGENET_ADDRESS = (
    f"https://storage.googleapis.com/tensorflow/keras-applications/vgg19/{IMAGENET_FILE}"
)
IMAGENET_MD5 = "253f8cb515780f3b799900260a226db6"
# Of ImageNet's blue, green and red, in levels of 0 to 255.
CHANNEL_MEANS = (103.939, 116.779, 123.68)

# Tensors of a layer in Keras's two formats: in a group of its name, or numbered by its class.
_LEGACY = re.compile(r"(block\d_conv\d)/")
_KERAS_3 = re.compile(r"layers/conv2d(?:_(\d+))?/vars/")


class VGGFeatures:
    """g of Eq. 4 and 8: outputs of convolutions of VGG19, after their ReLU.

    A plain class on purpose, no Keras layer and no tf.Module: a model that holds it does not track
    it, so that its weights, which nobody trains, stay out of that model's variables, checkpoints
    and exports.

    The network runs in the global Keras dtype policy. Preprocessing and the features handed out are
    float32 even in mixed_bfloat16 (float64 if that is the policy), as are the weights it keeps.

    Args:
        weights: "imagenet", or the path of an .h5 file: Keras's legacy format, or .weights.h5 of
            Keras 3. It may end after the deepest layer that is asked for.
        layers: names out of `VGG19_LAYERS`; what lies deeper than all of them is not kept. None:
            `DEFAULT_LAYERS`.
        size: S, the side of the pictures in pixels, at least 32.

    Attributes:
        layers: the names.

    Raises:
        UserError: there is no such layer; or the weights can't be downloaded, or are not in the
            file, or don't fit.
    """

    def __init__(self, weights: str, layers: Sequence[str], size: int):
        layers = tuple(layers or DEFAULT_LAYERS)
        check_field("perceptual.layers", layers)
        self.layers = layers
        path = _imagenet() if weights == "imagenet" else weights
        needed = VGG19_LAYERS[: 1 + max(map(VGG19_LAYERS.index, layers))]
        values = _read(path, needed)
        self._network = _cut(self.layers, size)
        for name in needed:
            self._network.get_layer(name).set_weights(values[name])

    def __call__(self, images: tf.Tensor) -> list[tf.Tensor]:
        """Returns the features of pictures.

        Args:
            images: float [N, S, S, 3], RGB in [-1, 1].

        Returns:
            For each layer, in the order of `layers`, a map float32 [N, H, W, C], not negative.
        """
        maps = self._network(preprocess(images), training=False)
        dtype = keras.backend.result_type(self._network.compute_dtype, "float32")
        return [tf.cast(maps[name], dtype) for name in self.layers]


def preprocess(images: tf.Tensor) -> tf.Tensor:
    """What `keras.applications.vgg19.preprocess_input` does to pictures in 0 to 255.

    Args:
        images: float [N, H, W, 3], RGB in [-1, 1].

    Returns:
        BGR in levels of 0 to 255 minus `CHANNEL_MEANS`, of the same shape and dtype.
    """
    levels = (images[..., ::-1] + 1.0) * 127.5
    return levels - tf.constant(CHANNEL_MEANS, levels.dtype)


def mean_squares(g: VGGFeatures, batches: Iterable[tf.Tensor]) -> np.ndarray:
    """Measures the mean square of each layer's output, which the perceptual distance is divided by.

    Args:
        g: the L layers.
        batches: pictures, float [N, S, S, 3] in [-1, 1]; at least one batch.

    Returns:
        float32 [L], the mean over pictures, places and channels, summed in float64.

    Raises:
        ValueError: there is no picture.
        UserError: a layer is zero, or not finite, on all pictures: nothing can be compared in it.
    """
    sums, count = np.zeros(len(g.layers)), 0
    for images in batches:
        # By picture and channel in the features' own precision: a float64 copy of a map is large.
        squares = [tf.reduce_mean(tf.square(each), axis=(1, 2)).numpy() for each in g(images)]
        sums += [each.mean(axis=1, dtype=np.float64).sum() for each in squares]
        count += len(images)
    if not count:
        raise ValueError("mean_squares needs at least one picture")
    means = (sums / count).astype(np.float32)
    for name, mean in zip(g.layers, means, strict=True):
        if not 0 < mean < np.inf:
            raise UserError(
                f"perceptual.layers names {name}, whose mean square on these pictures is {mean}: "
                f"leave it out, or use other perceptual.weights"
            )
    return means


def _cut(layers: Sequence[str], size: int) -> keras.Model:
    """VGG19 up to the deepest of some layers, with their outputs; not trainable."""
    pictures = keras.Input((size, size, 3), dtype=keras.config.dtype_policy().variable_dtype)
    whole = keras.applications.VGG19(include_top=False, weights=None, input_tensor=pictures)
    outputs = {name: whole.get_layer(name).output for name in layers}
    # Cloned, because the layers of the whole network refer to those after them and keep them alive.
    network = keras.models.clone_model(keras.Model(pictures, outputs))
    network.trainable = False
    return network


def _shapes() -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """The shapes of the kernel and the bias of each convolution."""
    shapes, inputs = {}, 3
    for name in VGG19_LAYERS:
        outputs = min(512, 64 * 2 ** (int(name[len("block")]) - 1))
        shapes[name] = ((3, 3, inputs, outputs), (outputs,))
        inputs = outputs
    return shapes


def _imagenet() -> str:
    """The path of Keras's own weights, downloaded if they aren't in its cache."""
    try:
        # Checks the sum of a file in the cache too, and downloads it again where it is wrong.
        return keras.utils.get_file(
            IMAGENET_FILE, IMAGENET_ADDRESS, cache_subdir="models", file_hash=IMAGENET_MD5
        )
    except Exception as error:  # no network has many faces, and get_file raises Exception itself
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        folder = Path(os.environ.get("KERAS_HOME", "~/.keras")) / "models"
        raise UserError(
            f"perceptual.weights is imagenet, which can't be downloaded ({reason}): get "
            f"{IMAGENET_ADDRESS} (MD5 {IMAGENET_MD5}), and put it into {folder} or set "
            f"--config.perceptual.weights=FILE"
        ) from None


def _read(path: str, needed: Sequence[str]) -> dict[str, list[np.ndarray]]:
    """Reads the kernel and the bias of each layer that is needed, float32, from an .h5 file."""
    if not Path(path).is_file():
        raise UserError(f"perceptual.weights is {path}, which is no file")
    try:
        with h5py.File(path, "r") as file:
            found = _find(file)
            return {name: _checked(path, name, found) for name in needed}
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"perceptual.weights {path} can't be read as .h5: {reason}") from None


def _find(file: h5py.File) -> dict[str, list[h5py.Dataset]]:
    """The tensors of each of VGG19's convolutions that a file holds, the kernel first."""
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
    return {name: sorted(tensors, key=lambda each: -each.ndim) for name, tensors in named.items()}


def _checked(path: str, name: str, found: dict[str, list[h5py.Dataset]]) -> list[np.ndarray]:
    """The tensors of one layer, if they are there and fit."""
    if not found:
        raise UserError(f"perceptual.weights {path} holds no convolution of VGG19")
    if name not in found:
        deepest = VGG19_LAYERS[: VGG19_LAYERS.index(name)][-1:] or ("none",)
        raise UserError(
            f"perceptual.weights {path} lacks {name}; the deepest layer of VGG19 that it has is "
            f"{deepest[0]}: name none beyond it in --config.perceptual.layers"
        )
    shapes = tuple(tensor.shape for tensor in found[name])
    if shapes != _shapes()[name]:
        raise UserError(
            f"perceptual.weights {path} has shapes {shapes} for {name}; VGG19's are "
            f"{_shapes()[name]}"
        )
    values = [tensor[()].astype(np.float32) for tensor in found[name]]
    if not all(np.isfinite(value).all() for value in values):
        raise UserError(f"perceptual.weights {path} has values in {name} that are not finite")
    return values
