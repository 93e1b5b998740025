"""CelebA at 64 px on a small machine: ResNet-50 of half width, with and without the defence.

Cost, on 20,200 images and two CPU cores: protect takes half an hour, attack a quarter. Result:
λ₁ = 1 costs 0.05 of mean MCC and 0.78 dB of a new attacker's PSNR (docs/results/celeba_small.md).
First:

    python -m data_prep.celeba --source=CELEBA --data_dir=data --shares=0.7,0.2,0.1

A recognizer measures identity. `--mode=recognizer` trains one on the 808 public people, who are
few. Name a better one with `--config.recognizer.path` if you have it.
"""

from tfadv.config.schema import Attack, Config, Data, Model, Train


def get_config(mode: str) -> Config:
    """Returns the settings of `--mode=recognizer`, `--mode=protect` or `--mode=attack`."""
    train = {
        "recognizer": Train(
            steps=2000, batch=64, learning_rate=3e-3, evaluate_every=500, checkpoint_every=500
        ),
        "protect": Train(steps=2000, batch=64, evaluate_every=500, checkpoint_every=250),
        "attack": Train(steps=6000, batch=64, evaluate_every=100, checkpoint_every=500),
    }
    return Config(
        baseline=True,
        data=Data(dataset="celeba/identity_70_20_10", size=64),
        model=Model(depth=50, width=0.5, decoder_width=0.5),
        train=train[mode],
        attack=Attack(patience=3),
    )
