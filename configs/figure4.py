"""Figure 4 of the paper: t-SNE maps of features, for forty attributes and for Smiling alone.

    python run.py --mode=reproduce --config=configs/figure4.py [--config.scale=small]

Cost at the small scale: four minutes on two CPU cores once the runs of Table 1 exist; the encoders
are the same. Result: the defence hardly changes the maps (docs/results/figure4.md).

A t-SNE map alone can mislead. The page therefore gives the accuracy of a linear probe for
Eyeglasses and Smiling with each map.
"""

from configs import celeba, celeba_tables
from tfadv.config.experiment import Experiment, Row

NONE, DEFENCE = {"loss.lambda1": 0.0}, {"loss.lambda1": 1.0}
SMILING = {"task.attributes": ("Smiling",)}


def get_experiment(scale: str) -> Experiment:
    """Returns the four encoders of Figure 4."""
    base = {"paper": celeba, "small": celeba_tables}[scale]
    return Experiment(
        title="Figure 4: latent features",
        about="Features of test images, coloured by Eyeglasses and Smiling.",
        base=base.get_config,
        rows=(
            Row("40 attributes without", NONE, None, "no defence"),
            Row("40 attributes with", DEFENCE, None, "λ₁ = 1"),
            Row("Smiling without", NONE | SMILING, None, "no defence"),
            Row("Smiling with", DEFENCE | SMILING, None, "λ₁ = 1"),
        ),
        metrics=("mcc", "mcc_task"),
        latent=("Eyeglasses", "Smiling"),
    )
