"""Synthetic faces at 64 px, ResNet-18 of half width: the paper's defence, with nothing to download.

    python run.py --mode=demo

Cost: about six minutes on two CPU cores. Result: see README.md.
"""

from tfadv.config.schema import Attack, Config, Loss, Model, Train


def get_config(mode: str) -> Config:
    """Returns the settings of `--mode=recognizer`, `--mode=protect` or `--mode=attack`."""
    train = {
        "recognizer": Train(
            steps=300, batch=64, learning_rate=3e-3, evaluate_every=100, checkpoint_every=100
        ),
        "protect": Train(steps=400, batch=64, evaluate_every=200, checkpoint_every=200),
        "attack": Train(steps=4000, batch=64, evaluate_every=50, checkpoint_every=500),
    }
    width = {"recognizer": 0.25, "protect": 0.5, "attack": 0.5}
    return Config(
        baseline=True,
        model=Model(depth=18, width=width[mode], decoder_width=0.25),
        loss=Loss(lambda1=1.0),
        train=train[mode],
        attack=Attack(patience=3, rate_drops=1),
    )
