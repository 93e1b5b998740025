import re

import pytest

from tfadv.config import config_file
from tfadv.config.fields import (
    COMMON,
    PENALTIES,
    SETTINGS,
    defences,
    describe,
    flatten,
    get,
    put,
    unknown_field,
)
from tfadv.config.schema import Bottleneck, Config, Data, Loss, Train


def test_flattening_names_every_field_by_its_group():
    values = flatten(Config(data=Data(size=96)))
    assert values["data.size"] == 96
    assert values["encoder"] == ()
    assert len(values) == len(SETTINGS)


@pytest.mark.parametrize(("name", "value"), [("data.size", 96), ("encoder", ("a",))])
def test_a_field_is_set_and_read_by_its_full_name(name, value):
    config = Config()
    put(config, name, value)
    assert get(config, name) == value


def test_the_papers_defence_is_on_by_default():
    assert defences(flatten(Config())) == {"λ₁": 1.0}


def test_defences_that_are_on_are_named_with_their_strength():
    config = Config(
        loss=Loss(lambda1=0.0, nopeek=0.5), bottleneck=Bottleneck(downscale=2, predictions="hard")
    )
    assert defences(flatten(config)) == {"NoPeek": 0.5, "downscale": 2, "predictions": "hard"}


def test_a_config_of_an_older_version_lacks_newer_defences():
    assert defences({"loss.lambda1": 2.0}) == {"λ₁": 2.0}


def test_penalties_are_the_defences_in_the_loss():
    assert PENALTIES == (
        "loss.lambda1",
        "loss.lambda2",
        "loss.nopeek",
        "loss.excess_pixels",
        "loss.excess_identity",
        "loss.max_entropy",
    )


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("data.sise", "data.size"),
        ("lambda1", "loss.lambda1"),
        ("task.attribute", "task.attributes"),
        ("train.learning-rate", "train.learning_rate"),
        ("model.patience", "attack.patience"),
    ],
)
def test_an_unknown_field_is_answered_with_the_nearest_name(wrong, nearest):
    message = str(unknown_field(wrong))
    assert message == f"there is no config field {wrong}; did you mean {nearest}?"


def test_a_name_like_no_field_gets_no_suggestion():
    assert str(unknown_field("zzz")) == "there is no config field zzz"


def test_help_shows_every_field_with_its_value_as_one_would_type_it():
    other = Config(data=Data(size=96), train=Train(steps=3), encoder=("a", "b"))
    shown = re.findall(r"^  (--config\.\S+)", describe(other, SETTINGS), re.MULTILINE)
    assert [argument[9:].partition("=")[0] for argument in shown] == list(SETTINGS)
    assert config_file.override(Config(), ["run.py", *shown]) == other


def test_the_short_help_has_fewer_fields_and_no_rules():
    text = describe(Config(), COMMON, with_rules=False)
    assert "--config.data.size=64" in text
    assert "1,024" not in text
    assert "train.rollbacks" not in text


@pytest.mark.parametrize(
    "words",
    [
        "height and width in pixels (whole number from 32 to 1,024)",
        "(one of gaussian, laplace)",
        "the sign (whole number from 0 to 16; off: 0)",
        "negative reconstruction error in Eq. 9 (number, at least 0; off: 0.0)",
        "show images of the dataset in the report and TensorBoard (True or False)",
        "architectures of the attackers' decoders (list of figure6, residual)",
    ],
)
def test_help_says_what_a_field_may_be_and_when_a_defence_is_off(words):
    assert words in " ".join(describe(Config(), SETTINGS).split())


def test_help_has_no_long_lines():
    assert max(map(len, describe(Config(), SETTINGS).splitlines())) <= 100
