from types import SimpleNamespace

import pytest

from tfadv.config.run_folder import RunFolder
from tfadv.config.schema import Config
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
