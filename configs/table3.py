"""Table 3 of the paper: the layer whose output is the feature, with and without the defence.

    python run.py --mode=reproduce --config=configs/table3.py [--config.scale=small]

Cost at the small scale: 105 minutes on two CPU cores. Result: deeper layers leak less, and the
defence lowers face similarity most at conv1 (docs/results/table3.md).

Decoder and classifier depend on the layer. For the fc layer the paper's LDA score is S_w / S_b, for
the others S_b / S_w. Here it is always S_b / S_w, and the paper's fc column is inverted.
"""

from configs import celeba, celeba_tables
from tfadv.config.experiment import Claim, Experiment, Plot, Row

METRICS = ("face_similarity", "mcc", "lda_within", "lda_between", "lda_score")
# Layer -> without and with the defence: face similarity, MCC, S_w, S_b.
PAPER = {
    "conv1": ((0.98, 0.64, 1468.77, 2884.42), (0.36, 0.65, 768.29, 218.88)),
    "conv2": ((0.95, 0.65, 1543.09, 2726.15), (0.48, 0.64, 1523.31, 597.48)),
    "conv3": ((0.74, 0.64, 2067.54, 1608.97), (0.49, 0.64, 1779.75, 598.39)),
    "conv4": ((0.64, 0.65, 2212.66, 1199.69), (0.52, 0.64, 2155.19, 747.37)),
    "avgpool": ((0.55, 0.65, 2209.97, 1155.09), (0.50, 0.61, 2243.49, 935.16)),
    "fc": ((0.54, 0.64, 2541.02, 983.14), (0.51, 0.61, 1061.99, 710.93)),
}
WAYS = {"without": 0.0, "with": 1.0}


def get_experiment(scale: str) -> Experiment:
    """Returns two rows for each of six layers."""
    base = {"paper": celeba, "small": celeba_tables}[scale]
    rows = []
    for layer, numbers in PAPER.items():
        for (way, lambda1), (face, mcc, within, between) in zip(WAYS.items(), numbers, strict=True):
            values = (face, mcc, within, between, between / within)
            rows.append(
                Row(
                    f"{layer} {way}",
                    {"model.split": layer, "loss.lambda1": lambda1},
                    {"feature_map.pooling": "average"},
                    f"features of {layer}, {way} defence",
                    dict(zip(METRICS, values, strict=True)),
                )
            )
    lines = {way: [f"{layer} {way}" for layer in PAPER] for way in WAYS}
    defended = list(zip(lines["with"], lines["without"], strict=True))
    deeper = list(zip(lines["without"][1:], lines["without"][:-1], strict=True))
    shallower = list(zip(lines["with"][:-1], lines["with"][1:], strict=True))
    claims = (
        Claim("deeper layers leak less", "face_similarity", deeper),
        Claim("with the defence, lower layers leak less", "face_similarity", shallower),
        Claim("the defence lowers face similarity", "face_similarity", defended),
        Claim("the defence costs little of the task", "mcc", defended, at_most=0.05),
        Claim("the defence lowers the LDA score", "lda_score", defended),
        Claim("deeper layers have a lower LDA score", "lda_score", deeper),
    )
    return Experiment(
        title="Table 3: the layer of the feature",
        about="The leakage of six layers, and the effect of the defence at each.",
        base=base.get_config,
        rows=rows,
        metrics=METRICS,
        claims=claims,
        plots=[
            Plot("Face similarity by layer", "", "face_similarity", lines),
            Plot("LDA score by layer", "", "lda_score", lines),
        ],
    )
