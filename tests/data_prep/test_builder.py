import functools
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_prep import builder, command, synthetic
from tfadv.config.errors import UserError

CONFIG = synthetic.SyntheticConfig(name="many", identities=100, pictures=5, size=16)
PRIVATE = 300  # of the 500 images


@pytest.fixture(autouse=True, scope="module")
def drawn_once():
    """Draws each face once for all tests: drawing takes most of their time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic.faces, "render_face", functools.cache(synthetic.faces.render_face))
        yield


def prepare(folder, **options):
    made = synthetic.Synthetic(config=CONFIG, data_dir=folder, **options)
    command.build(made, None)
    return made


def names(made, split="private"):
    raw = {"image": tfds.decode.SkipDecoding()}
    examples = made.as_dataset(split=split, decoders=raw).as_numpy_iterator()
    return [example["name"].decode() for example in examples]


def test_images_are_written_in_one_order_however_long_each_takes(tmp_path, monkeypatch):
    plain = synthetic.SyntheticFaces.example
    expected = names(prepare(tmp_path / "a"))

    def slow(self, index):
        time.sleep(1e-3 * (index % 7))
        return plain(self, index)

    monkeypatch.setattr(synthetic.SyntheticFaces, "example", slow)
    assert names(prepare(tmp_path / "b")) == expected
    assert len(expected) == PRIVATE
    assert expected != sorted(expected)


def test_of_several_broken_images_the_first_to_be_written_is_named(tmp_path, monkeypatch):
    order = names(prepare(tmp_path / "a"))
    broken = {order[70], order[71], order[130]}
    plain = synthetic.SyntheticFaces.example

    def example(self, index):
        name = self.names[index]
        if name in broken:
            time.sleep(0.02 if name == order[70] else 0)
            raise UserError(f"{name}: doesn't decode")
        return plain(self, index)

    monkeypatch.setattr(synthetic.SyntheticFaces, "example", example)
    with pytest.raises(UserError, match=order[70]):
        prepare(tmp_path / "b")
    skipped = prepare(tmp_path / "c", on_error="skip")
    assert skipped.info.metadata["skipped"] == {
        "count": 3,
        "names": [order[70], order[71], order[130]],
    }
    assert names(skipped) == [name for name in order if name not in broken]


def test_few_images_of_a_shard_are_held_at_a_time(tmp_path, monkeypatch):
    plain = synthetic.SyntheticFaces.example
    made, held = [], []

    def example(self, index):
        found = plain(self, index)
        made.append(found)
        held.append(sum("image" in each for each in made))
        return found

    monkeypatch.setattr(synthetic.SyntheticFaces, "example", example)
    prepare(tmp_path)
    assert len(held) == 500
    # What is ahead, what the threads work on, and what is being written.
    assert max(held) <= (builder.TASKS_AHEAD + 2) * builder.IMAGES_PER_TASK < PRIVATE
    assert not np.any([bool(each) for each in made])
