import json
import sys

import pytest

from tfadv.training import history
from tfadv.training.history import History, Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets: `clock[0]` seconds."""
    now = [0.0]
    monkeypatch.setattr(history.time, "monotonic", lambda: now[0])
    return now


def lines(capsys):
    return capsys.readouterr().err.splitlines()


def test_rows_after_the_resumed_step_are_dropped(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text("".join(json.dumps({"step": step, "a": 1.0}) + "\n" for step in (10, 20, 30)))
    assert History(path, 20).series("a") == ([10, 20], [1.0, 1.0])
    assert len(path.read_text().splitlines()) == 2


def test_a_history_cut_short_by_a_kill_loses_only_its_last_row(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text(json.dumps({"step": 10, "a": 1.0}) + '\n{"step": 20, "a"')
    assert History(path, 20).series("a") == ([10], [1.0])


def test_eta_leaves_out_the_first_steps_which_compile(clock, capsys):
    progress = Progress("training", 101, 0)
    clock[0] = 3600.0  # compilation
    progress.show(1, {"loss": 0.5}, 3.0)
    clock[0] += 50.0  # 2 s for each of 25 steps
    progress.show(26, {"loss": 0.25}, 8.0)
    assert lines(capsys) == [
        "training  1/101  loss 0.5000  3 images/s",
        "training  26/101  loss 0.2500  8 images/s  ETA 0:02:30",
    ]


def test_eta_of_a_resumed_training_counts_its_own_steps(clock, capsys):
    progress = Progress("training", 100, 80)
    clock[0] = 60.0
    progress.show(81, {}, 1.0)
    clock[0] += 20.0
    progress.show(91, {}, 1.0)
    resuming, _, last = lines(capsys)
    assert resuming == "training: resuming at step 80 of 100"
    assert last.endswith("ETA 0:00:18")


def test_eta_is_an_upper_limit_where_training_may_stop_early(clock, capsys):
    progress = Progress("attack", 30, 0, may_stop_early=True)
    for clock[0], step in ((10.0, 1), (30.0, 11), (68.0, 30)):
        progress.show(step, {}, 1.0)
    _, middle, last = lines(capsys)
    assert middle.endswith("ETA at most 0:00:38")
    assert last.endswith("  ETA 0:00:00")


def test_a_training_that_went_back_before_its_first_steps_shows_no_eta(clock, capsys):
    progress = Progress("training", 30, 0)
    for clock[0], step in ((10.0, 5), (30.0, 5), (50.0, 3)):
        progress.show(step, {}, 1.0)
    assert not any("ETA" in line for line in lines(capsys))


def test_a_log_gets_a_line_every_10_s_and_the_last(clock, capsys):
    progress = Progress("training", 5, 0)
    for clock[0], step in ((1.0, 1), (6.0, 2), (11.0, 3), (12.0, 4), (13.0, 5)):
        progress.show(step, {}, 1.0)
    progress.close()
    assert [line.split()[1] for line in lines(capsys)] == ["1/5", "3/5", "5/5"]


def test_a_terminal_keeps_one_line_up_to_date(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stderr, "fileno", lambda: 2, raising=False)
    monkeypatch.setattr(
        history.os, "get_terminal_size", lambda _: type("Size", (), {"columns": 20})
    )
    progress = Progress("training", 5, 0)
    for step in (1, 2):
        progress.show(step, {"loss": 1.0}, 1.0)
    progress.close()
    assert (
        capsys.readouterr().err
        == "".join(f"\r\033[Ktraining  {step}/5  loss" for step in (1, 2)) + "\n"
    )
