import pytest

from tfadv.modes import demo


@pytest.fixture
def clock(monkeypatch):
    """Seconds since the process began, as a list of one."""
    now = [0.0]
    monkeypatch.setattr(demo.time, "monotonic", lambda: now[0])
    return now


def usual(*stages):
    return sum(demo.STAGES[stage][1] for stage in stages)


def test_at_first_the_usual_time_is_left(clock, capsys):
    demo.Announcer()("recognizer")
    minutes = round(usual(*demo.STAGES) / 60)
    assert capsys.readouterr().out == (
        f"\n1 of 6: training a face recognizer, to measure identity with "
        f"(about {minutes} minutes left)\n"
    )


def test_the_rest_takes_as_much_longer_as_the_stages_before(clock, capsys):
    announce = demo.Announcer()
    first, *rest = demo.STAGES
    announce(*first)
    clock[0] = 3 * usual(first)
    announce(*rest[0])
    minutes = round(3 * usual(*rest) / 60)
    assert f"(about {minutes} minutes left)" in capsys.readouterr().out.splitlines()[-1]


def test_stages_that_were_finished_before_do_not_count(clock, capsys):
    announce = demo.Announcer()
    stages = list(demo.STAGES)
    announce(*stages[4])
    clock[0] = usual(stages[4]) / 2
    announce(*stages[5])
    minutes = max(1, round(usual(stages[5]) / 2 / 60))
    unit = "minute" if minutes == 1 else "minutes"
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("6 of 6: attacking hard predictions")
    assert last.endswith(f"(about {minutes} {unit} left)")
