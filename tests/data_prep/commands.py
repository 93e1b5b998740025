"""The commands of data_prep on small sources of each kind."""

import json
import sys

from data_prep import celeba, command, folder, ms_celeb_1m, synthetic
from tests.data_prep import packed_faces, test_celeba

PEOPLE = 6


def run(module, *arguments):
    """Runs a command in this process; returns what `sys.exit` was given."""
    values, old = module.define_flags(), sys.argv
    sys.argv = [module.__name__, *map(str, arguments)]
    try:
        command.run(module.main, values)
    except SystemExit as end:
        return end.code
    finally:
        sys.argv = old
    return 0


def write_folder(path):
    for person in range(PEOPLE):
        (path / f"person {person}").mkdir(parents=True)
        for i in range(4):
            (path / f"person {person}/{i}.jpg").write_bytes(test_celeba.encode(10 * person + i))


def write_packed(path):
    faces = [[packed_faces.face(person, i) for i in range(4)] for person in range(PEOPLE)]
    path.mkdir()
    packed_faces.write_records(path / "train.rec", packed_faces.insightface(faces))


def write_tsv(path):
    path.mkdir()
    packed_faces.write_tsv(
        path / "FaceImageCroppedWithAlignment.tsv",
        [
            packed_faces.row(f"m.{person}", i, packed_faces.face(person, i))
            for person in range(PEOPLE)
            for i in range(4)
        ],
    )


SOURCES = {
    "celeba": (celeba, test_celeba.write_celeba, ["--shares=0.5,0.3,0.2"]),
    "folder": (folder, write_folder, ["--shares=0.5,0.3,0.2"]),
    "records": (ms_celeb_1m, write_packed, ["--pictures=20"]),
    "tsv": (ms_celeb_1m, write_tsv, ["--pictures=20"]),
    "drawn": (synthetic, None, ["--identities=12", "--pictures=3", "--size=16"]),
}


def contents(path):
    """The files of a dataset, and what it says of itself but for where it is and when."""
    found = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    told = {
        name: json.loads(found.pop(name).read_text())
        for name in list(found)
        if name.endswith(("dataset_info.json", "metadata.json"))
    }
    return {name: file.read_bytes() for name, file in found.items()}, told
