"""Numbers that users write: one kind of bounds and messages in every command and every setting."""

import click
import pytest

from asecalc_mlip.commands.numbers import Number
from asecalc_mlip.errors import InputError
from asecalc_mlip.quantities import Quantity, count, parse_seeds, shortened
from tests.attack.values import NUMBERS, ODD, refused_by_name


@pytest.mark.parametrize("text, value", [("300", 300.0), ("-0.5", -0.5), (".5", 0.5), ("1e-3", 1e-3), (" 7 ", 7.0)])
def test_numbers_are_read(text, value):
    assert Quantity(-1000, 1000).read(text, "x") == value


@pytest.mark.parametrize("text", ODD)
def test_odd_numbers_are_refused(text):
    for quantity in (Quantity(0, 1e6, "K"), count(10**6)):
        with pytest.raises(InputError, match="x is .*; expected a .*number from"):
            quantity.read(text, "x")


def test_bounds_and_units_are_in_the_message():
    with pytest.raises(InputError, match="--temperature is '-5'; expected a number above 0, at most 10⁶ K$"):
        Quantity(0, 1e6, "K", above=True).read("-5", "--temperature")
    assert count(10).holds(10) and not count(10).holds(11) and not count(10).holds(True) and not count(10).holds(2.0)
    assert Quantity(0, 1).holds(0) and not Quantity(0, 1, above=True).holds(0)


def test_long_values_are_shortened():
    assert len(shortened("9" * 10**5)) < 100 and shortened("a\udcff") == "'a\\udcff'"
    assert "bits" in shortened(10**5000)


def test_seeds():
    assert parse_seeds("3") == (0, 1, 2) and parse_seeds("7,3,") == (7, 3)
    for text in ("1_000", "0", "-1", "1,1", "inf", "1" * 400, "9" * 5000, "", ","):
        with pytest.raises(InputError, match="--seeds is "):
            parse_seeds(text)


def test_every_number_of_every_command_has_bounds():
    assert len(NUMBERS) > 80
    for command, option in NUMBERS:
        kinds = option.type.types if isinstance(option.type, click.Tuple) else [option.type]
        assert all(isinstance(kind, Number) for kind in kinds), f"{' '.join(command)} {option.opts}: use Number(…)"


def test_every_number_of_every_command_refuses_infinity():
    for command, option in NUMBERS:
        assert refused_by_name(command, option, "inf") is True
