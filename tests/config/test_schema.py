import dataclasses

import pytest

from tfadv.config.fields import SETTINGS
from tfadv.config.schema import Config, Data


@pytest.mark.parametrize("group", ["", *(f.name for f in dataclasses.fields(Config))])
def test_an_attribute_that_is_no_field_cannot_be_set(group):
    holder = getattr(Config(), group) if group else Config()
    if dataclasses.is_dataclass(holder):
        with pytest.raises(AttributeError, match="misspelt"):
            holder.misspelt = 1


def test_configs_share_no_group():
    first, second = Config(), Config()
    first.data.size = 96
    assert second.data.size == Data().size


def test_every_number_has_a_range():
    numbers = {n for n, setting in SETTINGS.items() if type(setting.default) in (int, float)}
    limited = {n for n, setting in SETTINGS.items() if setting.low is not None or setting.choices}
    assert numbers - limited == {"black_box.low", "black_box.high"}


def test_every_setting_has_a_meaning():
    assert all(setting.meaning for setting in SETTINGS.values())
