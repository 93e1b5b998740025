"""The paper's setting: CelebA at 224 px, ResNet-50, features of the fc layer.

Cost: for a GPU. 20 passes over 160,000 private images; checkpoints need about 25 GB of disk, since
the decoder has 232 million parameters. Result: none yet; this setting has not been run in full.
The paper leaves open the optimizer, learning rates, batch size and number of passes. First, with
CelebA's official files in a folder:

    python -m data_prep.celeba --source=CELEBA --data_dir=data

No identity is in two splits, and the splits have the paper's shares. The paper itself split by
position: `--scheme=paper` and `--config.data.dataset=celeba/paper`. The paper's recognizer is
OpenFace: `--config.recognizer.path=nn4.small2.v1.t7`.
"""

from tfadv.config.schema import Attack, Config, Data, Model, Train


def get_config(mode: str) -> Config:
    """Returns the settings of `--mode=recognizer`, `--mode=protect` or `--mode=attack`."""
    train = {
        "recognizer": Train(steps=20_000, batch=64, evaluate_every=2500, checkpoint_every=1000),
        "protect": Train(steps=50_000, batch=64, evaluate_every=2500, checkpoint_every=1000),
        "attack": Train(steps=50_000, batch=64, evaluate_every=500, checkpoint_every=1000),
    }
    return Config(
        baseline=True,
        data=Data(dataset="celeba/identity", size=224),
        model=Model(depth=50, width=1.0, split="fc"),
        train=train[mode],
        attack=Attack(cache_mb=8192),
    )
