"""Every defence at several strengths: utility against leakage.

    python run.py --mode=reproduce --config=configs/defences.py [--config.scale=small]

Cost: 39 encoders and attacks. `--dry_run` estimates the time on your machine. Result: hard
predictions leak least at no cost to the task; 64 values of one bit come closest
(docs/results/audit.md). docs/defences.md explains each defence.

A row is one defence at one strength. Everything else is as in `celeba.py`, or at the small scale as
in `celeba_tables.py`. There the attacker's decoder trains for at most 1,000 steps: the table finds
candidates by the closed-form attacks, and `--mode=audit` gives verdicts.
"""

from configs import celeba, celeba_tables
from tfadv.config.experiment import Experiment, Plot, Row
from tfadv.config.schema import Config

# Name of a curve -> changes to the config, from weak to strong.
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
    "predictions": [
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
    "kernel/psnr",
    "reid_rank1",
    "feature_reid_rank1",
    "feature_ridge/feature_reid_rank1",
    "linkage_rank1",
    "linkage_auc",
)


def _small(mode: str) -> Config:
    """Returns the settings of a mode at the small scale."""
    config = celeba_tables.get_config(mode)
    if mode == "attack":
        config.train.steps = 1000
    return config


def get_experiment(scale: str) -> Experiment:
    """Returns a row without a defence and one for each defence at each strength."""
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
        title="Defences: utility against leakage",
        about=(
            "Each curve is one defence from weak to strong. The best defence is at the top left: "
            "its features are useful and attackers recover little. Hard predictions (predictions "
            "2) leak no more than any feature from which the same classifier predicts."
        ),
        base=base,
        rows=rows,
        metrics=METRICS,
        plots=[
            Plot("Pixels, by the kernel decoder", "kernel/psnr", "mcc", series),
            Plot("Re-identification by M(Z)", "feature_reid_rank1", "mcc", series),
            Plot("Linkage", "linkage_auc", "mcc", series),
        ],
    )
