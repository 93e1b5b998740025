"""From a config to the networks that more than one mode trains."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from tfadv import training
from tfadv.adversary import Adversary
from tfadv.checks import needs_vgg
from tfadv.config import Config, defences, flatten
from tfadv.data import PUBLIC, WHOLE, Dataset, normalise
from tfadv.defences import SIDE, Defence, Excess, MaxEntropy, NoPeek, Reconstruction
from tfadv.networks import (
    Decoder,
    Discriminator,
    Encoder,
    FeatureMap,
    ResidualDecoder,
    resnet,
)
from tfadv.networks.normalisation import synchronise
from tfadv.perceptual import VGGFeatures
from tfadv.workdir import Workdir

_DECODERS = {"figure6": Decoder, "residual": ResidualDecoder}
_MEASURED = 1024  # public pictures that the scale of g's layers is measured on


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What defences need to know that the config doesn't say.

    Attributes:
        g: from `load_g`.
        people: K, how many there are in the private pictures.
        embedding: E, the values of a face embedding.
    """

    g: VGGFeatures | None = None
    people: int = 0
    embedding: int = 0


def is_defended(config: Config) -> bool:
    """Returns whether anything is done so that Enc leaks less."""
    return bool(defences(flatten(config)))


def needs_public(config: Config) -> bool:
    """Returns whether Enc is trained against an adversary that learns from public pictures."""
    return bool(config.loss.lambda1 or config.loss.lambda2)


def feature_shape(config: Config, attributes: int) -> tuple[int, ...]:
    """Returns the shape of one picture's feature as it leaves, of a task with these attributes."""
    model = config.model
    shape = resnet.feature_shape(model.split, config.data.size, model.depth, model.width)
    return (attributes,) if config.code.answers else (*shape[:-1], config.code.size or shape[-1])


def build_encoder(config: Config) -> Encoder:
    """Returns Enc, built."""
    model, size = config.model, config.data.size
    options = dataclasses.asdict(config.code)
    softening = {name: options.pop(name) for name in ("blur", "downscale")}
    del options["answers"], options["flip"]
    encoder = Encoder(model.depth, model.width, model.split, options, **softening)
    encoder.build((None, size, size, 3))
    return encoder


def build_defences(
    config: Config, feature_shape: tuple[int, ...], attributes: int, around: Surroundings
) -> list[Defence]:
    """Returns the terms that the loss weights ask for, those with an adversary compiled.

    Args:
        config: of the run.
        feature_shape: of one picture's feature.
        attributes: a, of the task.
        around: what else they need.
    """
    loss, rate = config.loss, config.train.decoder_learning_rate
    terms = []
    if loss.lambda1 or loss.lambda2:
        adversary = build_adversary(config, feature_shape, config.model.split, around.g)
        adversary.compile(
            training.adam(rate, config.train.clip_norm), discriminator_optimizer(config)
        )
        terms.append(Reconstruction(adversary, loss.lambda1, loss.lambda2))
    if loss.nopeek:
        terms.append(NoPeek(loss.nopeek))
    if loss.excess_pixels:
        terms.append(Excess("pixels", loss.excess_pixels, attributes, SIDE * SIDE * 3))
    if loss.excess_identity:
        terms.append(Excess("identity", loss.excess_identity, attributes, around.embedding))
    if loss.max_entropy:
        classifier = FeatureMap(feature_shape, around.people, config.feature_map.hidden)
        classifier.build((None, *feature_shape))
        terms.append(MaxEntropy(classifier, loss.max_entropy))
        terms[-1].compile(training.adam(rate, config.train.clip_norm))
    return terms


def cache_folder(workdir: Workdir) -> Path:
    """Where the embeddings of real pictures are kept: beside the data, for the next run too.

    In the run's folder where the data is remote or can't be written to.
    """
    beside = Path(workdir.config.data.dir) / "embeddings"
    is_local = "://" not in workdir.config.data.dir
    if is_local and os.access(beside if beside.exists() else beside.parent, os.W_OK):
        return beside
    return workdir.path / "embeddings"


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
    return training.adam(config.train.discriminator_learning_rate, clip_norm=0.0, beta_1=0.5)


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
        yield normalise(pictures["images"])
