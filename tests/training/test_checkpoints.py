import os
import subprocess

import numpy as np
import pytest
import tensorflow as tf

from tfadv.config.errors import UserError
from tfadv.training.checkpoints import Checkpoints

INDEX, DATA = "ckpt-3.index", "ckpt-3.data-00000-of-00001"


class State:
    """A vector that is all `step`, saved at steps 1, 2 and 3."""

    def __init__(self, folder, size=1000):
        self.values = tf.Variable(tf.zeros(size))
        self.step = tf.Variable(0)
        self.checkpoints = Checkpoints(folder, values=self.values, step=self.step)

    def save(self, step):
        self.values.assign(tf.fill(self.values.shape, float(step)))
        self.step.assign(step)
        self.checkpoints.save(step)

    def restored(self):
        """The restored step, after a check that all values are of that step."""
        self.checkpoints.restore()
        np.testing.assert_array_equal(self.values.numpy(), float(self.step.numpy()))
        return int(self.step.numpy())


@pytest.fixture
def state(tmp_path):
    state = State(tmp_path / "checkpoints")
    for step in (1, 2, 3):
        state.save(step)
    return state


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


DAMAGES = {
    "cut short": cut,
    "empty": lambda path: path.write_bytes(b""),
    "a bit flipped": flip,
    "missing": lambda path: path.unlink(),
}


def test_the_newest_two_are_kept_and_the_newest_is_restored(state, tmp_path):
    assert state.checkpoints.steps == [3, 2]
    assert len(contents(tmp_path / "checkpoints")) == 4
    assert State(tmp_path / "checkpoints").restored() == 3


def test_without_a_checkpoint_nothing_is_restored(tmp_path):
    assert State(tmp_path / "none").restored() == 0


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", [INDEX, DATA])
def test_if_the_newest_is_damaged_the_one_before_is_restored(state, tmp_path, capsys, file, damage):
    DAMAGES[damage](tmp_path / "checkpoints" / file)
    assert State(tmp_path / "checkpoints").restored() == 2
    warning = capsys.readouterr().err
    assert "ckpt-3 is damaged (" in warning
    assert warning.endswith("continuing from the checkpoint of step 2\n")


def test_every_flipped_bit_is_noticed_or_harmless(state, tmp_path):
    random = np.random.default_rng(0)
    whole = contents(tmp_path / "checkpoints")
    for name in [INDEX, DATA] * 40:
        content = bytearray(whole[name])
        content[random.integers(len(content))] ^= 1 << random.integers(8)
        (tmp_path / "checkpoints" / name).write_bytes(content)
        assert state.restored() in (2, 3)
        (tmp_path / "checkpoints" / name).write_bytes(whole[name])


def test_if_all_are_damaged_there_is_an_error_and_nothing_is_touched(state, tmp_path):
    folder = tmp_path / "checkpoints"
    cut(folder / DATA)
    (folder / "ckpt-2.index").unlink()
    before = contents(folder)
    message = r"no checkpoint can be read: .*ckpt-3.*ckpt-2.*move .* away"
    with pytest.raises(UserError, match=message):
        State(folder).checkpoints.restore()
    assert contents(folder) == before


def test_a_damaged_one_is_removed_once_an_undamaged_one_is_written(state, tmp_path):
    cut(tmp_path / "checkpoints" / DATA)
    resumed = State(tmp_path / "checkpoints")
    assert resumed.restored() == 2
    resumed.checkpoints.save(2)
    assert resumed.checkpoints.steps == [2]


def test_a_failed_write_removes_no_other_checkpoint_and_not_the_step_s_own(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints"
    state = State(folder)
    state.save(4)
    state.save(40)
    before = contents(folder)

    def fail(path):
        (folder / f"{path}.data-00000-of-00002").write_bytes(b"half")
        raise tf.errors.ResourceExhaustedError(None, None, "no space left")

    monkeypatch.setattr(state.checkpoints._checkpoint, "write", fail)
    for step in (4, 40):
        with pytest.raises(UserError, match="no space left"):
            state.checkpoints.save(step)
        assert contents(folder) == before


def test_the_next_save_removes_what_a_killed_write_left(state, tmp_path):
    folder = tmp_path / "checkpoints"
    (folder / "ckpt-4_temp").mkdir()
    (folder / "ckpt-4_temp/part-00000-of-00001.data-00000-of-00001").write_bytes(b"half")
    assert State(folder).restored() == 3
    state.save(4)
    assert sorted(contents(folder)) == [
        f"ckpt-{step}.{kind}" for step in (3, 4) for kind in ("data-00000-of-00001", "index")
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk_is_an_error_and_leaves_earlier_ones_whole(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this machine does not let root mount a file system")
    try:
        state = State(folder, size=20_000)  # 80 kB: two fit
        state.save(1)
        state.save(2)
        before = contents(folder)
        message = r"step 3 can't be written to .* earlier ones are kept"
        with pytest.raises(UserError, match=message):
            state.save(3)
        assert contents(folder) == before
        assert State(folder, size=20_000).restored() == 2
    finally:
        subprocess.run(["umount", str(folder)], check=True)
