import sys
from types import SimpleNamespace

import pytest

from tfadv.config.run_folder import RunFolder
from tfadv.config.schema import Config, Data
from tfadv.evaluation.leakage_measures import LABELS
from tfadv.evaluation.results import AttackResult, EncoderResult
from tfadv.reporting import common
from tfadv.reporting.glossary import Column
from tfadv.reporting.page import Table


@pytest.mark.parametrize(
    ("shares_no_identity", "extra", "note"),
    [
        (True, {}, "The people in the test images are in no other split."),
        (
            False,
            {},
            "The test images are in no other split, but other images of the same people may be.",
        ),
        (
            True,
            {"lfw/1.0.0": 5, "more/2.0.0": 6},
            "The people in the test images are in no other split. It is not known whether "
            "lfw/1.0.0, more/2.0.0 shows the same people.",
        ),
    ],
)
def test_a_page_says_whether_test_people_were_seen_in_training(shares_no_identity, extra, note):
    dataset = SimpleNamespace(shares_no_identity=shares_no_identity, extra=extra)
    assert common.seen_in_training_note(dataset) == note


def test_a_run_prints_its_data_set_and_how_much_is_damaged(capsys):
    dataset = SimpleNamespace(
        sizes={"private": 1200, "public": 60, "test": 20},
        extra={"lfw/1.0.0": 5},
        description={"name": "celeba/1.0.0", "damaged": {"records": 3}},
        faults=["a.tfrecord, record 7: checksum"],
    )
    common.print_dataset(dataset, "float32")
    assert capsys.readouterr().out.splitlines() == [
        "celeba/1.0.0: 1,200 private, 60 public, 20 test images, 5 of the public ones from "
        "lfw/1.0.0; float32",
        "left out 3 damaged records (see config.json): a.tfrecord, record 7: checksum",
    ]


def test_a_run_prints_its_table_and_the_files_that_exist(tmp_path, capsys):
    (tmp_path / "protect/encoder").mkdir(parents=True)
    (tmp_path / "protect/report.html").touch()
    run = RunFolder(tmp_path / "protect", "protect", Config())
    common.print_results(run, Table("Results", [Column("encoder")], [["ours"]]))
    lines = capsys.readouterr().out.splitlines()
    assert "Results" in lines
    assert lines[-3:] == [
        f"encoder      {tmp_path / 'protect/encoder'}",
        f"report       {tmp_path / 'protect/report.html'}",
        f"TensorBoard  tensorboard --logdir {tmp_path}",
    ]


def attacked(path, **data):
    return RunFolder(path, "attack", Config(data=Data(**data)))


@pytest.mark.parametrize(
    ("command", "audit"),
    [
        ("run.py demo", "python run.py audit"),
        ("run.py attack --config.data.size=96", "python run.py audit --config.data.size=96"),
        ("run.py --mode=attack --config=celeba", "python run.py audit --config=celeba"),
        ("tfadv --config=celeba --mode attack", "tfadv audit --config=celeba"),
        ("run.py attack --workdir=runs/a/attack", "python run.py audit --workdir={}/audit"),
        ("run.py reproduce --config=table1", None),
        ("notebook.py", None),
    ],
)
def test_the_next_commands_can_be_copied(tmp_path, monkeypatch, command, audit):
    monkeypatch.setattr(sys, "argv", command.split())
    following = common.next_steps(attacked(tmp_path / "attack", dataset="folder/mine", dir="d"))
    commands = following.split("`")[1::2]
    assert commands[:-1] == ([audit.format(tmp_path)] if audit else [])
    program = "tfadv" if command.startswith("tfadv") else "python run.py"
    assert commands[-1] == (
        f"{program} protect --config=recommended --config.data.dataset=folder/mine "
        "--config.data.dir=d"
    )


def test_a_terminal_shows_a_command_on_one_line_of_its_own(tmp_path, capsys):
    command = "python run.py audit " + " ".join(f"--config.field{i}=1" for i in range(9))
    table = Table("Results", [Column("encoder")], [["ours"]])
    common.print_results(attacked(tmp_path), table, [f"Next: `{command}` Or `python x`", ""])
    lines = capsys.readouterr().out.splitlines()
    place = lines.index("Next:")
    assert lines[place : place + 5] == ["Next:", f"    {command}", "Or", "    python x", ""]


def test_attacks_without_a_result_are_named_with_the_reason():
    attacks = {
        "probe_linear": SimpleNamespace(title="linear probe", needs={LABELS}),
        "probe_mlp": SimpleNamespace(title="trained probe", needs={LABELS}),
        "decoder": SimpleNamespace(title="trained decoder", needs=set()),
    }
    no_labels = AttackResult(not_applicable="the task has all attributes")
    results = {
        "probe_linear": no_labels,
        "probe_mlp": no_labels,
        "decoder": AttackResult(diverged="the loss is NaN"),
    }
    encoders = {"protected": EncoderResult(results, utility={})}
    encoders["open"] = EncoderResult({"probe_mlp": no_labels}, utility={})
    found = common.not_measured(encoders, attacks, has_recognizer=True, has_identities=True)
    assert found == [
        "trained decoder on protected diverged: the loss is NaN.",
        "Attribute inference does not apply to protected, open: the task has all attributes.",
    ]
    without_people = common.not_measured({}, {}, has_recognizer=False, has_identities=False)
    assert [text.split(".")[0] for text in without_people] == [
        "No face recognizer was given",
        "The data set does not say that any two test images show the same person, so that "
        "re-identification, verification and linkage are not measured",
    ]
