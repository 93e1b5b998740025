"""CelebA at 64 px for the tables of the paper on two cores: a dozen encoders and attacks per table.

The base of `table1.py`, `table2.py`, `table3.py` and `figure4.py` with `--config.scale=small`. Each
of these states its cost and its result. First:

    python -m data_prep.celeba --source=CELEBA --data_dir=data --shares=0.7,0.2,0.1

The encoder is ResNet-18. At the same speed it learns the task in far fewer steps than ResNet-50.
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
