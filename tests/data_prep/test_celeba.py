import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_prep import builder, celeba, command, spec
from tfadv.config.errors import UserError

REAL = Path(__file__).parents[3] / "shared/data/celeba"
COUNT = 30


def encode(seed):
    image = np.random.default_rng(seed).integers(0, 256, (24, 20, 3), np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()


def write_celeba(folder):
    """Writes 30 images of 10 identities in CelebA's layout; returns the attribute rows."""
    names = [f"{i + 1:06d}.jpg" for i in range(COUNT)]
    values = np.random.default_rng(0).choice([-1, 1], (COUNT, 40))
    (folder / celeba.IMAGES).mkdir(parents=True)
    for i, name in enumerate(names):
        (folder / celeba.IMAGES / name).write_bytes(encode(i))
    lines = zip(names, values, strict=True)
    rows = [f"{name} {' '.join(f'{v:2d}' for v in row)}" for name, row in lines]
    header = " ".join(celeba.ATTRIBUTE_NAMES)
    (folder / celeba.ATTRIBUTES).write_text("\n".join([str(COUNT), f"{header} ", *rows]) + "\n")
    write_column(folder / celeba.IDENTITIES, names, [100 + i // 3 for i in range(COUNT)])
    write_column(folder / celeba.PARTITION, names, [0] * 20 + [1] * 6 + [2] * 4)
    return dict(zip(names, values, strict=True))


def write_column(path, names, numbers):
    path.write_text("".join(f"{name} {n}\n" for name, n in zip(names, numbers, strict=True)))


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.fixture
def folder(tmp_path):
    write_celeba(tmp_path / "source")
    return tmp_path / "source"


def run(*arguments):
    """Runs the command in this process; returns what `sys.exit` was given."""
    values = celeba.define_flags()
    old = sys.argv
    sys.argv = ["celeba", *map(str, arguments)]
    try:
        command.run(celeba.main, values)
    except SystemExit as end:
        return end.code
    finally:
        sys.argv = old
    return 0


def read(data_dir, config, split):
    dataset = tfds.builder(f"celeba/{config}", data_dir=data_dir).as_dataset(
        split=split, decoders={"image": tfds.decode.SkipDecoding()}
    )
    return {example["name"].decode(): example for example in dataset.as_numpy_iterator()}


def test_prepared_examples_equal_the_files_and_the_lists(tmp_path, monkeypatch, capsys):
    rows = write_celeba(tmp_path / "source")
    monkeypatch.setattr(builder, "IMAGES_PER_SHARD", 4)
    arguments = (f"--source={tmp_path / 'source'}", f"--data_dir={tmp_path / 'data'}")
    assert run(*arguments, "--shares=0.6,0.2,0.2") == 0
    printed = capsys.readouterr().out
    config = "identity_60_20_20"
    assert (
        f"use: --config.data.dataset=celeba/{config} --config.data.dir={tmp_path / 'data'}"
        in printed
    )
    splits = {split: read(tmp_path / "data", config, split) for split in spec.SPLITS}
    assert [len(split) for split in splits.values()] == [18, 6, 6]
    examples = {name: e for split in splits.values() for name, e in split.items()}
    assert sorted(examples) == sorted(rows)
    for name, example in examples.items():
        assert example["image"] == (tmp_path / "source/img_align_celeba" / name).read_bytes()
        np.testing.assert_array_equal(example["attributes"], rows[name] > 0)
        assert example["identity"] == 100 + (int(name[:6]) - 1) // 3
    people = [{e["identity"] for e in split.values()} for split in splits.values()]
    assert sum(map(len, people)) == len(set.union(*people)) == 10
    info = tfds.builder(f"celeba/{config}", data_dir=tmp_path / "data").info
    assert info.metadata == {
        "attributes": list(celeba.ATTRIBUTE_NAMES),
        "scheme": "identity",
        "shares": [0.6, 0.2, 0.2],
        "seed": 0,
        "source": spec.digest(
            celeba.read_source(tmp_path / "source", "identity"), with_partition=False
        ),
        "identities": {"private": 6, "public": 2, "test": 2},
        "skipped": {"count": 0, "names": []},
    }
    assert info.splits["private"].num_shards == 5


def test_a_second_call_says_that_the_set_is_there(folder, tmp_path, capsys):
    arguments = (f"--source={folder}", f"--data_dir={tmp_path / 'data'}", "--scheme=official")
    assert run(*arguments) == 0
    before = sorted((tmp_path / "data/celeba").rglob("*"))
    capsys.readouterr()
    assert run(*arguments) == 0
    assert "celeba/official is prepared already" in capsys.readouterr().out
    assert sorted((tmp_path / "data/celeba").rglob("*")) == before
    assert len(read(tmp_path / "data", "official", "public")) == 6


def test_a_set_made_from_other_lists_is_not_taken_for_this_one(folder, tmp_path, capsys):
    arguments = (f"--source={folder}", f"--data_dir={tmp_path / 'data'}", "--scheme=official")
    assert run(*arguments) == 0
    replace(folder / celeba.PARTITION, "000004.jpg 0", "000004.jpg 1")
    assert run(*arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "official/1.0.0 was made from other images or labels: choose another" in error


def test_the_paper_scheme_needs_neither_identities_nor_partition(folder, tmp_path):
    (folder / celeba.IDENTITIES).unlink()
    (folder / celeba.PARTITION).unlink()
    shares = "--shares=0.5,0.3,0.2"
    assert run(f"--source={folder}", f"--data_dir={tmp_path}", "--scheme=paper", shares) == 0
    private = read(tmp_path, "paper_50_30_20", "private")
    assert sorted(private) == [f"{i + 1:06d}.jpg" for i in range(15)]
    assert {example["identity"] for example in private.values()} == {-1}


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-40])


def test_a_broken_image_stops_with_its_name_and_leaves_nothing(folder, tmp_path, capsys):
    cut_short(folder / "img_align_celeba/000007.jpg")
    assert run(f"--source={folder}", f"--data_dir={tmp_path}", "--scheme=official") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.endswith(f"error: {folder}/img_align_celeba/000007.jpg: is cut short")
    assert not (tmp_path / "celeba/official/1.0.0").exists()


def test_a_broken_image_is_skipped_and_counted_when_asked(folder, tmp_path, capsys):
    cut_short(folder / "img_align_celeba/000007.jpg")
    (folder / "img_align_celeba/000021.jpg").write_bytes(b"<html>not found</html>")
    arguments = (f"--source={folder}", f"--data_dir={tmp_path}", "--scheme=official")
    assert run(*arguments, "--on_error=skip") == 0
    printed = capsys.readouterr().out
    assert "skipped 2 broken images: 000007.jpg, 000021.jpg" in printed
    assert len(read(tmp_path, "official", "private")) == 19
    metadata = tfds.builder("celeba/official", data_dir=tmp_path).info.metadata
    assert metadata["skipped"] == {"count": 2, "names": ["000007.jpg", "000021.jpg"]}


def drop_image(folder):
    (folder / "img_align_celeba/000003.jpg").unlink()


def drop_from_identities(folder):
    replace(folder / celeba.IDENTITIES, "000004.jpg 101\n", "")


FAULTS = {
    "no attributes": (
        lambda f: (f / celeba.ATTRIBUTES).unlink(),
        r"list_attr_celeba.txt is missing: get Anno/list_attr_celeba.txt from https://mmlab",
    ),
    "no identities": (
        lambda f: (f / celeba.IDENTITIES).unlink(),
        r"identity_CelebA.txt is missing: get Anno/identity_CelebA.txt",
    ),
    "no images": (
        lambda f: (f / celeba.IMAGES).rename(f / "elsewhere"),
        r"img_align_celeba is missing: get Img/img_align_celeba.zip",
    ),
    "missing image": (
        drop_image,
        r"list_attr_celeba.txt lists 1 images that .*img_align_celeba lacks, such as 000003.jpg",
    ),
    "unlisted image": (
        lambda f: (f / "img_align_celeba/x.jpg").write_bytes(b""),
        r"img_align_celeba has 1 images that list_attr_celeba.txt lacks, such as x.jpg",
    ),
    "wrong count": (
        lambda f: replace(f / celeba.ATTRIBUTES, "30\n", "31\n"),
        r"list_attr_celeba.txt: line 1 says 31 images, 30 follow",
    ),
    "no count": (
        lambda f: replace(f / celeba.ATTRIBUTES, "30\n", ""),
        r"list_attr_celeba.txt: line 1 must be the number of images",
    ),
    "other attributes": (
        lambda f: replace(f / celeba.ATTRIBUTES, "Young", "Old"),
        r"list_attr_celeba.txt: line 2 isn't CelebA's 40 attribute names",
    ),
    "bad value": (
        lambda f: replace(f / celeba.ATTRIBUTES, " 1 ", " 0 "),
        r"list_attr_celeba.txt: 1 rows aren't 40 values of 1 or -1, such as that of 000001.jpg",
    ),
    "word for a value": (
        lambda f: replace(f / celeba.ATTRIBUTES, " 1 ", " yes "),
        r"list_attr_celeba.txt: 1 rows aren't 40 values of 1 or -1, such as that of 000001.jpg",
    ),
    "value missing in one row, too many in another": (
        lambda f: (
            replace(f / celeba.ATTRIBUTES, "000001.jpg", "000001.jpg 1"),
            replace(f / celeba.ATTRIBUTES, "000002.jpg -1", "000002.jpg"),
        ),
        r"list_attr_celeba.txt: 2 rows aren't 40 values of 1 or -1, such as that of 000001.jpg",
    ),
    "listed twice": (
        lambda f: replace(f / celeba.ATTRIBUTES, "000002.jpg", "000001.jpg"),
        r"list_attr_celeba.txt: 1 images are listed twice, such as 000001.jpg",
    ),
    "nobody": (
        drop_from_identities,
        r"identity_CelebA.txt lacks 1 images of list_attr_celeba.txt, such as 000004.jpg",
    ),
    "bad identity": (
        lambda f: replace(f / celeba.IDENTITIES, "000004.jpg 101", "000004.jpg Bob"),
        r"identity_CelebA.txt: '000004.jpg Bob' isn't an image's name and a number",
    ),
    "a digit that is no number": (
        lambda f: replace(f / celeba.IDENTITIES, "000004.jpg 101", "000004.jpg 1²"),
        r"identity_CelebA.txt: '000004.jpg 1²' isn't an image's name and a number",
    ),
    "a number too large": (
        lambda f: replace(f / celeba.IDENTITIES, "000004.jpg 101", f"000004.jpg {10**18}"),
        r"identity_CelebA.txt: '000004.jpg 10{18}' isn't an image's name and a number",
    ),
    "another folder": (
        lambda f: replace(f / celeba.ATTRIBUTES, "000002.jpg", "../000002.jpg"),
        r"list_attr_celeba.txt lists '../000002.jpg', which can't be in its folder",
    ),
    "bad partition": (
        lambda f: replace(f / celeba.PARTITION, "000004.jpg 0", "000004.jpg 7"),
        r"list_eval_partition.txt: 7 isn't 0, 1 or 2",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_lists_at_fault_are_named(folder, fault):
    spoil, message = FAULTS[fault]
    celeba.read_source(folder, "identity")
    spoil(folder)
    with pytest.raises(UserError, match=message):
        celeba.read_source(folder, "identity")


def test_official_scheme_needs_the_partition_file(folder):
    (folder / celeba.PARTITION).unlink()
    with pytest.raises(UserError, match=r"Eval/list_eval_partition.txt"):
        celeba.read_source(folder, "official")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--source=DIR is missing"),
        (["--source=/nowhere"], "--source=/nowhere: no such folder"),
        (["--source={empty}"], "the folder is empty"),
        (["--source={source}", "--scheme=random"], "<identity|paper|official>"),
        (["--source={source}", "--shares=1,2,3"], "--shares=1,2,3: give three positive numbers"),
        (["--source={source}", "--shares=0.5,0.3,0.2", "--scheme=official"], "not shares"),
        (["--source={source}", "--shares=0.98,0.01,0.01"], "leaves the split public empty"),
        (["--sorce=x"], "Did you mean: source"),
        (["somewhere"], "unexpected argument 'somewhere'"),
        (["--on_error=ignore"], "<stop|skip>"),
    ],
)
def test_bad_flags_give_one_line_and_exit_code_2(folder, tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    filled = [a.format(source=folder, empty=tmp_path / "empty") for a in arguments]
    assert run(f"--data_dir={tmp_path / 'data'}", *filled) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "data").exists()


def test_the_module_runs_and_faults_do_not_import_tensorflow(folder, tmp_path):
    drop_image(folder)
    program = (
        "import runpy, sys\n"
        "try: runpy.run_module('data_prep.celeba', run_name='__main__', alter_sys=True)\n"
        "finally: print('tensorflow' in sys.modules)"
    )
    arguments = [f"--source={folder}", f"--data_dir={tmp_path / 'data'}"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == "False\n"
    assert done.stderr.count("\n") == 1
    assert "lists 1 images" in done.stderr


@pytest.mark.skipif(not REAL.exists(), reason=f"the real images aren't at {REAL}")
def test_real_celeba_lists_are_read():
    source = celeba.read_source(REAL, "identity")
    assert source.names[0] == "000001.jpg"
    assert source.identities[0] == 2880
    assert len(source.names) == len(source.attributes) == 20_200
    first = dict(zip(celeba.ATTRIBUTE_NAMES, source.attributes[0], strict=True))
    assert (first["Attractive"], first["Bald"], first["Smiling"]) == (1, 0, 1)
    assert len(np.unique(source.identities)) == 4_040
