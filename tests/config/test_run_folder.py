import dataclasses
import json
import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy
import pytest

from tfadv.config import run_folder
from tfadv.config.errors import UserError
from tfadv.config.fields import flatten
from tfadv.config.run_folder import RunFolder
from tfadv.config.schema import Audit, Config, Data, Loss, Task, Train

DATASET = {"name": "faces/1.0.0", "splits": {"private": 3, "public": 2, "test": 1}}


@pytest.fixture
def begun(tmp_path):
    """The folder of an unfinished run that has a checkpoint."""
    run = RunFolder(tmp_path / "runs" / "demo", "protect", Config())
    run.begin(dataset=DATASET)
    (run.path / "checkpoints").mkdir()
    return run


def test_nothing_is_written_before_the_run_begins(tmp_path):
    RunFolder(tmp_path / "run", "protect", Config())
    assert not list(tmp_path.iterdir())


def test_a_second_run_in_a_folder_is_refused_and_a_killed_one_frees_the_lock(tmp_path):
    code = (
        "import sys, time\nfrom tfadv.config.schema import Config\n"
        "from tfadv.config.run_folder import RunFolder\n"
        "with RunFolder(sys.argv[1], 'protect', Config()).locked():\n"
        "    print('in', flush=True)\n    time.sleep(60)"
    )
    folder = tmp_path / "run"
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "in\n"
        message = rf"is in use by process {other.pid} on {platform.node()}, since 20.*; wait for it"
        with (
            pytest.raises(UserError, match=message),
            RunFolder(folder, "protect", Config()).locked(),
        ):
            pass
        other.kill()
    with RunFolder(folder, "protect", Config()).locked():
        assert f"process {os.getpid()} on" in (folder / ".lock").read_text()
        (folder / "written").touch()
    assert (folder / "written").exists()


def test_a_folder_that_stays_empty_is_removed(tmp_path):
    with (
        pytest.raises(ZeroDivisionError),
        RunFolder(tmp_path / "run", "protect", Config()).locked(),
    ):
        raise ZeroDivisionError
    assert not (tmp_path / "run").exists()


def test_a_run_that_trained_nothing_may_begin_again_with_another_config(begun):
    (begun.path / "checkpoints").rmdir()
    again = RunFolder(begun.path, "protect", Config(train=Train(steps=7)))
    again.begin(dataset=DATASET)
    assert json.loads((begun.path / "config.json").read_text())["config"]["train"]["steps"] == 7


def test_a_dataset_made_again_under_its_name_is_refused(begun, tmp_path):
    folder = tmp_path / "data/faces/1.0.0"
    folder.mkdir(parents=True)
    config = Config(data=Data(dir=str(tmp_path / "data"), dataset="faces"))
    (folder / "dataset_info.json").write_text("70 images")
    run = RunFolder(tmp_path / "other", "protect", config)
    run.begin()
    run.finish({})
    RunFolder(run.path, "protect", config)
    (folder / "dataset_info.json").write_text("71 images")
    with pytest.raises(UserError, match=r"the content of .*data/faces; choose"):
        RunFolder(run.path, "protect", config)


def test_checkpoints_of_the_baseline_count(begun):
    (begun.path / "unprotected").mkdir()
    (begun.path / "checkpoints").rename(begun.path / "unprotected" / "checkpoints")
    with pytest.raises(UserError, match=r"train\.steps"):
        RunFolder(begun.path, "protect", Config(train=Train(steps=7)))


def test_the_record_holds_the_whole_config(begun):
    config = Config(task=Task(attributes=("Smiling", "Male")), train=Train(steps=7))
    run = RunFolder(begun.path / "other", "protect", config)
    run.begin()
    record = json.loads((run.path / "config.json").read_text())
    assert record["mode"] == "protect"
    assert set(record["config"]) == {item.name for item in dataclasses.fields(Config)}
    for name, value in flatten(config).items():
        recorded = record["config"]
        for part in name.split("."):
            recorded = recorded[part]
        assert recorded == (list(value) if isinstance(value, tuple) else value)


def test_the_record_holds_the_versions_of_the_packages(begun):
    versions = json.loads((begun.path / "config.json").read_text())["versions"]
    assert versions["numpy"] == numpy.__version__
    assert versions["tensorflow"] == metadata.version("tensorflow")
    assert None not in versions.values()


def test_a_package_that_is_not_installed_has_no_version(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "PACKAGES", ("numpy", "no-such-package"))
    run = RunFolder(tmp_path, "protect", Config())
    run.begin()
    versions = json.loads((tmp_path / "config.json").read_text())["versions"]
    assert versions == {"numpy": numpy.__version__, "no-such-package": None}


def test_the_record_holds_the_dataset_and_other_facts(tmp_path):
    RunFolder(tmp_path, "attack", Config()).begin(dataset=DATASET, precision="float32")
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["dataset"] == DATASET
    assert record["precision"] == "float32"


def git(folder, *arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    done = subprocess.run(
        ["git", "-C", folder, *identity, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_record_holds_the_commit_of_the_code(tmp_path, monkeypatch):
    checkout = tmp_path / "checkout"
    (checkout / "tfadv").mkdir(parents=True)
    git(checkout, "init", "--quiet")
    git(checkout, "commit", "--quiet", "--allow-empty", "--message=first")
    monkeypatch.setattr(run_folder, "__file__", str(checkout / "tfadv" / "run_folder.py"))
    run = RunFolder(tmp_path / "run", "protect", Config())
    run.begin()
    record = json.loads((run.path / "config.json").read_text())
    assert record["git_commit"] == git(checkout, "rev-parse", "HEAD")


def test_code_outside_a_checkout_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "__file__", str(tmp_path / "run_folder.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    run = RunFolder(tmp_path / "run", "protect", Config())
    run.begin()
    assert json.loads((run.path / "config.json").read_text())["git_commit"] is None


def test_the_same_config_resumes(begun):
    config = Config(encoder=begun.config.encoder)
    assert RunFolder(begun.path, "protect", config).metrics is None


def test_tuples_that_json_stores_as_lists_are_no_difference(tmp_path):
    config = Config(encoder=("a", "b"), task=Task(attributes=("Smiling",)))
    RunFolder(tmp_path, "attack", config).begin()
    (tmp_path / "checkpoints").mkdir()
    RunFolder(tmp_path, "attack", dataclasses.replace(config))
    with pytest.raises(UserError, match="encoder"):
        RunFolder(tmp_path, "attack", dataclasses.replace(config, encoder=("a", "c")))


def test_a_finished_run_of_another_config_is_refused_without_its_checkpoints(tmp_path):
    run = RunFolder(tmp_path, "protect", Config())
    run.begin(dataset=DATASET)
    run.finish({"mcc": 0.5})
    with pytest.raises(UserError, match="mode"):
        RunFolder(tmp_path, "attack", Config())


def test_attacks_of_an_audit_are_not_used_for_another_config(tmp_path):
    run = RunFolder(tmp_path, "audit", Config())
    run.begin(dataset=DATASET)
    (run.path / "encoders/protected").mkdir(parents=True)
    (run.path / "encoders/protected/ridge.npz").touch()
    with pytest.raises(UserError, match=r"data\.size"):
        RunFolder(tmp_path, "audit", Config(data=Data(size=32)))


@pytest.mark.parametrize("name", ["classifier", "unprotected/encoder", "unprotected/classifier"])
def test_an_audit_is_refused_if_a_model_next_to_the_encoder_has_changed(tmp_path, name):
    model = tmp_path / "protect" / name
    model.mkdir(parents=True)
    (model / "saved_model.pb").write_bytes(b"one")
    config = Config(encoder=(str(tmp_path / "protect/encoder"),))
    run = RunFolder(tmp_path / "audit", "audit", config)
    run.begin(dataset=DATASET)
    (run.path / "checkpoints").mkdir()
    (model / "saved_model.pb").write_bytes(b"another")
    with pytest.raises(UserError, match=f"the content of .*{name}"):
        RunFolder(run.path, "audit", config)


def test_the_classifier_of_a_named_unprotected_encoder_is_compared(tmp_path):
    classifier = tmp_path / "plain/classifier"
    classifier.mkdir(parents=True)
    (classifier / "saved_model.pb").write_bytes(b"one")
    config = Config(audit=Audit(unprotected=str(tmp_path / "plain/encoder")))
    assert str(classifier) in RunFolder(tmp_path / "audit", "audit", config).digests


def test_an_attack_on_an_encoder_that_has_changed_is_refused(tmp_path):
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    (encoder / "saved_model.pb").write_bytes(b"one")
    config = Config(encoder=(str(encoder),))
    run = RunFolder(tmp_path / "attack", "attack", config)
    run.begin()
    (run.path / "checkpoints").mkdir()
    RunFolder(run.path, "attack", config)
    (encoder / "saved_model.pb").write_bytes(b"two")
    with pytest.raises(UserError, match=f"holds another run: the content of {encoder}"):
        RunFolder(run.path, "attack", config)


def test_another_config_is_refused_with_each_differing_field(begun):
    config = Config(data=Data(size=96), task=Task(attributes=("Male",)))
    with pytest.raises(UserError) as caught:
        RunFolder(begun.path, "protect", config)
    message = str(caught.value)
    assert message.startswith(f"--workdir={begun.path} holds another run: ")
    assert "data.size (was 64, is 96)" in message
    assert "task.attributes (was [], is ['Male'])" in message
    assert message.count("(was") == 2


def test_a_field_of_another_version_is_a_difference(begun):
    path = begun.path / "config.json"
    record = json.loads(path.read_text())
    record["config"]["loss"]["lambda9"] = 0.5
    del record["config"]["loss"]["lambda1"]
    path.write_text(json.dumps(record))
    with pytest.raises(UserError) as caught:
        RunFolder(begun.path, "protect", Config())
    assert "loss.lambda9 (was 0.5, is None)" in str(caught.value)
    assert "lambda1" not in str(caught.value)  # newer than the run, which so had its default
    with pytest.raises(UserError, match=r"loss\.lambda1 \(was 1\.0, is 2\.0\)"):
        RunFolder(begun.path, "protect", Config(loss=Loss(lambda1=2.0)))


def test_another_mode_is_refused(begun):
    with pytest.raises(UserError, match=r"mode \(was 'protect', is 'attack'\)"):
        RunFolder(begun.path, "attack", Config())


def test_a_refused_folder_is_left_as_it_was(begun):
    before = (begun.path / "config.json").read_bytes()
    with pytest.raises(UserError):
        RunFolder(begun.path, "attack", Config())
    assert (begun.path / "config.json").read_bytes() == before


@pytest.mark.parametrize("below", ["", "deeper/run"])
def test_a_file_is_no_workdir(tmp_path, below):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match=f"{file} is a file; it must be a folder"):
        RunFolder(file / below, "protect", Config())


@pytest.mark.parametrize("content", ["", "{", '{"mode": "protect", "conf', "\x00\xff"])
def test_a_damaged_record_is_named(begun, content):
    path = begun.path / "config.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=f"{path} can't be read .* remove it or choose"):
        RunFolder(begun.path, "protect", Config())


@pytest.mark.parametrize("content", ["[]", "3", "null", "{}", '{"model_type": "vit"}'])
def test_the_record_of_another_program_is_named(begun, content):
    path = begun.path / "config.json"
    path.write_text(content)
    with pytest.raises(UserError, match=f"{path} was written by another program"):
        RunFolder(begun.path, "protect", Config())


def test_a_run_is_finished_once_its_metrics_are_written(begun):
    assert begun.metrics is None
    begun.finish({"mcc": 0.5, "mcc/Male": -0.25, "mcc_ci95": [0.4, 0.6]})
    again = RunFolder(begun.path, "protect", Config())
    assert again.metrics == {"mcc": 0.5, "mcc/Male": -0.25, "mcc_ci95": [0.4, 0.6]}


def test_damaged_metrics_are_named(begun):
    (begun.path / "metrics.json").write_text('{"mcc": 0.')
    with pytest.raises(UserError, match=r"metrics\.json can't be read"):
        _ = begun.metrics


def test_metrics_that_are_no_json_leave_the_run_unfinished(begun):
    with pytest.raises(TypeError):
        begun.finish({"mcc": object()})
    assert RunFolder(begun.path, "protect", Config()).metrics is None


def test_a_full_disk_leaves_no_half_metrics(begun, monkeypatch):
    write_text = Path.write_text

    def write_half(path, text):
        write_text(path, text[: len(text) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", write_half)
    with pytest.raises(OSError, match="No space left"):
        begun.finish({"mcc": 0.5, "ssim": 0.25})
    monkeypatch.undo()
    assert RunFolder(begun.path, "protect", Config()).metrics is None
    begun.finish({"mcc": 0.5})
    assert begun.metrics == {"mcc": 0.5}


def test_a_full_disk_leaves_the_record_of_the_first_start(begun, monkeypatch):
    before = (begun.path / "config.json").read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="No space left"):
        begun.begin()
    assert (begun.path / "config.json").read_bytes() == before


def test_a_finished_folder_has_two_files_and_the_checkpoints(begun):
    begun.finish({"mcc": 0.5})
    assert {path.name for path in begun.path.iterdir()} == {
        "config.json",
        "checkpoints",
        "metrics.json",
    }


def test_the_summary_says_what_was_run():
    facts = run_folder.summary("attack", Config(data=Data(size=96)), DATASET)
    assert facts["mode"] == "attack"
    assert facts["dataset"] == "faces/1.0.0"
    assert facts["images in private"] == "3"
    assert facts["--config.data.size"] == "96"
    assert facts["numpy"] == numpy.__version__
    assert [name for name in facts if name.startswith("--config")] == ["--config.data.size"]
    assert "command" not in facts  # pytest was called, not run.py


def test_the_summary_of_a_command_names_it_as_one_would_type_it(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/x/run.py", "attack", "--workdir=a b"])
    facts = run_folder.summary("attack", Config(), DATASET, {"encoder e": "0123456789abcdef0"})
    assert facts["command"] == "python run.py attack '--workdir=a b'"
    assert facts["encoder e SHA-256"] == "0123456789abcdef"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", facts["date"])


@pytest.mark.parametrize("changed", ["face.onnx", "face.onnx.json", "vgg19.h5"])
def test_a_recognizer_or_weights_that_have_changed_are_refused(tmp_path, changed):
    for name in ("face.onnx", "vgg19.h5"):
        (tmp_path / name).write_bytes(b"one")
    config = Config()
    config.recognizer.path = str(tmp_path / "face.onnx")
    config.perceptual.weights = str(tmp_path / "vgg19.h5")
    run = RunFolder(tmp_path / "attack", "attack", config)
    run.begin()
    (run.path / "checkpoints").mkdir()
    RunFolder(run.path, "attack", config)
    (tmp_path / changed).write_bytes(b"two")
    with pytest.raises(UserError, match=rf"the content of .*/{changed.removesuffix('.json')}"):
        RunFolder(run.path, "attack", config)
