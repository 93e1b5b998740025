"""CelebA as TFDS has it, celeb_a, at 224 px: ResNet-50, features of the fc layer.

As `celeba.py`, with nothing to prepare but:

    tfds build celeb_a --data_dir=data

Cost: for a GPU, as `celeba.py`. Result: none yet; this setting has not been run in full.

`train` (162,770 images) is divided into private and public images in the paper's shares. Attacks
are measured on `test` (19,962). The division is by position in TFDS's shuffled order, so that
people are in both parts. `--config.data.private=train --config.data.public=validation` uses TFDS's
own splits instead.
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
        config.train.steps = 40_000  # as many passes over fewer images
    return config
