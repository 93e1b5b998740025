"""Trains in processes that are killed at random moments; run by `test_killed.py`.

    python -m tests.killed FOLDER KILLS [training|experiment]

An experiment runs every mode: a recognizer, an encoder and an attack on the encoder.

Prints the number of kills. Each process is forked from one that has only imported TensorFlow, since
the import takes longer than the rest.
"""

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

from data_prep import synthetic
from tests import replicas
from tfadv import cli
from tfadv.training import checkpoints
from tfadv.training import trainer as training

STEPS = 400
GRID = """
from tfadv.config.schema import *
from tfadv.config.experiment import Experiment, Row

def base(mode):
    return Config(
        data=Data(dir={dir!r}, dataset="synthetic/tiny", size=32, held_out=0.3),
        model=Model(
            depth=18, width=0.125, split="avgpool", decoder_width=0.125, discriminator_width=0.125
        ),
        loss=Loss(mu1=0.1),
        train=Train(steps=30, batch=16, log_every=5, evaluate_every=10, checkpoint_every=2),
        attack=Attack(patience=1, rate_drops=0),
        feature_map=FeatureMap(steps=40, hidden=32),
        metrics=Metrics(replicates=50),
        runtime=Runtime(precision="float32", deterministic=True),
        report=Report(examples=3),
    )

def get_experiment(scale):
    return Experiment("All modes", "", base, [Row("1", {{}}, {{}}, "all")], ("mcc", "psnr"))
"""
LOSS = {"lambda1": 1.0, "mu1": 0.1}


def main():
    """Trains once undisturbed, then with KILLS kills."""
    folder, kills = Path(sys.argv[1]), int(sys.argv[2])
    work = {"training": train, "experiment": experiment}[(*sys.argv, "training")[3]]
    run_folder = folder / "run"  # both runs use one path, which names of results contain
    began = time.monotonic()
    assert in_child(work, run_folder) == 0
    os.environ["SECONDS"] = str(time.monotonic() - began)
    run_folder.rename(folder / "whole")
    killed = 0
    for seed in range(10 * kills):
        ended = in_child(work, run_folder, seed if killed < kills else None)
        if ended == 0:
            break
        assert ended == signal.SIGKILL, ended
        killed += 1
    run_folder.rename(folder / "killed")
    print("killed", killed)


def in_child(work, *args):
    """Calls `work` in a child process; returns 0, the signal that killed it, or -1."""
    child = os.fork()
    if not child:
        try:
            work(*args)
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) and (os.WTERMSIG(status) or -1)


def train(folder, seed=None):
    """Trains the protector of `tests.replicas`; with a seed, dies at a random moment."""
    config = replicas.make_config("float32", LOSS)
    config.runtime.deterministic = True
    config.train.steps, config.train.log_every = STEPS, 7
    config.train.checkpoint_every, config.train.decoder_steps = 3, 1
    if seed is not None:
        prepare_to_die(random.Random(seed))
    adam = training.adam
    training.adam = lambda *args, **kwargs: adam(*args or (1e-3, 5.0, STEPS), **kwargs)
    training.set_up(config.runtime)
    model, batch = replicas.make_protector(config)
    trainer = training.Trainer(model, config.train, folder, "killed")
    trainer.run(lambda step: replicas.endless(batch).skip(step), lambda step: ({}, True))
    optimizers = training._optimizers(model)
    slots = [variable.numpy() for each in optimizers for variable in each.variables]
    np.savez(folder / "weights.npz", *model.get_weights(), *slots)


def experiment(folder, seed=None):
    """Runs all modes on synthetic faces; with a seed, dies at a random moment."""
    faces = folder.parent / "faces"
    if not faces.exists():
        synthetic.prepare(faces, "tiny")
    grid = folder.parent / "grid.py"
    grid.write_text(GRID.format(dir=str(faces)))
    if seed is not None:
        die_in(random.Random(seed).uniform(0.05, 0.3) * float(os.environ["SECONDS"]))
    flags = ["--mode=reproduce", f"--config={grid}", f"--workdir={folder}"]
    assert cli.main(["run.py", *flags]) == 0


def prepare_to_die(draw):
    """Chooses the moment: half of the time while a checkpoint or the history is written."""
    kind = draw.choice(("checkpoint", "history", "anywhere", "anywhere"))
    if kind == "anywhere":
        begin = checkpoints.Checkpoints.restore

        def restore(self):
            die_in(draw.uniform(0, 2.0))
            begin(self)

        checkpoints.Checkpoints.restore = restore
        return
    owner, name, longest = {
        "checkpoint": (checkpoints.Checkpoints, "save", 0.03),
        "history": (training.History, "add", 0.001),
    }[kind]
    plain, left = getattr(owner, name), [draw.randrange(1, 4)]

    def write(self, *args):
        left[0] -= 1
        if not left[0]:
            die_in(draw.uniform(0, longest))
        plain(self, *args)

    setattr(owner, name, write)


def die_in(seconds):
    """Kills this process after so many seconds."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    main()
