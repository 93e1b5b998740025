"""Input damaged by a seeded draw: each reader says what is wrong, or reads what is whole.

    python -m tests.fuzz [--inputs=200000] [--seed=0] [--readers=records,examples,...]

The inputs are shared among the readers. Tests run a few hundred of each.
"""

import argparse
import csv
import dataclasses
import io
import os
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import tensorflow as tf
from etils import epath

from data_prep import celeba, folder, ms_celeb_1m, packings, recordio
from tests.data_prep import packed_faces
from tests.datasets import prepare
from tfadv import cli
from tfadv.config import validation
from tfadv.config.errors import UserError, one_line
from tfadv.config.fields import flatten
from tfadv.config.schema import Config
from tfadv.data.corruption import Examiner
from tfadv.data.dataset import TEST
from tfadv.data.images import decode_images
from tfadv.data.records import Records

TOKENS = [
    *(b"0", b"1", b"-1", b"2", b"256", b"1e3", b"1_0", b"nan", b"inf", b"+1", b"01", b"-"),
    *("²".encode(), "٣".encode(), "\u2028".encode(), b"\xff\xfe", b"\x00", b"\x0b", b"\x1c"),
    *(b"9" * 19, b"9" * 400, b"9" * 5000, b"\t", b" ", b"  ", b"\n", b"\r", b"\r\n", b"\n\n"),
    *(b",", b'"', b'""', b"'", b"#", b"=", b"../", b"/", b"\xef\xbb\xbf"),
]


def damage(content, rng):
    """Returns bytes of which a few places were changed, cut out, doubled or filled."""
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        at, length = rng.integers(len(content) + 1), int(2 ** rng.uniform(0, 8))
        before, some, after = content[:at], content[at : at + length], content[at + length :]
        match rng.integers(8):
            case 0 if some:
                content = before + bytes([some[0] ^ 1 << rng.integers(8)]) + some[1:] + after
            case 1:
                content = before + rng.bytes(len(some)) + after
            case 2:
                content = before + after
            case 3:
                content = before + some + some + after
            case 4:
                content = before
            case 5:
                content = before + TOKENS[rng.integers(len(TOKENS))] + some + after
            case 6 if some:
                content = before + TOKENS[rng.integers(len(TOKENS))] + some[1:] + after
            case 7:
                other = rng.integers(len(content) + 1)
                content = before + content[other : other + length] + after
    return content


def face(number):
    """Returns a small JPEG or PNG."""
    noise = np.random.default_rng(number).integers(0, 256, (12, 9, 3), np.uint8)
    return cv2.imencode((".png", ".jpg")[number % 2], noise)[1].tobytes()


class RecordFiles:
    """A damaged record file: what is used of it are records as they were written."""

    def __init__(self, root):
        config = prepare(root)
        split = Records(config, config.dataset).split(TEST, TEST)
        self.parse, (self.file,) = split.parse, split.files
        self.examiner = Examiner(self.parse, [0, 1], 8)
        self.path = Path(self.file.filename)
        self.content = self.path.read_bytes()
        self.whole = {each.numpy() for each in tf.data.TFRecordDataset(str(self.path))}

    def read(self, rng):
        self.path.write_bytes(damage(self.content, rng))
        is_sound, faults = self.examiner.examine(self.file)
        records = tf.data.TFRecordDataset(str(self.path)).take(len(is_sound))
        used = [record.numpy() for record, sound in zip(records, is_sound, strict=True) if sound]
        assert self.whole.issuperset(used)
        lost = [i for fault in faults for i in range(fault.first, fault.first + fault.count)]
        assert len(lost) + len(used) == self.file.take
        assert sorted(set(lost)) == lost
        return not lost


class Examples(RecordFiles):
    """A damaged example with right checksums: if it is used, it decodes and its labels are 0/1.

    The image is damaged as often as the rest of the example.
    """

    def __init__(self, root):
        super().__init__(root)
        self.file = dataclasses.replace(self.file, take=1, examples_in_shard=1)
        self.example = tf.train.Example.FromString(min(self.whole))

    def read(self, rng):
        image = face(rng.integers(4))
        if damages_image := rng.random() < 0.5:
            image = damage(image, rng)
        self.example.features.feature["image"].bytes_list.value[:] = [image]
        record = self.example.SerializeToString(deterministic=True)
        if not damages_image:
            record = damage(record, rng)
        with tf.io.TFRecordWriter(str(self.path)) as writer:
            writer.write(record)
        _, faults = self.examiner.examine(self.file)
        if faults:
            return False
        found = self.parse(tf.constant([record]))
        assert found["labels"].shape == (1, 2)
        assert np.isin(found["labels"], (0, 1)).all()
        assert decode_images(found["image"], 8).shape == (1, 8, 8, 3)
        return True


class CelebaLists:
    """One of CelebA's lists: what is read is what a plain reading of its lines says."""

    def __init__(self, root):
        self.root = epath.Path(root)
        names = [f"{i + 1:06d}.jpg" for i in range(6)]
        (root / celeba.IMAGES).mkdir()
        for i, name in enumerate(names):
            (root / celeba.IMAGES / name).write_bytes(face(2 * i + 1))
        values = np.random.default_rng(0).choice([-1, 1], (len(names), 40))
        rows = zip(names, values, strict=True)
        lines = [f"{name} {' '.join(f'{v:2d}' for v in row)}" for name, row in rows]
        lists = {
            celeba.ATTRIBUTES: [str(len(names)), " ".join(celeba.ATTRIBUTE_NAMES), *lines],
            celeba.IDENTITIES: [f"{name} {100 + i // 2}" for i, name in enumerate(names)],
            celeba.PARTITION: [f"{name} {i % 3}" for i, name in enumerate(names)],
        }
        self.content = {
            name: "".join(f"{line}\n" for line in lines).encode() for name, lines in lists.items()
        }
        for name, content in self.content.items():
            (root / name).write_bytes(content)

    def read(self, rng):
        name = rng.choice([*self.content])
        content = damage(self.content[name], rng)
        (self.root / name).write_bytes(content)
        try:
            found = celeba.read_source(self.root, "official", skip=rng.random() < 0.5)
        except UserError:
            return False
        finally:
            (self.root / name).write_bytes(self.content[name])
        assert all(is_inside(name) for name in found.names)
        lines = [line.split() for line in content.decode("utf-8", "replace").splitlines()]
        said = {line[0]: [*map(int, line[1:])] for line in lines if line[1:] and is_row(line)}
        for i, image in enumerate(found.names):
            if name == celeba.ATTRIBUTES:
                assert ((found.attributes[i] > 0) == (np.array(said[image]) == 1)).all()
            elif name == celeba.IDENTITIES:
                assert [found.identities[i]] == said[image]
            else:
                assert [found.partition[i]] == said[image]
        return True


def is_inside(name):
    """Whether a name leads to an image of the source's own folder, if to any."""
    return os.path.normpath(f"/source/{name}").startswith("/source") and "\0" not in name


def is_row(words):
    """Whether all but the first are whole numbers."""
    return all(word.removeprefix("-").removeprefix("+").isdecimal() for word in words[1:])


class FolderCsv:
    """A folder's CSV: what is read is what its cells say."""

    def __init__(self, root):
        self.root = epath.Path(root)
        names = [f"{i}.png" for i in range(6)]
        for i, name in enumerate(names):
            (root / name).write_bytes(face(2 * i))
        rows = [f'{name},{i % 2},"{i // 3}",p{i // 2}' for i, name in enumerate(names)]
        self.content = "".join(f"{row}\n" for row in ["file,Smiling,Male,who", *rows]).encode()
        self.config = folder.FolderConfig(name="fuzz", identity_column="who")

    def read(self, rng):
        content = damage(self.content, rng)
        (self.root / "labels.csv").write_bytes(content)
        try:
            columns = folder.read_attribute_names(self.root, self.config)
            found = folder.read_source(self.root, self.config, skip=rng.random() < 0.5)
        except UserError:
            return False
        assert all(is_inside(name) for name in found.names)
        text = io.StringIO(content.decode("utf-8-sig"), newline="")
        header, *rows = csv.reader(text, skipinitialspace=True)
        header = [cell.strip() for cell in header]
        rows = [dict(zip(header, map(str.strip, row), strict=True)) for row in rows if row]
        said = [[row[column] == "1" for column in columns] for row in rows]
        assert (found.attributes == np.array(said, np.uint8).reshape(len(rows), -1)).all()
        assert [*found.names] == [row[header[0]] for row in rows]
        for one, its_row in zip(found.identities, rows, strict=True):
            for other, other_row in zip(found.identities, rows, strict=True):
                is_known = bool(its_row["who"] and other_row["who"])
                is_same = is_known and its_row["who"] == other_row["who"]
                assert (one == other and one >= 0) == is_same
        return True


class Packed:
    """A file of MS-Celeb-1M: images drawn from it decode, and each has a person and a name.

    Half of the time its lines and records may be damaged: those have no image.
    """

    packing, names = None, ()

    def __init__(self, root):
        self.paths = [root / name for name in self.names]
        self.write()
        self.content = [path.read_bytes() for path in self.paths]

    def read(self, rng):
        which = rng.integers(len(self.paths))
        self.paths[which].write_bytes(damage(self.content[which], rng))
        try:
            file, skip = self.packing(epath.Path(self.paths[0])), rng.random() < 0.5
            drawn = ms_celeb_1m.sample(file, 4, seed=0, skip=skip)
            assert len(drawn.names) == len(drawn.identities) == 4
            left_out = [i for i in range(4) if not self.is_whole(drawn, i)]
        except UserError:
            return False
        finally:
            self.paths[which].write_bytes(self.content[which])
        assert skip or drawn.identities.min() == 0
        assert set(np.flatnonzero(drawn.identities < 0)) <= set(left_out)
        return not left_out

    def is_whole(self, drawn, index):
        """Whether an image can be read; it decodes then."""
        try:
            encoded = drawn.image(index)
        except UserError:
            return False
        assert cv2.imdecode(np.frombuffer(encoded, np.uint8), 0) is not None
        return True


class Tsv(Packed):
    """The release's own file."""

    packing, names = packings.TsvFile, ("faces.tsv",)

    def write(self):
        rows = [packed_faces.row(f"m.{i // 2}", i, face(i)) for i in range(6)]
        packed_faces.write_tsv(self.paths[0], rows)


class RecordIo(Packed):
    """InsightFace's files."""

    packing, names = packings.RecordFile, ("train.rec", "train.idx")

    def write(self):
        people = [[face(3 * who + i) for i in range(3)] for who in range(2)]
        packed_faces.write_records(self.paths[0], packed_faces.insightface(people))


class Unpacked:
    """A record of MXNet's: read, or told."""

    def __init__(self, root):
        self.content = packed_faces.record(packed_faces.packed((1.0, 2.0), face(1), 1))

    def read(self, rng):
        try:
            record = recordio.read_record(io.BytesIO(damage(self.content, rng)), 0)
            labels, _ = recordio.unpack(record)
        except UserError:
            return False
        return bool(labels)


class CommandLine:
    """Config fields set to anything: told by a name or an argument that was given, or all valid."""

    fields = tuple(flatten(Config()))
    values = (
        *(
            "0",
            "1",
            "2",
            "-1",
            "0.5",
            "1e400",
            "1e-400",
            "nan",
            "inf",
            "-inf",
            "1_0",
            "0x10",
            "1e3",
        ),
        *(
            "",
            " ",
            "True",
            "False",
            "None",
            "abc",
            "a,b",
            "a,a",
            ",",
            "[1]",
            "(1,)",
            "'",
            '"',
            "--x",
        ),
        *(
            "9" * 20,
            "9" * 5000,
            "²",
            "\0",
            "\x1b[2J",
            "\udcff",
            "a\nb",
            "../..",
            "fc",
            "conv4",
            "18",
        ),
        *(
            "skip",
            "mirrored",
            "float32",
            "small",
            "test",
            "public",
            "private[:10]",
            "test[:0]",
            "64",
        ),
    )

    def __init__(self, root):
        self.arguments = ["run.py", "--mode=protect", f"--workdir={root / 'run'}"]

    def read(self, rng):
        given, names = [], []
        for _ in range(rng.choice([1, 1, 2, 3, 5])):
            name = self.fields[rng.integers(len(self.fields))]
            if rng.random() < 0.1:
                name = damage(name.encode(), rng).decode("utf-8", "surrogateescape")
            names.append(name.partition("=")[0])
            value = self.values[rng.integers(len(self.values))]
            dashes = ("--config.", "--config.", "--config.", "-config.", "--noconfig.")
            argument = dashes[rng.integers(len(dashes))] + name
            given.append(argument if rng.random() < 0.1 else f"{argument}={value}")
        try:
            command = cli.parse([*self.arguments, *given])
        except (UserError, OSError) as error:  # of names too long for a file
            told = one_line(str(error))
            leaves = [name.rpartition(".")[2] for name in names]
            assert any(one_line(each)[:200] in told for each in (*given, *names, *leaves)), given
            return False
        if command is not None:
            validation.validate(command.config)
        return True


READERS = {
    "config": CommandLine,
    "records": RecordFiles,
    "examples": Examples,
    "celeba": CelebaLists,
    "csv": FolderCsv,
    "tsv": Tsv,
    "recordio": RecordIo,
    "unpack": Unpacked,
}


def fuzz(name, root, count, seed=0):
    """Reads damaged inputs; returns how many were read, and seconds of the slowest.

    Each input has a generator of its own, so that one that fails can be made again.
    """
    reader, whole, slowest = READERS[name](Path(root)), 0, 0.0
    for i in range(count):
        began = time.monotonic()
        try:
            whole += reader.read(np.random.default_rng((seed, i)))
        except BaseException as error:
            error.add_note(f"{name}: input {i} of seed {seed}")
            raise
        slowest = max(slowest, time.monotonic() - began)
    return whole, slowest


def main(arguments):
    """Fuzzes each reader in turn and prints what came of it."""
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", default=",".join(READERS))
    options = parser.parse_args(arguments)
    names = options.readers.split(",")
    for name in names:
        count = -(-options.inputs // len(names))
        with tempfile.TemporaryDirectory() as root:
            whole, slowest = fuzz(name, root, count, options.seed)
        said = f"{whole:,} read, {count - whole:,} told, the slowest in {slowest:.3f} s"
        print(f"{name}: {count:,} inputs: {said}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
