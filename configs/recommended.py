"""The defence with the best audit: a service that sends hard predictions and no feature.

    python run.py --mode=protect --config=configs/recommended.py --config.data.dataset=NAME
    python run.py --mode=audit   --config=configs/recommended.py --config.data.dataset=NAME

Cost, on 20,200 images and two CPU cores: protect trains two encoders of 800 steps. Result: no cost
to the task, and the least leakage (docs/results/audit.md).

The encoder sends yes or no for each attribute, at thresholds tuned on held-out private images. By
the data-processing inequality, no feature from which this classifier predicts leaks less. The
predictions serve no other task. `--config.bottleneck.flip=0.05` flips some of them, to send even
less. For a task that is not known yet, send 64 values of one bit. On CelebA they cost 0.025 of MCC;
they leak no more pixels than the predictions, and slightly more about the identity:

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
