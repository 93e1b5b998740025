"""What survived its audit best: a service that sends f's answers, and no feature.

    python run.py --mode=protect --config=configs/recommended.py --config.data.dataset=NAME
    python run.py --mode=audit   --config=configs/recommended.py --config.data.dataset=NAME

Yes or no to each attribute, at thresholds tuned on held-out private pictures: nothing that the task
doesn't say leaves the device, and no feature that f answers from leaks less than its answers (by
the data-processing inequality). The answers serve no other task. To send less still, turn some
round: `--config.bottleneck.flip=0.05`. Who needs features for a task that isn't known yet takes 64
values of one bit: for 0.025 of MCC on CelebA they gave away no more of the pixels than the answers
do, and a little more of who it is (docs/results/audit.md).

    --config.bottleneck.predictions= --config.bottleneck.size=64 --config.bottleneck.bits=1
"""

from configs import celeba_tables
from tfadv.config.schema import Config


def get_config(mode: str) -> Config:
    """Returns the settings of `--mode=recognizer`, `--mode=protect` or `--mode=attack`."""
    config = celeba_tables.get_config(mode)
    config.baseline = True
    config.loss.lambda1 = 0.0
    config.bottleneck.predictions = "hard"
    return config
