"""Sources and datasets in object storage: TensorFlow's file system in memory stands in for it."""

import numpy as np
import pytest
import tensorflow as tf
from etils import epath
from etils.epath import gpath, register

from tests.data_prep.commands import SOURCES, contents, run
from tfadv.config import validation
from tfadv.config.schema import Data
from tfadv.data.dataset import TEST, WHOLE, Dataset


@pytest.fixture
def bucket(monkeypatch, request):
    """A folder in memory; what etils lets through of gs:// and s3:// it now does of ram://."""
    monkeypatch.setattr(gpath, "_URI_PREFIXES", (*gpath._URI_PREFIXES, "ram://"))
    monkeypatch.setattr(gpath, "_URI_SCHEMES", gpath._URI_SCHEMES | {"ram"})
    monkeypatch.setitem(gpath._URI_MAP_ROOT, "ram://", "/ram/")
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "ram", gpath._PREFIX_TO_BACKEND["gs"])
    register.register_path_cls("ram://")(gpath.PosixGPath)
    plain = tf.io.gfile.rename

    def rename(source, target, overwrite=False):
        # In memory the files of a folder stay where they are; with gs:// TensorFlow moves each.
        for folder, _, names in list(tf.io.gfile.walk(source)):
            for name in names:
                there = folder.rstrip("/").replace(source.rstrip("/"), target.rstrip("/"))
                tf.io.gfile.makedirs(there)
                plain(f"{folder}/{name}", f"{there}/{name}")
        if tf.io.gfile.isdir(source):
            tf.io.gfile.rmtree(source)
        else:
            plain(source, target, overwrite)

    monkeypatch.setattr(tf.io.gfile, "rename", rename)
    return f"ram://{request.node.name.replace('[', '-').strip(']')}"


def upload(local, remote):
    for path in local.rglob("*"):
        if path.is_file():
            there = epath.Path(remote) / path.relative_to(local).as_posix()
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(path.read_bytes())


@pytest.mark.parametrize("name", ["celeba", "folder", "records", "tsv", "drawn"])
def test_sources_are_read_from_and_datasets_written_to_it(name, tmp_path, bucket):
    module, write, arguments = SOURCES[name]
    local, remote = [*arguments], [*arguments]
    if write:
        write(tmp_path / "source")
        upload(tmp_path / "source", f"{bucket}/source")
        local.append(f"--source={tmp_path / 'source'}")
        remote.append(f"--source={bucket}/source")
    assert run(module, *local, f"--data_dir={tmp_path / 'data'}") == 0
    assert run(module, *remote, f"--data_dir={bucket}/data") == 0
    here, _ = contents(tmp_path / "data")
    for file, expected in here.items():
        assert (epath.Path(bucket) / "data" / file).read_bytes() == expected


def test_a_dataset_there_is_read_as_one_here(tmp_path, bucket):
    module, write, arguments = SOURCES["celeba"]
    write(tmp_path / "source")
    flags = [*arguments, f"--source={tmp_path / 'source'}"]
    batches = []
    for place in (str(tmp_path / "data"), f"{bucket}/data"):
        assert run(module, *flags, f"--data_dir={place}") == 0
        config = Data(dir=place, dataset="celeba/identity_50_30_20", size=32)
        validation.check_dataset(config)
        batches.append(next(Dataset(config).batches(TEST, WHOLE).as_numpy_iterator()))
    here, there = batches
    assert len(here["images"]) >= 4
    for name, expected in here.items():
        np.testing.assert_array_equal(there[name], expected)
