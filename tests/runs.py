"""Small runs on synthetic faces, as a user starts them."""

import json

import keras

from tfadv import cli

CONFIG = """
from tfadv.config.schema import *

def get_config(mode):
    config = Config(
        data=Data(dir={dir!r}, dataset="synthetic/tiny", size=32, held_out=0.3),
        model=Model(depth=18, width=0.125, decoder_width=0.125),
        train=Train(steps=30, batch=16, log_every=5, evaluate_every=10, checkpoint_every=10),
        attack=Attack(patience=1, rate_drops=0),
        feature_map=FeatureMap(steps=30, hidden=32),
        metrics=Metrics(replicates=50),
        runtime=Runtime(precision="float32"),
        report=Report(examples=3),
    )
    {changes}
    return config
"""


def write_config(root, folder, *changes):
    """Writes `root`/tiny.py for the data sets of a folder; a change is a line of Python."""
    text = CONFIG.format(dir=str(folder), changes="\n    ".join(changes))
    (root / "tiny.py").write_text(text)


def call(root, mode, name, *flags):
    """Runs a mode with `root`/tiny.py in the folder `root`/`name`; returns the exit code."""
    keras.config.set_dtype_policy("float32")
    where = [f"--config={root / 'tiny.py'}", f"--workdir={root / name}"]
    return cli.main(["run.py", f"--mode={mode}", *where, *flags])


def metrics(root, name):
    """Returns the metrics of the run in `root`/`name`."""
    return json.loads((root / name / "metrics.json").read_text())
