"""CelebA as TFDS itself has it, celeb_a, at 224 px: ResNet-50, features of the fc layer.

As configs/celeba.py, but with nothing to prepare. First:

    tfds build celeb_a --data_dir=data

Its `train` (162,770 pictures) is cut into private and public pictures, in the paper's shares, and
attackers are measured on its `test` (19,962). The cut is by position in TFDS's shuffled order, so
that people are in both parts of `train`.
`--config.data.private=train --config.data.public=validation` takes its own splits instead.
"""

from configs import celeba
from tfadv.config.schema import Config, Data


def get_config(mode: str) -> Config:
    """Returns the settings of `--mode=recognizer`, `--mode=protect` or `--mode=attack`."""
    config = celeba.get_config(mode)
    config.data = Data(
        dataset="celeb_a", private="train[:80%]", public="train[80%:]", test="test", size=224
    )
    if mode == "protect":
        config.train.steps = 40_000  # as many passes over fewer pictures
    return config
