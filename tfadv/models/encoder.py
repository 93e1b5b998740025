"""Enc: pictures to features."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tfadv.models import resnet
from tfadv.models.bottleneck import Bottleneck, soften
from tfadv.models.layers import build_in_order, track

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Encoder(keras.Model):
    """ResNet up to a split point: Enc of the paper.

    The pictures are mapped from [-1, 1] to ImageNet-normalised values, (x - mean) / std of x in
    [0, 1], inside the network and whatever its weights are, so that torchvision's weights fit.

    Args:
        depth: 18, 34 or 50; the paper's is 50.
        width: multiplier of all channel counts; the paper's is 1.
        split: where the features are taken: one of `resnet.SPLITS`; the paper's default is fc.
        bottleneck: arguments of `Bottleneck`, which the features then go through; none: they don't.
        blur: standard deviation, in pixels, of a Gaussian blur of the picture before all else.
        downscale: the picture is first shrunk by this whole factor and enlarged again.
        dtype: Keras dtype policy; None is the global one.
        name: name of the model.

    Raises:
        ValueError: on another depth or split point, or a width that isn't positive.
    """

    def __init__(
        self,
        depth: int = 50,
        width: float = 1.0,
        split: str = "fc",
        bottleneck: Mapping[str, Any] | None = None,
        blur: float = 0.0,
        downscale: int = 1,
        dtype: keras.DTypePolicy | str | None = None,
        name: str = "encoder",
    ):
        resnet.check(depth, width, split)
        # Pictures stay float32 until they are normalised.
        super().__init__(dtype=dtype, name=name, autocast=False)
        self.depth = depth
        self.width = width
        self.split = split
        self.blur = blur
        self.downscale = downscale
        self.normalize = keras.layers.Rescaling(
            scale=[0.5 / std for std in IMAGENET_STD],
            offset=[
                (0.5 - mean) / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)
            ],
            dtype="float32",
        )
        count = resnet.SPLITS.index(split) + 1
        stages = resnet.stages(depth, width, self.dtype_policy)[:count]
        self.stages = track(self, "stage", [stage for _, stage in stages])
        layers = Bottleneck(**(bottleneck or {}), dtype=self.dtype_policy)
        self.bottleneck = None if layers.is_identity else layers

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates all variables, for pictures [N, S, S, 3]; they don't depend on N and S."""
        shape = build_in_order(self.stages, input_shape)
        if self.bottleneck is not None:
            self.bottleneck.build(shape)

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Encodes pictures.

        Args:
            images: float [N, S, S, 3] in [-1, 1].
            training: whether batch normalisation uses and updates the batch's statistics, and noise
                is drawn anew.

        Returns:
            Features, float32 [N, *feature_shape(S)].
        """
        features = self._features(images, training)
        return (
            features
            if self.bottleneck is None
            else self.bottleneck(features, images, training=training)
        )

    def penalized(self, images: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns what `call` does, and what its code adds to the loss; there must be a code."""
        return self.bottleneck.penalized(self._features(images, training), images, training)

    def without_noise(self, images: tf.Tensor) -> tf.Tensor:
        """What noise is added to, in inference: float32 [N, *feature_shape(S)]."""
        features = self._features(images, training=False)
        return features if self.bottleneck is None else self.bottleneck.without_noise(features)

    def _features(self, images: tf.Tensor, training: bool) -> tf.Tensor:
        """The features at the split point."""
        features = self.normalize(soften(images, self.blur, self.downscale))
        for stage in self.stages:
            features = stage(features, training=training)
        return tf.cast(features, tf.float32)

    def feature_shape(self, size: int) -> tuple[int, ...]:
        """Shape of the feature of one picture of `size` pixels: (H, W, C) or (C,)."""
        shape = resnet.feature_shape(self.split, size, self.depth, self.width)
        return shape if self.bottleneck is None else self.bottleneck.output_shape_of(shape)

    def get_config(self) -> dict:
        """The arguments that give this architecture again; precision is not one of them."""
        return {
            "depth": self.depth,
            "width": self.width,
            "split": self.split,
            "bottleneck": None if self.bottleneck is None else self.bottleneck.get_config(),
            "blur": self.blur,
            "downscale": self.downscale,
        }
