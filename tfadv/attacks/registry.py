"""All attacks by name. To add one, write its class in a file of this room and list it here."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping

from tfadv.attacks import decoder, linkage, probes
from tfadv.attacks.attack import Attack
from tfadv.attacks.decoder import BUDGETS, BudgetedDecoder, DecoderTraining, MeasureScale
from tfadv.attacks.feature_map import FeatureMap
from tfadv.attacks.gradient_search import GradientSearch
from tfadv.attacks.kernel import KernelDecoder, KernelFeatureMap, KernelProbe
from tfadv.attacks.nearest_neighbour import NearestNeighbour
from tfadv.attacks.network_training import Schedule
from tfadv.attacks.ridge import RidgeDecoder, RidgeFeatureMap
from tfadv.config.schema import Config, Loss, Model
from tfadv.evaluation.results import AttackResult, EncoderResult, Flat
from tfadv.models import build

# The attacks of the paper, whose metrics have plain names in metrics.json.
DECODER, FEATURE_MAP, LINKAGE = "decoder", "feature_map", "linkage"
PLAIN = (DECODER, FEATURE_MAP, LINKAGE)
GRADIENT_SEARCH = "gradient_search"

_ARCHITECTURES = {"figure6": "the decoder of Figure 6", "residual": "larger, of residual blocks"}
# What a loss compares, and the weights mu_1 and mu_2 of Eq. 5.
_LOSSES = {
    "pixels": ("pixels", 0.0, 0.0),
    "gan": ("pixels and a discriminator", 0.1, 0.0),
    "perceptual": ("pixels and VGG19's features", 0.0, 1.0),
    "recognizer": ("pixels and the recognizer's embedding", 0.0, 1.0),
}


def build_attacks(config: Config, measure_scale: MeasureScale) -> dict[str, Attack]:
    """Returns the attacks of --mode=attack: name -> attack.

    `measure_scale` measures the scale of VGG19's layers before a decoder's first step.
    """
    schedule = _schedule(config)
    training = _decoder_training(config, config.model, config.loss, schedule, measure_scale)
    return {DECODER: decoder.Decoder(training)} | _other_attacks(config)


def build_audit_attacks(config: Config, measure_scale: MeasureScale) -> dict[str, Attack]:
    """Returns the attacks of --mode=audit: decoders with several budgets take Dec^a's place."""
    return _other_attacks(config) | _budgeted_decoders(config, measure_scale)


def flat_metrics(
    results: Mapping[str, EncoderResult], references: Mapping[str, AttackResult]
) -> Flat:
    """Returns metrics.json: plain names of the first encoder, NAME/METRIC of the others."""
    flat: Flat = {}
    for i, (name, result) in enumerate(results.items()):
        prefix = f"{name}/" if i else ""
        flat |= {prefix + metric: value for metric, value in encoder_metrics(result).items()}
    for name, reference in references.items():
        flat |= {f"{name}/{metric}": value for metric, value in reference.metrics.items()}
    return flat


def encoder_metrics(result: EncoderResult) -> Flat:
    """Returns all numbers of one encoder as one flat object."""
    flat = dict(result.utility) | dict(result.separation)
    for name, attack in result.attacks.items():
        for metric, value in attack.metrics.items():
            is_shared = name != DECODER and metric in ("held_out_loss", "test_examples")
            is_plain = name in PLAIN and not is_shared
            flat[metric if is_plain else f"{name}/{metric}"] = value
        prefix = "attack" if name == DECODER else name
        if attack.diverged:
            flat[f"{prefix}_converged"] = 0.0
        if attack.training is not None:
            flat[f"{prefix}_steps"] = attack.training.steps
            flat[f"{prefix}_converged"] = float(attack.training.converged)
            if name == DECODER:
                flat["images_per_s"] = attack.training.images_per_s
    return flat


def _other_attacks(config: Config) -> dict[str, Attack]:
    """All attacks but decoders."""
    seed = config.runtime.seed
    attacks = {
        "ridge": RidgeDecoder(),
        "kernel": KernelDecoder(),
        "nearest_neighbour": NearestNeighbour(),
        FEATURE_MAP: FeatureMap(config.feature_map, _schedule(config)),
        "feature_ridge": RidgeFeatureMap(),
        "feature_kernel": KernelFeatureMap(),
        LINKAGE: linkage.FeatureLinkage(),
        "linkage_by_guesses": linkage.LinkageByGuesses(RidgeFeatureMap()),
        "linkage_by_kernel_guesses": linkage.LinkageByGuesses(KernelFeatureMap()),
        "probe_linear": probes.LinearProbe(),
        "probe_mlp": probes.MlpProbe(seed),
        "probe_kernel": KernelProbe(),
    }
    if config.attack.white_box:
        attacks[GRADIENT_SEARCH] = GradientSearch(config.attack.white_box, seed=seed)
    return attacks


def _budgeted_decoders(config: Config, measure_scale: MeasureScale) -> dict[str, Attack]:
    """A decoder for each architecture, loss, seed and budget; FAMILY-x1, -x2 and -x4."""
    attacks, audit = {}, config.audit
    train = dataclasses.replace(config.train, steps=audit.steps)
    for architecture, loss, seed in itertools.product(
        audit.decoders, audit.losses, range(audit.seeds)
    ):
        compared, mu1, mu2 = _LOSSES[loss]
        training = _decoder_training(
            config,
            dataclasses.replace(config.model, decoder=architecture),
            dataclasses.replace(config.loss, mu1=mu1, mu2=mu2),
            Schedule(train, seed=config.runtime.seed + seed),
            measure_scale,
        )
        family = f"{architecture}-{loss}" + (f"-{seed}" if audit.seeds > 1 else "")
        meaning = f"A network, {_ARCHITECTURES[architecture]}, trained on {compared}."
        for budget in BUDGETS:
            attacks[f"{family}-x{budget}"] = BudgetedDecoder(
                training, family, meaning, budget, by_recognizer=loss == "recognizer"
            )
    return attacks


def _decoder_training(
    config: Config, model: Model, loss: Loss, schedule: Schedule, measure_scale: MeasureScale
) -> DecoderTraining:
    return DecoderTraining(
        build=functools.partial(
            build.build_adversary,
            model,
            loss,
            config.data.size,
            synchronised=config.runtime.synchronised,
        ),
        build_discriminator_optimizer=functools.partial(
            build.build_discriminator_optimizer,
            loss.mu1,
            config.train.discriminator_learning_rate,
        ),
        measure_scale=measure_scale,
        schedule=schedule,
        shown_images=config.report.examples if config.report.pictures else 0,
    )


def _schedule(config: Config) -> Schedule:
    attack = config.attack
    return Schedule(config.train, attack.patience, attack.rate_drops, seed=config.runtime.seed)
