import pytest

from tfadv.config.setting import Setting

SIZE = Setting(default=64, meaning="size", low=32, high=1024, multiple_of=32)
WEIGHT = Setting(default=1.0, meaning="weight", low=0, defence="λ₁", off=0.0)
NAMES = Setting(default=("a",), meaning="names", choices=("a", "b"))
TEXT = Setting(default="data", meaning="folder")


@pytest.mark.parametrize(
    ("setting", "value", "problem"),
    [
        (SIZE, "64", "is '64'; it must be a whole number"),
        (SIZE, 0, "is 0; it must be from 32 to 1,024"),
        (SIZE, 65, "is 65; it must be a multiple of 32"),
        (WEIGHT, -0.1, "is -0.1; it must be at least 0"),
        (WEIGHT, True, "is True; it must be a finite number"),
        (NAMES, ("c",), "names c; it must be one of a, b"),
        (NAMES, ("b", "b"), "names b twice"),
        (NAMES, "a", "is 'a'; it must be a list of names, such as a,b"),
        (TEXT, "", "is empty; give it a value, such as data"),
    ],
)
def test_a_wrong_value_is_answered_with_what_it_may_be(setting, value, problem):
    assert setting.problem(value) == problem


@pytest.mark.parametrize(
    ("setting", "value"), [(SIZE, 32), (WEIGHT, 0), (WEIGHT, 1e9), (NAMES, ()), (TEXT, "a b")]
)
def test_a_value_that_is_allowed_has_no_problem(setting, value):
    assert setting.problem(value) == ""


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        (SIZE, "size (whole number from 32 to 1,024)"),
        (WEIGHT, "weight (number, at least 0; off: 0.0)"),
        (NAMES, "names (list of a, b)"),
        (TEXT, "folder (text)"),
    ],
)
def test_help_has_the_meaning_and_the_rules(setting, text):
    assert setting.help() == text
