"""From a config to the networks that more than one mode trains."""

import dataclasses
from collections.abc import Iterator

import tensorflow as tf

from tfadv.config.schema import Config
from tfadv.config.validation import needs_vgg
from tfadv.data.dataset import PUBLIC, WHOLE, Dataset
from tfadv.data.images import normalize
from tfadv.models import resnet
from tfadv.models.adversary import Adversary
from tfadv.models.decoder import Decoder
from tfadv.models.discriminator import Discriminator
from tfadv.models.encoder import Encoder
from tfadv.models.normalisation import synchronise
from tfadv.models.residual_decoder import ResidualDecoder
from tfadv.models.vgg import VGGFeatures
from tfadv.training import trainer

_DECODERS = {"figure6": Decoder, "residual": ResidualDecoder}
_MEASURED = 1024  # public pictures that the scale of g's layers is measured on


def feature_shape(config: Config, attributes: int) -> tuple[int, ...]:
    """Returns the shape of one picture's feature as it leaves, of a task with these attributes."""
    model = config.model
    shape = resnet.feature_shape(model.split, config.data.size, model.depth, model.width)
    return (
        (attributes,)
        if config.bottleneck.predictions
        else (*shape[:-1], config.bottleneck.size or shape[-1])
    )


def build_encoder(config: Config) -> Encoder:
    """Returns Enc, built."""
    model, size = config.model, config.data.size
    options = dataclasses.asdict(config.bottleneck)
    softening = {name: options.pop(name) for name in ("blur", "downscale")}
    del options["predictions"], options["flip"]
    encoder = Encoder(model.depth, model.width, model.split, options, **softening)
    encoder.build((None, size, size, 3))
    return encoder


def build_adversary(
    config: Config, feature_shape: tuple[int, ...], split: str | None, g: VGGFeatures | None
) -> Adversary:
    """Returns Dec, with D if a loss weight asks for it; not compiled.

    Args:
        config: of the run.
        feature_shape: of one picture's feature.
        split: the encoder's split point, if it has one of ours.
        g: from `load_g`.
    """
    loss, model, size = config.loss, config.model, config.data.size
    decoder = _DECODERS[model.decoder](feature_shape, size, split, model.decoder_width)
    decoder.build((None, *feature_shape))
    if config.runtime.synchronised:
        synchronise(decoder)
    discriminator = None
    if loss.mu1:
        discriminator = Discriminator(size, model.discriminator_width)
        discriminator.build((None, size, size, 3))
    return Adversary(
        decoder, discriminator, g, mu1=loss.mu1, mu2=loss.mu2, saturating=loss.saturating
    )


def load_g(config: Config, mode: str) -> VGGFeatures | None:
    """Returns g, or None where no loss of this mode compares perceptual features.

    Raises:
        UserError: its weights can't be had, or lack a layer.
    """
    if not needs_vgg(config, mode):
        return None
    return VGGFeatures(config.perceptual.weights, config.perceptual.layers, config.data.size)


def discriminator_optimizer(config: Config):
    """Returns the optimiser of D, or None if there is no D."""
    if not config.loss.mu1:
        return None
    return trainer.adam(config.train.discriminator_learning_rate, clip_norm=0.0, beta_1=0.5)


def measure_scale(adversary: Adversary, dataset: Dataset) -> None:
    """Measures the scale of g's layers on public pictures, and prints it."""
    if adversary.g is None:
        return
    adversary.adapt(_some_pictures(dataset))
    scales = zip(adversary.g.layers, adversary.mean_squares.numpy(), strict=True)
    listed = ", ".join(f"{layer} {scale:.4g}" for layer, scale in scales)
    print(f"mean square of g on public pictures, which L_perc is divided by: {listed}", flush=True)


def _some_pictures(dataset: Dataset) -> Iterator[tf.Tensor]:
    """Public pictures in [-1, 1], in batches."""
    batch = min(64, dataset.evaluation_batch)
    for pictures in dataset.batches(PUBLIC, WHOLE, batch).take(-(-_MEASURED // batch)):
        yield normalize(pictures["images"])
