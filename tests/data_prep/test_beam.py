"""Every command with `--beam`, on Beam's own runner for one machine, compared with it without."""

import sys

import pytest

from data_prep import builder, celeba, command, synthetic
from tests.data_prep.commands import SOURCES, contents, run

pytest.importorskip("apache_beam", reason="apache-beam isn't installed")


@pytest.mark.parametrize("name", SOURCES)
def test_the_same_bytes_and_splits_come_out(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(builder, "IMAGES_PER_SHARD", 4)
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
    monkeypatch.setattr(builder, "IMAGES_PER_SHARD", 4)
    module, write, arguments = SOURCES["folder"]
    write(tmp_path / "source")
    arguments = [*arguments, f"--source={tmp_path / 'source'}"]
    options = "--direct_running_mode=multi_processing --direct_num_workers=2"
    ways = {"plain": [], "beam": [f"--beam_options={options}"]}
    for way, flags in ways.items():
        assert run(module, *arguments, f"--data_dir={tmp_path / way}", *flags) == 0
    assert contents(tmp_path / "plain") == contents(tmp_path / "beam")


def break_images(path):
    (path / celeba.IMAGES / "000003.jpg").write_bytes(b"no image")
    (path / celeba.IMAGES / "000014.jpg").unlink()


def test_broken_and_missing_images_are_counted_and_listed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(builder, "IMAGES_PER_SHARD", 2)
    module, write, _ = SOURCES["celeba"]
    write(tmp_path / "source")
    break_images(tmp_path / "source")
    common = [f"--source={tmp_path / 'source'}", "--shares=0.8,0.1,0.1", "--on_error=skip"]
    for way, flags in {"plain": [], "beam": ["--beam"]}.items():
        assert run(module, *common, *flags, f"--data_dir={tmp_path / way}") == 0
        assert "skipped 2 broken images: 0000" in capsys.readouterr().out
    (plain, plain_told), (beam, beam_told) = (contents(tmp_path / way) for way in ("plain", "beam"))
    assert plain == beam
    assert plain_told == beam_told
    (listed,) = (name for name in beam if name.endswith(builder.SKIPPED_FILE))
    told = dict(line.split("\t") for line in beam[listed].decode().splitlines())
    assert set(told) == {"000003.jpg", "000014.jpg"}
    assert "is neither a JPEG nor a PNG image" in told["000003.jpg"]
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


def damage_tsv(path):
    path = path / "FaceImageCroppedWithAlignment.tsv"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:4], lines[4].replace(b"\t", b" "), *lines[5:-1]]))
    with path.open("ab") as file:
        file.write(lines[-1][:-40])


def damage_records(path):
    path = path / "train.rec"
    rows = path.with_suffix(".idx").read_text().splitlines()
    with path.open("r+b") as file:
        for number in (5, 24):
            file.seek(int(rows[number].split("\t")[1]))
            file.write(b"PK")


@pytest.mark.parametrize(
    ("name", "damage", "names"),
    [
        ("tsv", damage_tsv, {"line 5", "m.5/3-FaceId-0.jpg"}),
        ("records", damage_records, {"record 5", "record 24"}),
    ],
)
def test_damaged_lines_and_records_are_counted_and_listed(
    name, damage, names, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(builder, "IMAGES_PER_SHARD", 4)
    module, write, _ = SOURCES[name]
    write(tmp_path / "source")
    damage(tmp_path / "source")
    common = [f"--source={tmp_path / 'source'}", "--pictures=24", "--on_error=skip"]
    for way, flags in {"plain": [], "beam": ["--beam"]}.items():
        assert run(module, *common, *flags, f"--data_dir={tmp_path / way}") == 0
        assert "skipped 2 broken images: " in capsys.readouterr().out
    assert contents(tmp_path / "plain") == contents(tmp_path / "beam")
    files, _ = contents(tmp_path / "beam")
    (listed,) = (each for each in files if each.endswith(builder.SKIPPED_FILE))
    assert {line.split("\t")[0] for line in files[listed].decode().splitlines()} == names


@pytest.mark.parametrize("flags", [[], ["--beam"]], ids=["plain", "beam"])
def test_a_broken_image_stops_it_and_nothing_is_left(flags, tmp_path, capsys):
    module, write, arguments = SOURCES["celeba"]
    write(tmp_path / "source")
    (tmp_path / "source" / celeba.IMAGES / "000003.jpg").write_bytes(b"no image")
    flags = [*arguments, *flags, f"--source={tmp_path / 'source'}", f"--data_dir={tmp_path / 'd'}"]
    assert run(module, *flags) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("error: ")
    assert told.endswith("000003.jpg: is neither a JPEG nor a PNG image")
    assert not [path for path in (tmp_path / "d").rglob("*") if "tfrecord" in path.name]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--runner=NoSuchRunner", "Unexpected pipeline runner: NoSuchRunner. Valid values are"),
        ("--runner=no_such.Runner", "No module named 'no_such'"),
        ("--runner=os.NoSuchRunner", "module 'os' has no attribute 'NoSuchRunner'"),
        ("--runner='DirectRunner", "No closing quotation"),
        ("--direct_num_workers=abc", "argument --direct_num_workers: invalid int value: 'abc'"),
        ("--direct_num_workers", "argument --direct_num_workers: expected one argument"),
        ("--nonsense=3", "DirectRunner has no option '--nonsense=3'"),
        ("--runer=DataflowRunner --project=mine", "has no option '--runer=DataflowRunner'"),
        ("runner=DirectRunner", "DirectRunner has no option 'runner=DirectRunner': write options"),
        ("--help", "give a pipeline's options, not --help"),
        ("-h", "give a pipeline's options, not --help"),
        ("--help=3", "argument -h/--help: ignored explicit argument '3'"),
        ("--direct_running_mode=both", "argument --direct_running_mode: invalid choice: 'both'"),
    ],
)
def test_a_mistake_in_beams_options_is_one_line_and_exit_code_2(options, message, tmp_path, capfd):
    assert run(synthetic, f"--beam_options={options}", f"--data_dir={tmp_path / 'data'}") == 2
    out, err = capfd.readouterr()
    assert not out
    assert err.startswith("error: --beam_options: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_options_that_a_server_may_know_are_left_to_it():
    values = synthetic.define_flags()
    values(["", "--beam_options=--runner=flink --parallelism=8 --new=1 --other -3 --third 4 --on"])
    options = command.beam_options(values).get_all_options(retain_unknown_options=True)
    assert (options["runner"], options["parallelism"], options["new"]) == ("flink", 8, "1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--runner=FlinkRunner --flink_job_server_jar=file:///no.jar", "Unable to fetch remote jo"),
        ("--runner=FlinkRunner --flink_job_server_jar=/no.jar", "Unable to parse jar URL"),
        ("--runner=PortableRunner", "You must specify a --job_endpoint"),
    ],
)
def test_a_runner_that_does_not_start_is_one_line_and_exit_code_2(
    options, message, tmp_path, capsys
):
    flags = ["--identities=12", "--pictures=3", "--size=16", f"--data_dir={tmp_path / 'data'}"]
    options = f"{options} --jar_cache_dir={tmp_path}"
    assert run(synthetic, *flags, f"--beam_options={options}") == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert "error: --beam_options: " in told
    assert message in told
    assert not [path for path in (tmp_path / "data").rglob("*") if "tfrecord" in path.name]


def test_any_other_error_on_the_direct_runner_keeps_its_traceback(tmp_path, monkeypatch):
    def fail(*args):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(synthetic.SyntheticFaces, "example", fail)
    with pytest.raises(Exception, match="a bug"):
        run(synthetic, "--identities=12", "--size=16", f"--data_dir={tmp_path}", "--beam")


def test_without_beam_installed_the_flag_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.setitem(sys.modules, "apache_beam.options.pipeline_options", None)
    assert run(synthetic, "--beam", f"--data_dir={tmp_path}") == 2
    assert "--beam needs apache-beam: pip install" in capsys.readouterr().err
