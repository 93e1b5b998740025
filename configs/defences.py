"""Every defence at several strengths, and the front of usefulness against leakage.

    python run.py --mode=reproduce --config=configs/defences.py [--config.scale=small]

A row is a defence at one strength. What all encoders have in common, and how they are attacked, is
the paper's (`celeba.py`), or `celeba_tables.py` at the small scale, where Dec^a is given no more
than 1,000 steps: this is to find candidates by the attackers in closed form, and `--mode=audit` is
for verdicts. docs/defences.md says what each defence is.
"""

from configs import celeba, celeba_tables
from tfadv.config.experiment import Experiment, Plot, Row
from tfadv.config.schema import Config

# Name of a curve -> from weaker to stronger, what is changed.
CURVES = {
    "the paper's": [{"loss.lambda1": value} for value in (0.2, 1.0, 5.0)],
    "Gaussian noise": [{"bottleneck.noise": value} for value in (0.3, 1.0, 3.0)],
    "Laplace noise": [
        {"bottleneck.noise": value, "bottleneck.noise_kind": "laplace"} for value in (0.3, 1, 3)
    ],
    "variational": [
        {"bottleneck.size": 64, "bottleneck.variational": value} for value in (0.01, 0.1, 1.0)
    ],
    "few values": [{"bottleneck.size": value} for value in (64, 32, 16)],
    "quantised": [{"bottleneck.size": 64, "bottleneck.bits": value} for value in (4, 2, 1)],
    "NoPeek": [{"loss.nopeek": value} for value in (0.1, 0.5, 2.0)],
    "blur": [{"bottleneck.blur": value} for value in (1.0, 2.0, 4.0)],
    "downscale": [{"bottleneck.downscale": value} for value in (2, 4, 8)],
    "maximum entropy": [{"loss.max_entropy": value} for value in (0.1, 1.0)],
    "excess": [
        {
            "bottleneck.size": 64,
            "bottleneck.noise": noise,
            "loss.excess_pixels": weight,
            "loss.excess_identity": weight,
        }
        for noise, weight in ((0.2, 0.2), (0.3, 0.5), (0.3, 2.0))
    ],
    "answers": [
        {"bottleneck.predictions": "logits"},
        {"bottleneck.predictions": "hard"},
        *(
            {"bottleneck.predictions": "hard", "bottleneck.flip": value}
            for value in (0.02, 0.05, 0.1, 0.2)
        ),
    ],
}
METRICS = (
    "mcc",
    "mcc_tuned",
    "psnr",
    "random_features/psnr",
    "reid_rank1",
    "feature_reid_rank1",
    "feature_ridge/feature_reid_rank1",
    "linkage_rank1",
    "linkage_auc",
)


def _small(mode: str) -> Config:
    """Returns the settings at the small scale."""
    config = celeba_tables.get_config(mode)
    if mode == "attack":
        config.train.steps = 1000
    return config


def get_experiment(scale: str) -> Experiment:
    """Returns a row for each defence at each strength, and one without."""
    base = {"paper": celeba.get_config, "small": _small}[scale]
    rows = [Row("none", {"loss.lambda1": 0.0})]
    series = {"none": ["none"]}
    for curve, strengths in CURVES.items():
        series[curve] = []
        for number, changes in enumerate(strengths, start=1):
            name = f"{curve} {number}"
            about = ", ".join(f"{field} = {value}" for field, value in changes.items())
            rows.append(Row(name, {"loss.lambda1": 0.0} | changes, {}, about))
            series[curve].append(name)
    return Experiment(
        title="Defences: how useful, how leaky",
        about=(
            "Each curve is a defence from weak to strong. The best lies top left: useful features "
            "from which attackers recover little. Features that only give f's answers (answers 2) "
            "can't leak less than those answers do."
        ),
        base=base,
        rows=rows,
        metrics=METRICS,
        plots=[
            Plot("Pixels, by the random-features decoder", "random_features/psnr", "mcc", series),
            Plot("Re-identification by M(Z)", "feature_reid_rank1", "mcc", series),
            Plot("Linkage", "linkage_auc", "mcc", series),
        ],
    )
