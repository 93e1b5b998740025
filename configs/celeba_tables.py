"""CelebA at 64 px for the tables of the paper, a dozen encoders and attacks each, on two cores.

The base of `table1.py`, `table2.py`, `table3.py` and `figure4.py` with `--config.scale=small`;
what came out, and how long it took, is in docs/results/. First:

    python -m data_prep.celeba --source=CELEBA --data_dir=data --shares=0.7,0.2,0.1

ResNet-18 in place of 50: of the two at the same speed it learns the task in far fewer steps.
"""

from configs import celeba_small
from tfadv.config.schema import Config


def get_config(mode: str) -> Config:
    """Returns the settings of `--mode=recognizer`, `--mode=protect` or `--mode=attack`."""
    config = celeba_small.get_config(mode)
    config.baseline = False
    config.model.depth = 18
    config.model.decoder_width = config.model.discriminator_width = 0.25
    config.perceptual.layers = ("block1_conv1", "block2_conv1")
    if mode == "protect":
        config.train.steps = 800
        config.train.evaluate_every = 200
        config.train.checkpoint_every = 100
    return config
