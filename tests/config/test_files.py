import json
import stat

import pytest

from tfadv.config.files import atomic_write, write_json


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_place_when_the_block_ends(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with atomic_write(tmp_path / "a.txt") as partial:
        partial.write_text("new")
        assert (tmp_path / "a.txt").read_text() == "old"
    assert (tmp_path / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_a_folder_takes_the_place_of_a_folder(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/old").touch()
    with atomic_write(tmp_path / "model") as partial:
        partial.mkdir()
        (partial / "new").touch()
    assert names(tmp_path / "model") == ["new"]


def test_a_block_that_raises_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a.txt").write_text("old")

    def write_half():
        with atomic_write(tmp_path / "a.txt") as partial:
            partial.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_what_a_killed_process_left_is_replaced(tmp_path):
    (tmp_path / ".model.partial").mkdir()
    (tmp_path / ".model.partial/half").touch()
    with atomic_write(tmp_path / "model") as partial:
        partial.mkdir()
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == []


def test_two_writers_of_a_shared_file_use_different_names_and_their_owner_reads_it(tmp_path):
    with atomic_write(tmp_path / "a", is_shared=True) as partial:
        assert partial.name not in (".a.partial", "a")
        partial.write_text("1")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


def test_json_is_written_whole(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert names(tmp_path) == []
    write_json(tmp_path / "a.json", {"a": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
