"""Damaged record files: an error names file, record and reason, or the records are left out."""

import dataclasses
import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.datasets import prepare, read
from tests.fuzz import READERS, fuzz
from tfadv import cli
from tfadv.config.errors import UserError
from tfadv.data.dataset import PRIVATE, PUBLIC, TEST, WHOLE, Dataset, explain
from tfadv.data.images import MAX_PIXELS, decode_image
from tfadv.data.labels import UNKNOWN
from tfadv.modes.runner import DATA_ERRORS


def png(image):
    return cv2.imencode(".png", image)[1].tobytes()


def chunk(kind, content):
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def huge_png(side, first=b""):
    """A whole black image, one bit a pixel: 30,000 x 30,000 of them in 110 kB."""
    rows = zlib.compress(bytes((1 + (side + 7) // 8) * side), 9)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + first + b"".join(chunk(*each) for each in chunks)


def huge_jpeg(side):
    """A small image that says it is a huge one."""
    encoded = bytearray(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    frame = encoded.index(b"\xff\xc0")
    encoded[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    return bytes(encoded)


@pytest.fixture
def config(tmp_path):
    """A set with eight images in each split, four in a file."""
    return prepare(tmp_path, shards=2)


def file_of(config, split, number=0):
    return sorted((Path(config.dir) / "pictures/1.0.0").glob(f"*-{split}.tfrecord*"))[number]


def change(path, **features):
    """Puts other values into the features of a file's record 1."""
    records = [each.numpy() for each in tf.data.TFRecordDataset(str(path))]
    example = tf.train.Example.FromString(records[1])
    for name, value in features.items():
        kept = example.features.feature[name]
        kept.Clear()
        if isinstance(value, bytes):
            kept.bytes_list.value.append(value)
        elif value is not None:
            kept.int64_list.value.extend(value)
    records[1] = example.SerializeToString()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


def second(path):
    """Where a file's record 1 begins."""
    return 16 + struct.unpack_from("<Q", path.read_bytes())[0]


def other_records(path):
    """Puts four whole records of another dataset into a file."""
    example = tf.train.Example()
    example.features.feature["text"].bytes_list.value.append(b"hello")
    with tf.io.TFRecordWriter(str(path)) as writer:
        for _ in range(4):
            writer.write(example.SerializeToString())


DAMAGE = {
    "missing": (lambda p: p.unlink(), 0, 4, "can't be read: No such file or directory"),
    "empty": (lambda p: p.write_bytes(b""), 0, 4, "the file holds 0 records where .* has 4"),
    "cut short": (
        lambda p: p.write_bytes(p.read_bytes()[:-9]),
        3,
        1,
        "the file is cut short or damaged",
    ),
    "twice as long": (lambda p: p.write_bytes(2 * p.read_bytes()), 0, 4, "holds 8 records"),
    "payload": (lambda p: flip(p, second(p) + 20), 1, 3, "damaged there"),
    "checksum": (lambda p: flip(p, -2), 3, 1, "damaged there"),
    "length": (lambda p: flip(p, second(p)), 1, 3, "damaged there"),
    "length's checksum": (lambda p: flip(p, second(p) + 9), 1, 3, "damaged there"),
    "of another dataset": (other_records, 0, 1, "can't be used: Feature: .* required"),
    "no image": (lambda p: change(p, image=b"GIF89a"), 1, 1, "neither a JPEG nor a PNG"),
    "no more image": (lambda p: change(p, image=b""), 1, 1, "neither a JPEG nor a PNG"),
    "a broken JPEG": (lambda p: change(p, image=b"\xff\xd8\xff\xe0"), 1, 1, "can't be used: "),
    "a broken PNG": (lambda p: change(p, image=huge_png(8)[:50]), 1, 1, "can't be used: "),
    "a PNG of a header": (lambda p: change(p, image=huge_png(8)[:20]), 1, 1, "can't be used: "),
    "a huge PNG": (lambda p: change(p, image=huge_png(30_000)), 1, 1, "more pixels than.*30000"),
    "a huge PNG behind a chunk": (
        lambda p: change(p, image=huge_png(23_000, chunk(b"abCd", struct.pack(">IIB", 8, 8, 8)))),
        *(1, 1, "neither a JPEG nor a PNG"),
    ),
    "a huge JPEG": (lambda p: change(p, image=huge_jpeg(30_000)), 1, 1, "more pixels than.*30000"),
    "no label": (lambda p: change(p, attributes=None), 1, 1, "can't be used: .*attributes"),
    "one label": (lambda p: change(p, attributes=[1]), 1, 1, "can't be used: .*attributes"),
    "label 2": (lambda p: change(p, attributes=[0, 2]), 1, 1, "has labels other than 0 and 1"),
    "label -1": (lambda p: change(p, attributes=[-1, 1]), 1, 1, "has labels other than 0 and 1"),
    "label 256": (lambda p: change(p, attributes=[256, 1]), 1, 1, "has labels other than 0 and"),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A set, what its test split holds, and the bytes of that split's first file."""
    config = prepare(tmp_path_factory.mktemp("sound"), shards=2)
    path = file_of(config, TEST)
    return config, read(Dataset(config).batches(TEST, WHOLE)), path, path.read_bytes()


@pytest.fixture
def restored(sound):
    """The same, whole again for every test."""
    _, _, path, content = sound
    path.write_bytes(content)
    yield sound
    path.write_bytes(content)


@pytest.mark.parametrize("kind", DAMAGE)
def test_the_error_names_file_record_and_reason(restored, kind):
    config, _, path, _ = restored
    damage, first, count, reason = DAMAGE[kind]
    damage(path)
    many = f"s {first} to {first + count - 1}" if count > 1 else f" {first}"
    with pytest.raises(UserError, match=rf"{path}: record{many} .*{reason}.*on_error=skip in.*$"):
        open_and_explain(config)


def open_and_explain(config):
    """Opens a dataset and looks for damaged records, as after a run that failed."""
    Dataset(config)
    explain(config, None)


@pytest.mark.parametrize("kind", DAMAGE)
def test_reading_any_damage_fails(restored, kind):
    """Only then does a run look for damage, which not every file size shows."""
    config, _, path, _ = restored
    batches = Dataset(config).batches(TEST, WHOLE)
    DAMAGE[kind][0](path)
    with pytest.raises(DATA_ERRORS):
        read(batches)


@pytest.mark.parametrize("kind", ["payload", "length", "missing", "label 2"])
def test_damage_is_left_out_and_listed_if_asked(restored, kind):
    config, expected, path, _ = restored
    damage, first, count, _ = DAMAGE[kind]
    damage(path)
    dataset = Dataset(dataclasses.replace(config, on_error="skip", skip_at_most=0.5))
    left = [i for i in range(8) if i not in range(first, first + count)]  # file after file
    found = read(dataset.batches(TEST, WHOLE))
    for name in ("images", "labels", "identity"):
        np.testing.assert_array_equal(found[name], expected[name][left])
    np.testing.assert_array_equal(found["index"], np.arange(len(left)))
    assert dataset.sizes == {PRIVATE: 8, PUBLIC: 8, TEST: len(left)}
    assert dataset.description["damaged"]["records"] == count
    assert str(path) in dataset.description["damaged"]["left_out"][0]


@pytest.mark.parametrize("kind", ["payload", "missing"])
def test_the_digest_depends_on_the_records_left_out(restored, kind):
    """The digest names kept embeddings."""
    config, _, path, content = restored
    skipping = dataclasses.replace(config, on_error="skip", skip_at_most=0.5)
    digests = [Dataset(skipping).digest(TEST, WHOLE)]
    for damage in (DAMAGE[kind][0], lambda p: flip(p, -2)):
        path.write_bytes(content)
        damage(path)
        digests += [Dataset(skipping).digest(TEST, WHOLE)]
    assert len(set(digests)) == 3


def test_a_file_that_changes_later_is_named(restored):
    config, _, path, _ = restored
    flip(path, -2)
    skipping = dataclasses.replace(config, on_error="skip", skip_at_most=0.5)
    dataset = Dataset(skipping)
    left_out = dataset.description["damaged"]["left_out"]
    explain(skipping, left_out)
    explain(skipping, None)
    flip(path, second(path) + 20)
    with pytest.raises(DATA_ERRORS):
        read(dataset.batches(TEST, WHOLE))
    with pytest.raises(UserError, match=r"00000-of-00002: .* has changed since the run began"):
        explain(skipping, left_out)


def test_more_damage_than_allowed_stops_it_even_so(config):
    flip(file_of(config, TEST), -2)
    skipping = dataclasses.replace(config, on_error="skip", skip_at_most=0.1)
    with pytest.raises(UserError, match=r"record 3 .*leave out more than 0\.1 of a split"):
        Dataset(skipping)
    assert Dataset(dataclasses.replace(skipping, skip_at_most=0.125)).sizes[TEST] == 7


def test_a_split_of_which_nothing_is_left_stops_it(config):
    for number in (1, 0):
        file_of(config, TEST, number).unlink()
    with pytest.raises(UserError, match="8 of 8 records are damaged"):
        Dataset(dataclasses.replace(config, on_error="skip", skip_at_most=1.0))


def test_damage_outside_of_the_part_in_use_does_not_matter(config):
    flip(file_of(config, TEST), -2)
    part = dataclasses.replace(config, test="test[:3]", on_error="skip", skip_at_most=0.0)
    assert Dataset(part).sizes[TEST] == 3


def test_nothing_damaged_leaves_all_as_it_is(config):
    dataset = Dataset(dataclasses.replace(config, on_error="skip"))
    assert not dataset.faults
    np.testing.assert_array_equal(
        read(dataset.batches(TEST, WHOLE))["images"],
        read(Dataset(config).batches(TEST, WHOLE))["images"],
    )
    explain(config, None)


def test_files_of_another_size_are_reported_before_anything_is_read(config):
    path = file_of(config, TEST)
    change(path, name=b"a name that is longer than it was")
    with pytest.raises(UserError, match=r"split test, have another size than when they were made"):
        Dataset(config)


def test_damage_of_a_further_dataset_is_reported_and_left_out(tmp_path):
    config = prepare(tmp_path)
    prepare(tmp_path, "more", blue=9, attributes=("Smiling", "Tall"))
    both = dataclasses.replace(config, extra=("more",))
    (path,) = (tmp_path / "more/1.0.0").glob("*-public.tfrecord*")
    change(path, attributes=[1, 7])  # Tall: the dataset itself hasn't that
    assert read(Dataset(both).batches(PUBLIC, WHOLE))["labels"][:, 1].tolist()[8:] == [UNKNOWN] * 24
    change(path, attributes=[7, 1])
    with pytest.raises(tf.errors.InvalidArgumentError, match="labels other than 0 and 1"):
        read(Dataset(both).batches(PUBLIC, WHOLE))
    with pytest.raises(UserError, match=r"more-public.*record 1 has labels other than 0 and 1"):
        explain(both, None)
    skipping = dataclasses.replace(both, on_error="skip", skip_at_most=0.05)
    assert Dataset(skipping).sizes[PUBLIC] == 8 + 23


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_share_what_is_left(config, workers, monkeypatch):
    change(file_of(config, PRIVATE), image=b"")
    dataset = Dataset(dataclasses.replace(config, on_error="skip", skip_at_most=0.5))
    whole = read(dataset.batches(PRIVATE, WHOLE))["images"]
    indices = []
    monkeypatch.setattr("tfadv.data.dataset.workers", lambda: workers)
    for worker in range(workers):
        monkeypatch.setattr("tfadv.data.dataset.worker", lambda worker=worker: worker)
        found = read(dataset.training_batches(PRIVATE, WHOLE, workers, seed=0).take(8))
        np.testing.assert_array_equal(found["images"], whole[found["index"]])
        indices.append({*found["index"].tolist()})
    assert set.union(*indices) == {*range(7)}
    assert sum(map(len, indices)) == 7


def test_a_run_ends_in_one_line(tmp_path, capsys):
    """At the test split, which a protect run reads last."""
    people = [(number // 4, f"{number}.png") for number in range(40)]
    config = prepare(tmp_path, shards=2, splits=dict.fromkeys((PRIVATE, PUBLIC, TEST), people))
    DAMAGE["checksum"][0](file_of(config, TEST))
    flags = [
        "--mode=protect",
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.dir={config.dir}",
        "--config.data.dataset=pictures",
        "--config.data.size=32",
        "--config.task.attributes=",
        "--config.model.depth=18",
        "--config.model.width=0.0625",
        "--config.train.steps=2",
        "--config.train.batch=4",
        "--config.baseline=False",
        "--config.loss.lambda1=0",
        "--config.runtime.precision=float32",
    ]
    assert cli.main(["run.py", *flags]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert str(file_of(config, TEST, -1).parent) in lines[-1]
    assert "record" in lines[-1]
    assert lines[-1].startswith("run.py: ")
    assert not (tmp_path / "run/metrics.json").exists()
    skip = ["--config.data.on_error=skip", "--config.data.skip_at_most=0.5"]
    elsewhere = [f"--workdir={tmp_path / 'other'}"]
    assert cli.main(["run.py", *flags, *skip, *elsewhere]) == 0
    assert "left out " in capsys.readouterr().out
    damaged = json.loads((tmp_path / "other/config.json").read_text())["dataset"]["damaged"]
    examples = json.loads((tmp_path / "other/metrics.json").read_text())["test_examples"]
    assert (damaged["records"], examples) == (1, 39)
    assert "damaged records skipped" in (tmp_path / "other/report.html").read_text()
    # Others are left out now: it would not be the same run that goes on.
    (tmp_path / "other/metrics.json").unlink()
    DAMAGE["checksum"][0](file_of(config, PRIVATE))
    assert cli.main(["run.py", *flags, *skip, *elsewhere]) == 2
    assert "skipped 1 damaged records of pictures/1.0.0, which now" in capsys.readouterr().err


@pytest.mark.parametrize("reader", READERS)
def test_any_damage_is_reported_or_does_not_matter(reader, tmp_path):
    read, _ = fuzz(reader, tmp_path, 100)
    assert 0 <= read < 100


# --- images of unusual kinds


def jpeg(image, mode):
    file = io.BytesIO()
    Image.fromarray(image).convert(mode).save(file, "JPEG", quality=95)
    return file.getvalue()


def test_an_image_in_printing_colours_is_decoded_as_by_pillow():
    image = cv2.resize(
        np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype(np.uint8), (32, 32)
    )
    encoded = jpeg(image, "CMYK")
    expected = np.array(Image.open(io.BytesIO(encoded)).convert("RGB")).astype(int)
    assert np.abs(decode_image(encoded, 32).numpy() - expected).max() <= 2


def test_an_image_of_16_bits_keeps_the_upper_8():
    image = np.random.default_rng(0).integers(0, 2**16, (32, 32, 3)).astype(np.uint16)
    found = decode_image(png(image[..., ::-1]), 32).numpy()
    assert np.abs(found - image / 257).max() <= 1


def test_the_first_image_of_an_animation_counts():
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    assert (decode_image(file.getvalue(), 32).numpy() == (255, 0, 0)).all()


@pytest.mark.parametrize("extension", [".png", ".jpg"])
def test_one_pixel_is_an_image(extension):
    encoded = cv2.imencode(extension, np.full((1, 1, 3), 90, np.uint8))[1].tobytes()
    assert (decode_image(encoded, 32).numpy() == 90).all()


PEAK = """
import resource, sys
import tensorflow as tf
from tfadv.data.images import decode_image

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

with open(sys.argv[1], "rb") as small, open(sys.argv[2], "rb") as huge:
    decode_image(small.read(), 32)
    before = peak()
    try:
        decode_image(huge.read(), 32)
    except tf.errors.InvalidArgumentError as error:
        print(peak() - before, "more pixels than" in error.message)
"""


def test_a_huge_image_takes_no_memory(tmp_path):
    """In a process of its own: a peak is that of all that was done before."""
    for name, side in (("small", 8), ("huge", 30_000)):
        (tmp_path / name).write_bytes(huge_png(side))
    assert (tmp_path / "huge").stat().st_size < 200_000
    paths = [str(tmp_path / name) for name in ("small", "huge")]
    done = subprocess.run([sys.executable, "-c", PEAK, *paths], capture_output=True, text=True)
    megabytes, is_told = done.stdout.split()
    assert int(megabytes) < 100
    assert is_told == "True"


def test_the_largest_image_allowed_is_read():
    side = int(MAX_PIXELS**0.5)
    assert (decode_image(huge_png(side), 32).numpy() == 0).all()
