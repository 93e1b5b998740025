"""Generated faces at 64 px, ResNet-18 of half width: a first look, nothing downloaded."""

from tfadv.config import Config, Model, Train


def get_config(mode: str) -> Config:
    """Returns the settings of `--mode=protect` or `--mode=attack`."""
    train = {
        "protect": Train(steps=600, batch=64, evaluate_every=200, checkpoint_every=200),
        "attack": Train(steps=4000, batch=64, evaluate_every=100, checkpoint_every=200),
    }
    return Config(
        baseline=True,
        model=Model(depth=18, width=0.5, decoder_width=0.5),
        train=train[mode],
    )
