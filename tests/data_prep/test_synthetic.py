import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_prep import faces, spec, synthetic


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("data")
    synthetic.prepare(data_dir, "tiny")
    return data_dir


def read(data_dir, split):
    builder = tfds.builder("synthetic/tiny", data_dir=data_dir)
    return list(builder.as_dataset(split=split).as_numpy_iterator())


def run(monkeypatch, *arguments):
    """Runs the command in this process; returns what `sys.exit` was given."""
    monkeypatch.setattr("sys.argv", ["synthetic", *arguments])
    try:
        synthetic.command.run(synthetic.main, synthetic.define_flags())
    except SystemExit as end:
        return end.code
    return 0


def test_tiny_has_three_splits_that_share_no_identity(tiny):
    splits = {split: read(tiny, split) for split in spec.SPLITS}
    assert [len(split) for split in splits.values()] == [120, 60, 20]
    people = [{int(example["identity"]) for example in split} for split in splits.values()]
    assert [len(identities) for identities in people] == [24, 12, 4]
    assert set.union(*people) == set(range(40))


def test_examples_are_the_rendered_faces(tiny):
    info = tfds.builder("synthetic/tiny", data_dir=tiny).info
    assert info.metadata["attributes"] == list(faces.ATTRIBUTES)
    assert len(info.metadata["source"]) == 64
    for example in read(tiny, "test"):
        identity, image = map(int, example["name"].decode().removesuffix(".jpg").split("_"))
        face = faces.render_face(identity, image, size=64)
        assert example["identity"] == identity
        np.testing.assert_array_equal(example["attributes"], face.attributes)
        assert example["image"].shape == (64, 64, 3)
        # JPEG of quality 95 is near to what was drawn; swapped channels would not be.
        assert cv2.PSNR(example["image"], face.image) > 28


def test_preparing_again_leaves_the_set_alone(tiny):
    files = {path: path.stat().st_mtime_ns for path in tiny.rglob("*tfrecord*")}
    synthetic.prepare(tiny, "tiny")
    assert files == {path: path.stat().st_mtime_ns for path in tiny.rglob("*tfrecord*")}
    assert len(files) == 3


def test_the_command_names_a_set_after_its_numbers(tmp_path, monkeypatch, capsys):
    arguments = ("--identities=6", "--pictures=2", "--size=32", "--seed=3", "--shares=0.5,0.3,0.2")
    assert run(monkeypatch, f"--data_dir={tmp_path}", *arguments) == 0
    printed = capsys.readouterr().out
    name = "synthetic/6x2_32px_seed3_50_30_20"
    assert f"--config.data.dataset={name} --config.data.dir={tmp_path}" in printed
    assert (tmp_path / name / "1.0.0/dataset_info.json").exists()


def test_the_numbers_of_a_known_config_give_that_config(tiny, monkeypatch, capsys):
    arguments = ("--identities=40", "--pictures=5", "--size=64")
    assert run(monkeypatch, f"--data_dir={tiny}", *arguments) == 0
    assert "synthetic/tiny is prepared already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--identities=0", "--identities=0"),
        ("--size=huge", "--size=huge"),
        ("--shares=1,1,1", "three positive numbers that sum to 1"),
        ("--identities=2", "leaves the split public empty"),
        ("--source=x", "Unknown command line flag 'source'"),
    ],
)
def test_bad_flags_give_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, argument, message):
    assert run(monkeypatch, f"--data_dir={tmp_path}", argument) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
