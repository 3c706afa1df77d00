"""Numbers in settings: each has bounds, and other text is refused by the name of the setting."""

import pytest

from asecalc_mlip.errors import InputError
from tests.attack.values import number_settings
from training.config import load_config, parse_value

FEW = ("inf", "nan", "1" + 30 * "0", "1_000")


def test_every_number_refuses_odd_values():
    keys = number_settings()
    assert len(keys) > 30
    for key in keys:
        for text in FEW:
            with pytest.raises(InputError, match=key.replace(".", r"\.")):
                load_config([], [f"{key}={text}"])


@pytest.mark.parametrize(
    "text, value",
    [("1e-3", 1e-3), ("010", 10), ("1:30", "1:30"), ("1_000", "1_000"), ("2024-01-01", "2024-01-01"), ("null", None)],
)
def test_yaml_has_the_numbers_of_the_command_line(text, value):
    assert parse_value(text) == value and type(parse_value(text)) is type(value)


def test_numbers_deep_in_groups_are_finite():
    for text in ("{liquid: .inf}", "{liquid: 1e30}"):
        with pytest.raises(InputError, match=r"data\.weights"):
            load_config([], [f"data.weights={text}"])
