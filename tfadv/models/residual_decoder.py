"""A larger Dec^a than Figure 6's.

How much leaks is a statement about the strongest attacker that was tried, and the paper's decoder
has a single convolution at each resolution.
"""

import keras

from tfadv.models.decoder import Decoder
from tfadv.models.layers import Convolution, TransposedConvolution, scaled_channels
from tfadv.models.normalisation import BatchNormalization
from tfadv.models.resnet import ResidualBlock

# Of the maps of side size / 16, size / 8, ..., size: those of Figure 6 or more.
CHANNELS = (1024, 512, 256, 128, 64)
BLOCKS = 2


class ResidualDecoder(Decoder):
    """The decoder of Figure 6 with two residual blocks (He et al. 2016) after each doubling.

    A feature enters as it does there. Each transposed convolution, with batch normalisation and
    ReLU, is followed by blocks of two 3x3 convolutions, at full resolution as well; a last 3x3
    convolution and tanh give the picture. Blocks begin as the identity (Goyal et al. 2017), so that
    it learns as fast as Figure 6's at first.

    Maps are doubled by transposed convolution, not by nearest-neighbour upsampling, which makes a
    constant map of one place: what a vector starts from at 32 pixels.

    Args and errors are those of `Decoder`; `width` multiplies these channel counts.
    """

    def _deconvolutions(self, first: int) -> list[keras.layers.Layer]:
        """What takes the place of layers `first` down to 1."""
        dtype = self.dtype_policy
        layers = []
        for count in CHANNELS[len(CHANNELS) - first :]:
            channels = scaled_channels(count, self.width)
            layers += [
                TransposedConvolution(channels, dtype=dtype),
                BatchNormalization(dtype=dtype),
                keras.layers.ReLU(dtype=dtype),
            ]
            layers += [
                ResidualBlock((channels, channels), (3, 3), 1, project=False, dtype=dtype)
                for _ in range(BLOCKS)
            ]
        # He's fan-out for 3 channels would begin with tanh saturated.
        picture = Convolution(3, 3, use_bias=True, kernel_initializer="glorot_uniform", dtype=dtype)
        return [*layers, picture]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates all variables, for features [N, *feature_shape]."""
        super().build(input_shape)
        for layer in self.deconvolutions:
            if isinstance(layer, ResidualBlock):
                gamma = layer.normalisations[-1].gamma
                gamma.assign(0.0 * gamma)
