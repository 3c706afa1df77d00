"""Odd values: numbers on the command line and in settings that nobody means, refused by the name of the option."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import click

from asecalc_mlip import cli
from asecalc_mlip.errors import InputError
from tests.attack.harness import Arena, Attack, Refused, asecalc, family

__all__ = ["NUMBERS", "ODD", "number_settings", "refused_by_name"]

# Each is refused by every number: not what Python would make of it, and out of all bounds.
ODD = (
    *("inf", "-inf", "nan", "1e30", "-1e30", "1" + 30 * "0", "-1" + 30 * "0", "1e400", "1_000", "１２", "٣", ""),
    *(" ", "0x10", "1,5", "--5", "1e", "1e5_0", "True", "None", "5 K", "1/2", "9" * 5000, "½", "5j", "[1]", "{}", "$X"),
)


def _numbers(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Option]]:
    if isinstance(command, click.Group):
        for name, one in command.commands.items():
            yield from _numbers(one, (*path, name))
        return
    for option in command.params:
        kinds = option.type.types if isinstance(option.type, click.Tuple) else [option.type]
        if isinstance(option, click.Option) and any(kind.name.split()[0] in ("integer", "float") for kind in kinds):
            if not (option.is_flag or option.count):
                yield path, option


# Every option of every command that is a number.
NUMBERS = list(_numbers(cli.main))


def refused_by_name(command: tuple[str, ...], option: click.Option, text: str) -> bool | str:
    """Give a command one odd value; True if it is refused with the name of the option in one line."""
    values = [text] * option.nargs
    words = [f"{option.opts[-1]}={text}"] if option.nargs == 1 else [option.opts[-1], *values]
    try:
        asecalc(*command, *words, "nowhere.pt", "nowhere.xyz", "nowhere.json")
    except Refused as refusal:
        message = str(refusal)
        name = max(option.opts, key=len)
        return message.startswith(f"Error: {name} is ") and message.count("\n") == 1 or message[:300]
    return "taken"


@family("odd values of options", small=10, large=5000, together=50)
def _option(arena: Arena) -> Attack:
    (command, option), text = arena.choice(NUMBERS), arena.choice(ODD)
    return f"asecalc {' '.join(command)} {option.opts[-1]}={text:.40}", lambda: refused_by_name(command, option, text)


def number_settings() -> list[str]:
    """Return every setting of a training that is a number."""
    from training.config import TrainConfig, setting_types

    sections = dataclasses.asdict(TrainConfig())
    keys = [f"{section}.{key}" for section, values in sections.items() for key in values]
    return [key for key in keys if {int, float}.intersection(setting_types(key))]


@family("odd values of settings", small=0, large=5000, together=50)
def _setting(arena: Arena) -> Attack:
    key, text = arena.choice(number_settings()), arena.choice([odd for odd in ODD if odd not in ("None",)])

    def attempt() -> bool | str:
        from training.config import load_config

        try:
            load_config([], [f"{key}={text}"])
        except InputError as error:
            return key in str(error) or f"refused without its name: {error}"
        return "taken"

    return f"{key}={text:.40}", attempt


@family("odd lists of seeds", small=3, large=200, together=50)
def _seeds(arena: Arena) -> Attack:
    command = arena.choice(["campaign", "report"])
    text = arena.choice([*ODD, "0", "-1", "1,1", "1,inf", ",", "1,,2"])

    def attempt() -> bool | str:
        try:
            asecalc(command, *(["aspirin.pt"] if command == "report" else []), f"--seeds={text}")
        except Refused as refusal:
            return "--seeds is " in str(refusal) or str(refusal)[:300]
        return "taken"

    return f"asecalc {command} --seeds={text:.40}", attempt
