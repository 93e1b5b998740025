"""The encoder: images to features."""

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
    """Enc of the paper: ResNet up to a split point, then a bottleneck if there is one.

    The network maps images from [-1, 1] to ImageNet-normalised values, (x - mean) / std of x in
    [0, 1], so that torchvision's weights fit.

    Args:
        depth: 18, 34 or 50; the paper's is 50.
        width: multiplier of all channel counts; the paper's is 1.
        split: layer whose output is the feature: one of `resnet.SPLITS`; the paper's default is fc.
        bottleneck: arguments of `Bottleneck`; none: features leave unchanged.
        blur: standard deviation, in pixels, of a Gaussian blur of the image.
        downscale: whole factor by which the image is shrunk and enlarged again, before the blur.
        dtype: Keras dtype policy; None is the global one.

    Raises:
        ValueError: there is no such depth or split point, or the width is not positive.
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
    ):
        resnet.check(depth, split)
        # Images stay float32 until they are normalised.
        super().__init__(dtype=dtype, name="encoder", autocast=False)
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
        stages = resnet.stages(depth, width, self.dtype_policy)
        self.stages = track(self, "stage", stages[:count])
        layers = Bottleneck(**(bottleneck or {}), dtype=self.dtype_policy)
        self.bottleneck = None if layers.is_identity else layers

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates all variables, for images [N, S, S, 3]; they do not depend on N and S."""
        shape = build_in_order(self.stages, input_shape)
        if self.bottleneck is not None:
            self.bottleneck.build(shape)

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns features, float32 [N, *feature_shape(S)].

        Args:
            images: float [N, S, S, 3] in [-1, 1].
            training: whether batch normalisation uses and updates the batch's statistics, and
                whether to draw new noise.
        """
        features = self._features(images, training)
        if self.bottleneck is None:
            return features
        return self.bottleneck(features, images, training=training)

    def penalized(self, images: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the result of `call`, and the loss of the bottleneck, which there must be."""
        return self.bottleneck.penalized(self._features(images, training), images, training)

    def without_noise(self, images: tf.Tensor) -> tf.Tensor:
        """Returns the features before noise, in inference: float32 [N, *feature_shape(S)]."""
        features = self._features(images, training=False)
        return features if self.bottleneck is None else self.bottleneck.without_noise(features)

    def _features(self, images: tf.Tensor, training: bool) -> tf.Tensor:
        """Returns the features at the split point."""
        features = self.normalize(soften(images, self.blur, self.downscale))
        for stage in self.stages:
            features = stage(features, training=training)
        return tf.cast(features, tf.float32)

    def feature_shape(self, size: int) -> tuple[int, ...]:
        """Returns the shape of the feature of an image of `size` pixels: (H, W, C) or (C,)."""
        shape = (None, size, size, 3)
        for stage in self.stages:
            shape = stage.compute_output_shape(shape)
        return shape[1:] if self.bottleneck is None else self.bottleneck.output_shape_of(shape[1:])

    def get_config(self) -> dict:
        """Returns the arguments that rebuild this architecture, without the precision."""
        return {
            "depth": self.depth,
            "width": self.width,
            "split": self.split,
            "bottleneck": None if self.bottleneck is None else self.bottleneck.get_config(),
            "blur": self.blur,
            "downscale": self.downscale,
        }
