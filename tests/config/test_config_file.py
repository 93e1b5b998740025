import hypothesis
from hypothesis import strategies as st

from tfadv.config import config_file
from tfadv.config.errors import UserError
from tfadv.config.fields import flatten
from tfadv.config.schema import Config, Loss


@hypothesis.settings(deadline=None)  # a busy machine is no failure
@hypothesis.given(st.sampled_from(sorted(flatten(Config()))), st.text() | st.floats().map(str))
def test_any_override_is_valid_or_refused_by_name(field, text):
    refused = None
    try:
        config = config_file.override(Config(), ["run.py", f"--config.{field}={text}"])
    except UserError as error:
        refused = str(error)
    if refused is not None:
        assert field in refused
        return
    old, new = flatten(Config()), flatten(config)
    assert type(new[field]) is type(old[field])
    assert {name for name in old if old[name] != new[name]} <= {field}


def test_overriding_leaves_the_given_config_alone():
    config = Config(loss=Loss(lambda1=3.0))
    config_file.override(config, ["run.py", "--config.loss.lambda1=5"])
    assert config == Config(loss=Loss(lambda1=3.0))
