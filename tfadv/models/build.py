"""Builds the networks that several modes train from a config."""

import dataclasses
from collections.abc import Callable

import keras

from tfadv.config.schema import Config, Loss, Model
from tfadv.config.validation import needs_vgg
from tfadv.data.dataset import PUBLIC, WHOLE, Dataset
from tfadv.data.images import normalize
from tfadv.models.adversary import Adversary
from tfadv.models.batch_normalization import synchronize
from tfadv.models.decoder import Decoder, ResidualDecoder
from tfadv.models.discriminator import Discriminator
from tfadv.models.encoder import Encoder
from tfadv.models.vgg import VGGFeatures
from tfadv.training import trainer

_DECODERS = {"figure6": Decoder, "residual": ResidualDecoder}
_SCALE_IMAGES = 1024  # public images that the scale of perceptual layers is measured on


def feature_shape(config: Config, attributes: int) -> tuple[int, ...]:
    """Returns the shape of one image's feature as it leaves the encoder.

    Args:
        config: of the encoder.
        attributes: A, number of the task's attributes.
    """
    if config.bottleneck.predictions:
        return (attributes,)
    return make_encoder(config).feature_shape(config.data.size)


def make_encoder(config: Config) -> Encoder:
    """Returns the encoder, not built."""
    model = config.model
    options = dataclasses.asdict(config.bottleneck)
    input_options = {name: options.pop(name) for name in ("blur", "downscale")}
    del options["predictions"], options["flip"]
    return Encoder(model.depth, model.width, model.split, options, **input_options)


def build_adversary(
    model: Model,
    loss: Loss,
    size: int,
    feature_shape: tuple[int, ...],
    split: str | None,
    perceptual_network: Callable | None,
    *,
    synchronised: bool = False,
) -> Adversary:
    """Returns a decoder, and a discriminator if mu1 is above 0; not compiled.

    Args:
        model: the decoder's architecture, and widths.
        loss: mu1, mu2 and saturating count.
        size: S, pixels per side of the images.
        feature_shape: of one image's feature.
        split: split point of an encoder of ours, else None.
        perceptual_network: g, such as `load_vgg` returns, or None.
        synchronised: whether batch normalisation is over the whole batch of all devices.
    """
    decoder = _DECODERS[model.decoder](feature_shape, size, split, model.decoder_width)
    decoder.build((None, *feature_shape))
    if synchronised:
        synchronize(decoder)
    discriminator = None
    if loss.mu1:
        discriminator = Discriminator(size, model.discriminator_width)
        discriminator.build((None, size, size, 3))
    return Adversary(
        decoder,
        discriminator,
        perceptual_network,
        mu1=loss.mu1,
        mu2=loss.mu2,
        saturating=loss.saturating,
    )


def load_vgg(config: Config, mode: str) -> VGGFeatures | None:
    """Returns the perceptual network, or None if no loss of this mode needs it.

    Raises:
        UserError: its weights are not available, or lack a layer.
    """
    if not needs_vgg(config, mode):
        return None
    return VGGFeatures(config.perceptual.weights, config.perceptual.layers, config.data.size)


def build_discriminator_optimizer(mu1: float, learning_rate: float) -> keras.Optimizer | None:
    """Returns the discriminator's optimizer, or None if mu1 is 0: there is no discriminator."""
    return trainer.adam(learning_rate, clip_norm=0.0, beta_1=0.5) if mu1 else None


def measure_scale(adversary: Adversary, dataset: Dataset) -> None:
    """Measures the scale of the perceptual layers on public images, and prints it."""
    network = adversary.perceptual_network
    if network is None:
        return
    batch = min(64, dataset.evaluation_batch)
    batches = dataset.batches(PUBLIC, WHOLE, batch).take(-(-_SCALE_IMAGES // batch))
    adversary.adapt(normalize(images["images"]) for images in batches)
    scales = zip(network.layers, adversary.mean_squares.numpy(), strict=True)
    listed = ", ".join(f"{layer} {scale:.4g}" for layer, scale in scales)
    print(f"L_perc is divided by the mean square on public images: {listed}", flush=True)
