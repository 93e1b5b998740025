"""Table 2 and Figures 5 and 7 of the paper: λ₂ trades the task for privacy.

    python run.py --mode=reproduce --config=configs/table2.py [--config.scale=small]
        [--config.perceptual.weights=FILE.h5 --config.perceptual.layers=...]

Cost at the small scale: 25 minutes a row on one CPU core. Result: a larger λ₂ lowers MCC and face
similarity at every step; PSNR and SSIM have no order (docs/results/table2.md).

λ₁ = 1, μ₁ = 0, μ₂ = 1 throughout. The paper does not say how the encoder is trained. Here both λ
grow over the first half of the training: from scratch, λ₂ = 1 destroys the task at once. Each
layer's distance is divided by its mean square, so λ₂ has another scale than the paper's.

VGG19 makes a step ten times as expensive on a small machine. At the small scale g ends at
block2_conv1, and training and attack are shorter than in the other tables.
"""

from configs import celeba, celeba_tables
from tfadv.config.experiment import Claim, Experiment, Plot, Row

# λ₂: MCC, face similarity, feature similarity, SSIM, PSNR
PAPER = {
    0: (0.631, 0.631, 0.862, 0.300, 15.445),
    1: (0.582, 0.575, 0.710, 0.299, 15.371),
    2: (0.455, 0.545, 0.604, 0.273, 14.920),
    3: (0.417, 0.528, 0.568, 0.248, 14.454),
    4: (0.311, 0.507, 0.542, 0.225, 14.048),
    5: (0.255, 0.502, 0.530, 0.224, 14.047),
    10: (0.000, 0.294, 0.374, 0.158, 12.899),
}
METRICS = ("mcc", "face_similarity", "feature_similarity", "ssim", "psnr")


def get_experiment(scale: str) -> Experiment:
    """Returns the seven rows of Table 2."""
    base = {"paper": celeba, "small": celeba_tables}[scale]
    steps = {"paper": ({}, {}), "small": ({"train.steps": 400}, {"train.steps": 800})}
    training, attack = steps[scale]
    rows = [
        Row(
            f"{strength}",
            {
                "loss.lambda1": 1.0,
                "loss.lambda2": float(strength),
                "loss.mu2": 1.0,
                "loss.warm_up": 0.5,
                **training,
            },
            {"loss.mu2": 1.0, **attack},
            f"λ₂ = {strength}",
            dict(zip(METRICS, numbers, strict=True)),
        )
        for strength, numbers in PAPER.items()
    ]
    names = [row.name for row in rows]
    falling = list(zip(names[1:], names[:-1], strict=True))
    claims = [
        Claim(f"a larger λ₂ lowers {what}", metric, falling)
        for what, metric in (
            ("the task's MCC", "mcc"),
            ("face similarity", "face_similarity"),
            ("feature similarity", "feature_similarity"),
        )
    ]
    return Experiment(
        title="Table 2: the perceptual distance in the defence",
        about="The larger λ₂, the more private and the less useful: Table 2, Figures 5 and 7.",
        base=base.get_config,
        rows=rows,
        metrics=(*METRICS, "linkage_auc"),
        claims=claims,
        plots=[
            Plot("The trade-off by face similarity", "face_similarity", "mcc", {"": names}),
            Plot("The trade-off by feature similarity", "feature_similarity", "mcc", {"": names}),
        ],
    )
