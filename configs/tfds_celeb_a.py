"""CelebA as TFDS itself has it, celeb_a, at 224 px: ResNet-50, features of the fc layer.

As configs/celeba.py, but with nothing to prepare. First:

    tfds build celeb_a --data_dir=data

Its `train` (162,770 pictures) is cut into private and public pictures, in the paper's shares, and
attackers are measured on its `test` (19,962). The cut is by position in TFDS's shuffled order, so
that people are in both parts of `train`.
`--config.data.private=train --config.data.public=validation` takes its own splits instead.
"""

from tfadv.config import Attack, Config, Data, Model, Train


def get_config(mode: str) -> Config:
    """Returns the settings of `--mode=recognizer`, `--mode=protect` or `--mode=attack`."""
    train = {
        "recognizer": Train(steps=20_000, batch=64, evaluate_every=2500, checkpoint_every=1000),
        "protect": Train(steps=40_000, batch=64, evaluate_every=2500, checkpoint_every=1000),
        "attack": Train(steps=50_000, batch=64, evaluate_every=500, checkpoint_every=1000),
    }
    return Config(
        baseline=True,
        data=Data(
            dataset="celeb_a",
            private="train[:80%]",
            public="train[80%:]",
            test="test",
            size=224,
        ),
        model=Model(depth=50, width=1.0, split="fc"),
        train=train[mode],
        attack=Attack(cache_mb=8192),
    )
