import dataclasses
import json
import stat

import numpy as np
import pytest

from tests.recognizers import caffe, card, load
from tfadv.config.schema import Data
from tfadv.data.dataset import HELD_OUT, PUBLIC, TEST, TRAIN, WHOLE, Dataset
from tfadv.data.images import normalize
from tfadv.evaluation.recognition import embedding_cache
from tfadv.evaluation.recognition import recognizer as recognition
from tfadv.evaluation.recognition.embedding_cache import cache_folder, cached_embeddings


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """From a recognizer's settings to the number of images that it embedded, and the embeddings."""
    path = caffe(tmp_path / "face.caffemodel")
    embed, sizes = recognition.Recognizer.__call__, []

    def call(self, images):
        sizes.append(len(images))
        return embed(self, images)

    def run(data, split=PUBLIC, part=WHOLE, **settings):
        recognizer = load(path, **settings)
        sizes.clear()
        with monkeypatch.context() as patch:
            patch.setattr(recognition.Recognizer, "__call__", call)
            embeddings = cached_embeddings(
                recognizer, Dataset(data), split, part, tmp_path / "cache"
            )
        return sum(sizes), embeddings

    run.path, run.folder = path, tmp_path / "cache"
    return run


def test_a_split_is_embedded_in_its_order(counted, tiny_faces):
    batches = list(Dataset(tiny_faces).batches(PUBLIC, HELD_OUT).as_numpy_iterator())
    images = normalize(np.concatenate([batch["images"] for batch in batches])).numpy()
    for _ in range(2):  # computed, then read
        _, embeddings = counted(tiny_faces, part=HELD_OUT)
        for values, expected in zip(embeddings, load(counted.path)(images), strict=True):
            assert values.dtype == np.float32
            np.testing.assert_allclose(values, expected, atol=1e-6)


def test_a_split_is_embedded_once(counted, tiny_faces):
    assert counted(tiny_faces)[0] == 60
    assert counted(tiny_faces)[0] == 0


def test_only_the_owner_can_read_the_embeddings(counted, tiny_faces):
    counted(tiny_faces)
    (file,) = counted.folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "change", [{"alignment": "celeba"}, {"layer": "face"}, {"split": TEST}, {"part": TRAIN}]
)
def test_another_setting_is_computed_anew(counted, tiny_faces, change):
    counted(tiny_faces)
    assert counted(tiny_faces, **change)[0] > 0
    assert counted(tiny_faces)[0] == 0


def test_another_size_of_the_images_is_computed_anew(counted, tiny_faces):
    counted(tiny_faces)
    assert counted(dataclasses.replace(tiny_faces, size=64))[0] == 60


def test_another_held_out_share_is_computed_anew_except_for_the_whole_split(counted, tiny_faces):
    other = dataclasses.replace(tiny_faces, held_out=0.4)
    for part, expected in ((WHOLE, False), (HELD_OUT, True), (TRAIN, True)):
        counted(tiny_faces, part=part)
        assert bool(counted(other, part=part)[0]) == expected


def test_another_content_of_the_recognizers_files_is_computed_anew(counted, tiny_faces):
    counted(tiny_faces)
    content = counted.path.read_bytes()
    counted.path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert counted(tiny_faces)[0] == 60
    prototxt = counted.path.with_suffix(".prototxt")
    prototxt.write_text(prototxt.read_text() + "\n")
    assert counted(tiny_faces)[0] == 60
    card(counted.path, mean=100)
    assert counted(tiny_faces)[0] == 60
    card(counted.path, mean=101)
    assert counted(tiny_faces)[0] == 60
    assert counted(tiny_faces)[0] == 0


def test_another_content_of_the_records_is_computed_anew(counted, tmp_path):
    from data_prep import synthetic

    for seed in (0, 1):
        flags = synthetic.define_flags()
        size = ["--identities=6", "--pictures=1", "--size=32"]
        flags(["", f"--data_dir={tmp_path}", f"--seed={seed}", *size])
        synthetic.main(flags)
    first, second = (tmp_path / f"synthetic/6x1_32px_seed{seed}/1.0.0" for seed in (0, 1))
    data = Data(dir=str(tmp_path), dataset="synthetic/6x1_32px_seed0", size=32)
    _, before = counted(data)
    (records,) = first.glob("*-public*")
    records.write_bytes((second / records.name).read_bytes())
    path = first / "dataset_info.json"
    info = json.loads(path.read_text())
    (public,) = (split for split in info["splits"] if split["name"] == "public")
    public["numBytes"] = str(records.stat().st_size)
    path.write_text(json.dumps(info))
    computed, after = counted(data)
    assert computed
    assert not np.allclose(before.inner, after.inner)


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "other", "fewer"])
def test_a_damaged_file_is_computed_again(counted, tiny_faces, damage):
    _, before = counted(tiny_faces)
    (file,) = counted.folder.iterdir()
    content = file.read_bytes()
    if damage == "other":
        np.savez(file, nothing=np.zeros(3))
    elif damage == "fewer":
        np.savez(file, embedding=before.embedding[1:], inner=before.inner[1:])
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
        file.write_bytes({"empty": b"", "cut": content[:middle], "flipped": flipped}[damage])
    computed, after = counted(tiny_faces)
    assert computed == 60
    np.testing.assert_array_equal(after.embedding, before.embedding)
    assert counted(tiny_faces)[0] == 0


def test_an_interruption_leaves_no_file(counted, tiny_faces, monkeypatch):
    def savez(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(embedding_cache.np, "savez", savez)
    with pytest.raises(KeyboardInterrupt):
        counted(tiny_faces)
    assert not list(counted.folder.iterdir())


def test_a_long_computation_shows_progress(tiny_faces, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(embedding_cache, "_SILENT_S", -1)
    recognizer = load(caffe(tmp_path / "face.caffemodel"))
    cached_embeddings(recognizer, Dataset(tiny_faces), PUBLIC, WHOLE, tmp_path)
    assert "face on public images  60/60" in capsys.readouterr().err
    cached_embeddings(recognizer, Dataset(tiny_faces), PUBLIC, WHOLE, tmp_path)
    assert not capsys.readouterr().err


def test_embeddings_are_kept_in_the_runs_folder_if_the_data_cannot_be_written_to(
    tmp_path, monkeypatch
):
    run = tmp_path / "run"
    assert cache_folder(str(tmp_path), run) == tmp_path / "embeddings"
    assert cache_folder("gs://bucket/data", run) == run / "embeddings"
    monkeypatch.setattr(embedding_cache.os, "access", lambda path, mode: False)
    assert cache_folder(str(tmp_path), run) == run / "embeddings"
