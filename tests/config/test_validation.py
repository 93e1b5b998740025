import math
import re
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from tfadv.config import validation
from tfadv.config.errors import UserError
from tfadv.config.fields import SETTINGS, flatten, put
from tfadv.config.schema import Config, Model, Task

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.lists(st.text()),
    st.lists(st.integers() | st.text()).map(tuple),
    st.dictionaries(st.text(), st.integers()),
)


def changed(**values):
    """Returns a config with fields set as a config file can: train__steps=3."""
    config = Config()
    for name, value in values.items():
        put(config, name.replace("__", "."), value)
    return config


def checked(**values):
    config = changed(**values)
    validation.validate(config)
    return config


def refusal(name, value):
    """Returns the message that refuses a value of a field; it begins with the field's name."""
    with pytest.raises(UserError, match=rf"^{re.escape(name)} is .*; it must be ") as caught:
        checked(**{name.replace(".", "__"): value})
    return str(caught.value)


def test_the_defaults_are_valid():
    assert checked() == Config()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data.size", "64"),
        ("data.size", 64.0),
        ("data.size", True),
        ("data.size", None),
        ("data.dir", 3),
        ("data.held_out", "0.1"),
        ("data.held_out", True),
        ("baseline", 1),
        ("baseline", "false"),
        ("encoder", 5),
        ("task.attributes", None),
        ("task.attributes", ("Smiling", 3)),
        ("model.split", ("fc",)),
        ("train.learning_rate", math.nan),
        ("loss.lambda1", math.inf),
        ("loss.lambda1", 10**400),
        ("black_box.low", -math.inf),
        ("runtime.seed", 0.5),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_its_field(name, value):
    assert repr(value) in refusal(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data.size", 0),
        ("data.size", 33),
        ("data.size", 2048),
        ("data.held_out", 0.0),
        ("data.held_out", 1.0),
        ("data.shuffle_buffer", 0),
        ("model.depth", 20),
        ("model.width", 0.0),
        ("model.split", "fc6"),
        ("model.decoder", "figure7"),
        ("loss.lambda1", -0.1),
        ("train.steps", 0),
        ("train.steps", 2**31),
        ("train.batch", 1),
        ("train.learning_rate", 0.0),
        ("train.decoder_steps", 0),
        ("train.clip_norm", -1),
        ("attack.patience", 0),
        ("attack.rate_drops", -1),
        ("runtime.precision", "float16"),
        ("runtime.seed", -1),
        ("report.examples", 0),
    ],
)
def test_a_value_out_of_range_is_named_with_its_field_and_what_it_may_be(name, value):
    assert str(value) in refusal(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data.size", 32),
        ("data.size", 1024),
        ("data.held_out", 0.5),
        ("loss.lambda1", 0),
        ("loss.lambda1", 1e6),
        ("train.steps", 1),
        ("train.batch", 2),
        ("train.clip_norm", 0.0),
        ("attack.rate_drops", 0),
        ("runtime.seed", 2**31 - 1),
    ],
)
def test_the_ends_of_a_range_belong_to_it(name, value):
    config = checked(**{name.replace(".", "__"): value})
    assert flatten(config)[name] == value


@pytest.mark.parametrize("name", ["data.dataset", "data.dir"])
def test_an_empty_name_is_refused(name):
    with pytest.raises(UserError, match=f"^{name} is empty"):
        checked(**{name.replace(".", "__"): ""})


@pytest.mark.parametrize("low", [1.0, 2.0])
def test_black_must_be_below_white(low):
    with pytest.raises(UserError, match=r"black_box\.low .* below black_box\.high"):
        checked(black_box__low=low)


def test_an_attribute_named_twice_is_refused():
    with pytest.raises(UserError, match=r"^task\.attributes names Male twice"):
        checked(task__attributes=("Male", "Smiling", "Male"))


@pytest.mark.parametrize(
    ("dataset", "extra", "message"),
    [
        ("celeba/identity", ("lfw", "b", "lfw"), "lfw twice"),
        ("celeba/identity", ("lfw:1.0.0", "lfw"), "lfw twice"),
        ("celeba/identity", ("celeba/identity",), "celeba/identity, which is data.dataset itself"),
        ("celeba/identity:1.0.0", ("celeba/identity",), "which is data.dataset itself"),
        ("synthetic", ("synthetic/default",), "synthetic/default, which is data.dataset itself"),
    ],
)
def test_an_extra_dataset_named_twice_or_equal_to_the_dataset_is_refused(dataset, extra, message):
    with pytest.raises(UserError, match=rf"^data\.extra names .*{re.escape(message)}$"):
        checked(data__dataset=dataset, data__extra=extra)


@pytest.mark.parametrize(
    ("given_value", "names"),
    [
        ("Smiling,Male", ("Smiling", "Male")),
        (" Smiling , Male ,", ("Smiling", "Male")),
        (["Smiling", "Male,Bald"], ("Smiling", "Male", "Bald")),
        ("5_o_Clock_Shadow", ("5_o_Clock_Shadow",)),
        ("", ()),
    ],
)
def test_lists_are_split_on_commas(given_value, names):
    assert checked(task__attributes=given_value).task.attributes == names
    assert checked(encoder=given_value).encoder == names
    assert checked(data__extra=given_value).data.extra == names


@pytest.mark.parametrize(
    ("group", "value"), [("data", None), ("train", {"steps": 3}), ("model", Task())]
)
def test_a_group_of_another_type_is_refused(group, value):
    with pytest.raises(UserError, match=rf"^{group} is .* must be a tfadv\.config\.schema\.\w+$"):
        checked(**{group: value})


@hypothesis.settings(deadline=None)  # a busy machine is no failure
@hypothesis.given(
    st.dictionaries(st.sampled_from(sorted(SETTINGS)), ANYTHING, min_size=1, max_size=3)
)
def test_any_value_is_valid_or_refused_by_name(overrides):
    config = changed(**{name.replace(".", "__"): value for name, value in overrides.items()})
    refused = None
    try:
        validation.validate(config)
    except UserError as error:
        refused = str(error)
    if refused is not None:
        assert any(name in refused for name in overrides)
        assert "\n" not in refused
        return
    for name, value in flatten(config).items():
        kind = type(SETTINGS[name].default)
        assert isinstance(value, (int, float) if kind is float else kind)


def test_weights_must_be_a_file_of_a_known_type(tmp_path):
    weights = tmp_path / "resnet50.npz"
    config = Config(model=Model(weights=str(weights)))
    with pytest.raises(UserError, match=r"model\.weights is .*resnet50\.npz.* does not exist"):
        validation.check_files(config, "protect")
    weights.touch()
    validation.check_files(config, "protect")
    config.model.weights = str(weights.rename(tmp_path / "resnet50.pth"))
    with pytest.raises(UserError, match=r"model\.weights is .*\.pth; it must be a \.safetensors"):
        validation.check_files(config, "protect")


def test_no_weights_are_fine():
    validation.check_files(Config(), "protect")


def test_an_encoder_must_be_a_saved_model(tmp_path):
    encoder = tmp_path / "encoder"
    with pytest.raises(UserError, match=f"^encoder {encoder} does not exist"):
        validation.check_saved_model(str(encoder))
    encoder.mkdir()
    with pytest.raises(UserError, match=f"^encoder {encoder} is no SavedModel"):
        validation.check_saved_model(str(encoder))
    (encoder / "saved_model.pb").touch()
    validation.check_saved_model(str(encoder))
    with pytest.raises(UserError, match=rf"no saved_model\.pb; {encoder} is one$"):
        validation.check_saved_model(str(tmp_path))


def test_a_remote_encoder_is_not_checked():
    validation.check_saved_model("gs://bucket/encoder")


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("synthetic", "data/synthetic/default"),
        ("synthetic:1.0.0", "data/synthetic/default/1.0.0"),
        ("celeba/identity", "data/celeba/identity"),
        ("celeba/identity:2.0.0", "data/celeba/identity/2.0.0"),
    ],
)
def test_the_folder_of_a_dataset(name, folder):
    assert validation.dataset_folder("data", name) == Path(folder)
