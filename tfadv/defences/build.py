"""From a config to the terms of a defence."""

import dataclasses

from tfadv.config.schema import Config, defences, flatten
from tfadv.defences.terms import SIDE, Defence, Excess, MaxEntropy, NoPeek, Reconstruction
from tfadv.models.build import build_adversary, discriminator_optimizer
from tfadv.models.feature_map import FeatureMap
from tfadv.models.vgg import VGGFeatures
from tfadv.training import trainer


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
            trainer.adam(rate, config.train.clip_norm), discriminator_optimizer(config)
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
        terms[-1].compile(trainer.adam(rate, config.train.clip_norm))
    return terms
