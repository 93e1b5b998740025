"""The attackers of an audit that are decoders trained by gradients, at several budgets."""

import dataclasses
import functools
import itertools
import json

from tfadv.attacks import inversion
from tfadv.attacks.knowledge import Measurement, Member, Target, of_pictures
from tfadv.config.files import write_json
from tfadv.config.schema import Config
from tfadv.evaluation.closure import BUDGETS
from tfadv.training.distribution import over_devices
from tfadv.training.trainer import TrainingError

RATES = (3e-4, 1e-3, 3e-3)
_ARCHITECTURES = {"figure6": "the decoder of Figure 6", "residual": "larger, of residual blocks"}
_LOSSES = {
    "pixels": ("pixels", {"mu1": 0.0, "mu2": 0.0}),
    "gan": ("pixels against a discriminator", {"mu1": 0.1, "mu2": 0.0}),
    "perceptual": ("pixels and VGG19's features", {"mu1": 0.0, "mu2": 1.0}),
    "recognizer": ("pixels and the recogniser's embedding", {"mu1": 0.0, "mu2": 1.0}),
}


def decoders(config: Config) -> dict[str, Member]:
    """Returns a member for each decoder, loss, seed and budget that an audit asks for.

    Names are those of families with -x1, -x2 and -x4 behind them, for the budget.
    """
    found = {}
    for architecture, loss in itertools.product(config.audit.decoders, config.audit.losses):
        for seed in range(config.audit.seeds):
            family = f"{architecture}-{loss}" + (f"-{seed}" if config.audit.seeds > 1 else "")
            for times in BUDGETS:
                found[f"{family}-x{times}"] = Member(
                    f"{family} decoder, {times * config.audit.steps:,} steps",
                    f"A network, {_ARCHITECTURES[architecture]}, trained on {_LOSSES[loss][0]}.",
                    functools.partial(
                        decoder,
                        family=family,
                        architecture=architecture,
                        loss=loss,
                        seed=seed,
                        times=times,
                    ),
                    is_quick=False,
                    metrics=("mse", "reid_rank1", "verification_auc"),
                )
    return found


def decoder(
    target: Target, *, family: str, architecture: str, loss: str, seed: int, times: int
) -> Measurement:
    """Dec^a with a budget; the rate decays to 0 over it, and the best point on the way counts.

    The smallest budget is tried at each of `RATES`; the others take the rate that left the least
    error on held-out pictures.
    """
    g = target.faces if loss == "recognizer" else target.g
    if loss == "recognizer" and g is None:
        raise ValueError("gradients reach only a recogniser that --mode=recognizer made")
    steps = times * target.config.audit.steps
    rates = target.folder / f"{family}-rates.json"
    tried = json.loads(rates.read_text()) if rates.exists() else {}
    chosen = [min(tried, key=tried.get)] if times > 1 and tried else map(str, RATES)
    best = None
    for rate in chosen:
        config = dataclasses.replace(
            target.config,
            model=dataclasses.replace(target.config.model, decoder=architecture),
            loss=dataclasses.replace(target.config.loss, **_LOSSES[loss][1]),
            train=dataclasses.replace(
                target.config.train,
                steps=steps,
                learning_rate=float(rate),
                evaluate_every=max(1, steps // 8),
                checkpoint_every=max(1, steps // 2),
            ),
            runtime=dataclasses.replace(
                target.config.runtime, seed=target.config.runtime.seed + seed
            ),
        )
        name = f"{family}-x{times}-{rate}"
        try:
            inverter, effort = inversion.invert_pictures(
                target.train,
                target.held_out,
                target.dataset,
                config,
                target.split,
                g,
                target.folder / name,
                f"{name} on {target.name}",
                decays=True,
            )
        except TrainingError as error:
            print(f"{name} on {target.name} diverged: {error}", flush=True)
            continue
        if times == 1:
            tried[rate] = effort.held_out_loss
            write_json(rates, tried)
        if best is None or effort.held_out_loss < best[0]:
            best = effort.held_out_loss, inverter
    if best is None:
        raise TrainingError("it diverged at every learning rate")
    return of_pictures(over_devices(best[1]))
