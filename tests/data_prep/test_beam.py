"""Every command with `--beam`, on Beam's own runner for one machine, compared with it without."""

import sys

import pytest

from data_prep import builder, celeba, synthetic
from tests.data_prep.commands import SOURCES, contents, run

pytest.importorskip("apache_beam", reason="apache-beam isn't installed")


@pytest.mark.parametrize("name", SOURCES)
def test_the_same_bytes_and_splits_come_out(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(builder, "PICTURES_PER_SHARD", 4)
    module, write, arguments = SOURCES[name]
    if write:
        write(tmp_path / "source")
        arguments = [*arguments, f"--source={tmp_path / 'source'}"]
    printed = []
    for way, flags in {"plain": [], "beam": ["--beam"]}.items():
        assert run(module, *arguments, f"--data_dir={tmp_path / way}", *flags) == 0
        printed.append(capsys.readouterr().out.replace(str(tmp_path / way), ""))
    assert printed[0] == printed[1]
    (plain, plain_told), (beam, beam_told) = (contents(tmp_path / way) for way in ("plain", "beam"))
    assert len([file for file in plain if "tfrecord" in file]) > 3
    assert plain == beam
    assert plain_told == beam_told


def test_work_is_shared_among_processes_if_beams_options_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "PICTURES_PER_SHARD", 4)
    module, write, arguments = SOURCES["folder"]
    write(tmp_path / "source")
    arguments = [*arguments, f"--source={tmp_path / 'source'}"]
    options = "--direct_running_mode=multi_processing --direct_num_workers=2"
    ways = {"plain": [], "beam": [f"--beam_options={options}"]}
    for way, flags in ways.items():
        assert run(module, *arguments, f"--data_dir={tmp_path / way}", *flags) == 0
    assert contents(tmp_path / "plain") == contents(tmp_path / "beam")


def break_pictures(path):
    (path / celeba.PICTURES / "000003.jpg").write_bytes(b"no picture")
    (path / celeba.PICTURES / "000014.jpg").unlink()


def test_broken_and_missing_pictures_are_counted_and_listed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(builder, "PICTURES_PER_SHARD", 2)
    module, write, _ = SOURCES["celeba"]
    write(tmp_path / "source")
    break_pictures(tmp_path / "source")
    common = [f"--source={tmp_path / 'source'}", "--shares=0.8,0.1,0.1", "--on_error=skip"]
    for way, flags in {"plain": [], "beam": ["--beam"]}.items():
        assert run(module, *common, *flags, f"--data_dir={tmp_path / way}") == 0
        assert "skipped 2 broken pictures: 0000" in capsys.readouterr().out
    (plain, plain_told), (beam, beam_told) = (contents(tmp_path / way) for way in ("plain", "beam"))
    assert plain == beam
    assert plain_told == beam_told
    (listed,) = (name for name in beam if name.endswith(builder.SKIPPED_FILE))
    told = dict(line.split("\t") for line in beam[listed].decode().splitlines())
    assert set(told) == {"000003.jpg", "000014.jpg"}
    assert "is neither a JPEG nor a PNG picture" in told["000003.jpg"]
    assert "can't be read: No such file" in told["000014.jpg"]
    assert not [name for name in beam if "notes" in name or "shard_infos" in name]
    # More than ten files, not all as long: a part of a split is where it says.
    made = celeba.Celeba(
        config=builder.SplitConfig(name="identity_80_10_10"), data_dir=tmp_path / "beam"
    )
    assert len(made.info.splits["private"].shard_lengths) > 10
    assert len(set(made.info.splits["private"].shard_lengths)) > 1
    for part, count in {"private[:12]": 12, "private[12:]": None}.items():
        found = [e["name"] for e in made.as_dataset(split=part).as_numpy_iterator()]
        assert len(found) == (count or made.info.splits["private"].num_examples - 12)


@pytest.mark.parametrize("flags", [[], ["--beam"]], ids=["plain", "beam"])
def test_a_broken_picture_stops_it_and_nothing_is_left(flags, tmp_path, capsys):
    module, write, arguments = SOURCES["celeba"]
    write(tmp_path / "source")
    (tmp_path / "source" / celeba.PICTURES / "000003.jpg").write_bytes(b"no picture")
    flags = [*arguments, *flags, f"--source={tmp_path / 'source'}", f"--data_dir={tmp_path / 'd'}"]
    assert run(module, *flags) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("error: ")
    assert told.endswith("000003.jpg: is neither a JPEG nor a PNG picture")
    assert not [path for path in (tmp_path / "d").rglob("*") if "tfrecord" in path.name]


def test_without_beam_installed_the_flag_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.setitem(sys.modules, "apache_beam.options.pipeline_options", None)
    assert run(synthetic, "--beam", f"--data_dir={tmp_path}") == 2
    assert "--beam needs apache-beam: pip install" in capsys.readouterr().err
