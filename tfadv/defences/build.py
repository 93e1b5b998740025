"""Builds the protector and the terms of its defence from a config."""

from collections.abc import Callable

from tfadv.config.errors import UserError
from tfadv.config.fields import defences, flatten
from tfadv.config.schema import Config, Loss
from tfadv.defences.protector import Protector
from tfadv.defences.terms import SIDE, Defence, Excess, MaxEntropy, NoPeek, Reconstruction
from tfadv.models.batch_normalization import synchronize
from tfadv.models.build import build_adversary, build_discriminator_optimizer, make_encoder
from tfadv.models.classifier import Classifier
from tfadv.models.feature_map import FeatureMap
from tfadv.models.weights import load_torchvision
from tfadv.training import trainer


def is_defended(config: Config) -> bool:
    """Returns whether the config sets any defence."""
    return bool(defences(flatten(config)))


def needs_public(loss: Loss) -> bool:
    """Returns whether a defence has an adversary that learns from public images."""
    return bool(loss.lambda1 or loss.lambda2)


def build_protector(
    config: Config,
    attributes: int,
    *,
    perceptual_network: Callable | None = None,
    people: int = 0,
    embedding: int = 0,
) -> Protector:
    """Returns the encoder, the classifier and the defences of a config, compiled.

    Args:
        config: of the run.
        attributes: A, number of the task's attributes.
        perceptual_network: g, from `load_vgg`; for losses with a perceptual distance.
        people: K, number of known people in the private images; for loss.max_entropy.
        embedding: E, size of a face embedding; for loss.excess_identity.

    Raises:
        UserError: the file model.weights can't be read or does not fit.
    """
    model, train = config.model, config.train
    size = config.data.size
    encoder = make_encoder(config)
    encoder.build((None, size, size, 3))
    feature_shape = encoder.feature_shape(size)
    classifier = Classifier(model.split, attributes, model.depth, model.width)
    classifier.build((None, *feature_shape))
    if model.weights:
        try:
            load_torchvision(model.weights, encoder, classifier)
        except ValueError as error:
            raise UserError(f"model.weights: {error}") from None
    terms = build_defences(
        config, feature_shape, attributes, perceptual_network, people=people, embedding=embedding
    )
    warm_up = round(config.loss.warm_up * train.steps)
    protector = Protector(encoder, classifier, terms, warm_up=warm_up)
    if config.runtime.synchronised:
        synchronize(protector)
    protector.compile(trainer.adam(train.learning_rate, train.clip_norm, decay_steps=train.steps))
    return protector


def build_defences(
    config: Config,
    feature_shape: tuple[int, ...],
    attributes: int,
    perceptual_network: Callable | None = None,
    *,
    people: int = 0,
    embedding: int = 0,
) -> list[Defence]:
    """Returns the terms whose weights are not 0, those with an adversary compiled.

    Args are those of `build_protector`, and `feature_shape`, of one image's feature.
    """
    loss, train = config.loss, config.train
    terms = []
    if loss.lambda1 or loss.lambda2:
        adversary = build_adversary(
            config.model,
            loss,
            config.data.size,
            feature_shape,
            config.model.split,
            perceptual_network,
            synchronised=config.runtime.synchronised,
        )
        adversary.compile(
            trainer.adam(train.decoder_learning_rate, train.clip_norm),
            build_discriminator_optimizer(loss.mu1, train.discriminator_learning_rate),
        )
        terms.append(Reconstruction(adversary, loss.lambda1, loss.lambda2))
    if loss.nopeek:
        terms.append(NoPeek(loss.nopeek))
    if loss.excess_pixels:
        terms.append(Excess("pixels", loss.excess_pixels, attributes, SIDE * SIDE * 3))
    if loss.excess_identity:
        terms.append(Excess("identity", loss.excess_identity, attributes, embedding))
    if loss.max_entropy:
        classifier = FeatureMap(feature_shape, people, config.feature_map.hidden)
        classifier.build((None, *feature_shape))
        term = MaxEntropy(classifier, loss.max_entropy)
        term.compile(trainer.adam(train.decoder_learning_rate, train.clip_norm))
        terms.append(term)
    return terms
