"""A pickle of plain types, interpreted without running anything: a call in it is noted, never made.

Only the operations that `pickle` itself writes for plain types, and `torch.save` for tensors, have a meaning here.
There is no way from a name in a pickle to a Python object, so nothing is imported, found or called.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from asecalc_mlip.errors import CheckpointError

__all__ = ["Call", "Name", "Stored", "interpreted"]

# Of a description of 2 MB in numbers of 9 bytes; a file of lists in lists has one with each byte.
MOST_OPERATIONS = 1 << 18


@dataclass(frozen=True, eq=False)
class Name:
    """A name that a pickle refers to, such as `torch.FloatStorage`; no more than its text."""

    text: str


@dataclass(frozen=True, eq=False)
class Call:
    """A call that a pickle asks for."""

    name: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Stored:
    """A reference to something outside the pickle, here an array of the archive."""

    description: Any


def interpreted(data: bytes) -> Any:
    """Return what a pickle describes: plain values, with `Name`, `Call` and `Stored` where it asks for more.

    Raises
    ------
    CheckpointError
        For a pickle that is damaged, uses other operations, or needs more than `MOST_OPERATIONS`.
    """
    machine = _Machine(data)
    try:
        for _ in range(MOST_OPERATIONS):
            code = data[machine.position]
            machine.position += 1
            if code == _STOP:
                (found,) = machine.stack
                return found
            operation = _OPERATIONS.get(code)
            if operation is None:
                raise CheckpointError(
                    f"it holds Python objects (operation {code:#04x} of pickle); nothing was executed"
                )
            operation(machine)
        raise CheckpointError(f"its description takes more than {MOST_OPERATIONS} operations of pickle")
    except (IndexError, KeyError, ValueError, TypeError, struct.error) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"its description is damaged ({type(error).__name__})") from None


class _Machine:
    """Stack, marks and memory of an interpretation."""

    def __init__(self, data: bytes):
        self.data, self.position = data, 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memory: dict[int, Any] = {}

    def take(self, number: int) -> bytes:
        """Read the next bytes."""
        end = self.position + number
        if end > len(self.data):
            raise IndexError
        found, self.position = self.data[self.position : end], end
        return found

    def number(self, form: struct.Struct) -> Any:
        """Read the next number."""
        return form.unpack(self.take(form.size))[0]

    def line(self) -> str:
        """Read up to the end of a line."""
        end = self.data.index(b"\n", self.position)
        found, self.position = self.data[self.position : end], end + 1
        return found.decode("utf-8")

    def since_mark(self) -> list[Any]:
        """Take what was put on the stack since the last mark."""
        start = self.marks.pop()
        if start > len(self.stack):
            raise IndexError
        found = self.stack[start:]
        del self.stack[start:]
        return found

    def last(self, number: int) -> list[Any]:
        """Take the last values of the stack."""
        if number > len(self.stack):
            raise IndexError
        found = self.stack[len(self.stack) - number :]
        del self.stack[len(self.stack) - number :]
        return found


_STOP = ord(".")
_INT, _LONG, _DOUBLE = struct.Struct("<i"), struct.Struct("<I"), struct.Struct(">d")
_BYTE, _SHORT = struct.Struct("<B"), struct.Struct("<H")


def _constant(make: Callable[[], Any]) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(make())


def _number(form: struct.Struct) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(machine.number(form))


def _text(machine: _Machine) -> None:
    machine.stack.append(machine.take(machine.number(_LONG)).decode("utf-8"))


def _long(machine: _Machine) -> None:
    machine.stack.append(int.from_bytes(machine.take(machine.number(_BYTE)), "little", signed=True))


def _tuple(length: int) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(tuple(machine.last(length)))


def _tuple_since_mark(machine: _Machine) -> None:
    machine.stack.append(tuple(machine.since_mark()))


def _append(machine: _Machine) -> None:
    (value,) = machine.last(1)
    _of(list, machine).append(value)


def _appends(machine: _Machine) -> None:
    values = machine.since_mark()
    _of(list, machine).extend(values)


def _set_item(machine: _Machine) -> None:
    key, value = machine.last(2)
    _enter(_of(dict, machine), key, value)


def _set_items(machine: _Machine) -> None:
    values = machine.since_mark()
    target = _of(dict, machine)
    for key, value in zip(values[::2], values[1::2], strict=True):
        _enter(target, key, value)


def _enter(target: dict[Any, Any], key: Any, value: Any) -> None:
    if type(key) not in (str, int):
        raise CheckpointError(f"it has a key that is a {type(key).__name__}; expected text")
    target[key] = value


def _of(kind: type, machine: _Machine) -> Any:
    target = machine.stack[-1]
    if type(target) is not kind:
        raise CheckpointError(
            f"it holds Python objects ({type(target).__name__} filled as a {kind.__name__}); nothing was executed"
        )
    return target


def _remember(form: struct.Struct) -> Callable[[_Machine], None]:
    def remember(machine: _Machine) -> None:
        machine.memory[machine.number(form)] = machine.stack[-1]

    return remember


def _recall(form: struct.Struct) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(machine.memory[machine.number(form)])


def _name(machine: _Machine) -> None:
    machine.stack.append(Name(f"{machine.line()}.{machine.line()}"))


def _stored(machine: _Machine) -> None:
    machine.stack.append(Stored(machine.stack.pop()))


def _call(machine: _Machine) -> None:
    name, arguments = machine.last(2)
    if not isinstance(name, Name) or not isinstance(arguments, tuple):
        raise CheckpointError("it holds Python objects (a call of what has no name); nothing was executed")
    # The only object with a name that is plain: a dictionary that keeps its order, as all do.
    plain = name.text == "collections.OrderedDict" and not arguments
    machine.stack.append({} if plain else Call(name.text, arguments))


_OPERATIONS: dict[int, Callable[[_Machine], None]] = {
    0x80: lambda machine: None if machine.number(_BYTE) == 2 else _other_protocol(),
    ord("}"): _constant(dict),
    ord("]"): _constant(list),
    ord(")"): _constant(tuple),
    ord("N"): _constant(lambda: None),
    0x88: _constant(lambda: True),
    0x89: _constant(lambda: False),
    ord("J"): _number(_INT),
    ord("K"): _number(_BYTE),
    ord("M"): _number(_SHORT),
    ord("G"): _number(_DOUBLE),
    0x8A: _long,
    ord("X"): _text,
    0x85: _tuple(1),
    0x86: _tuple(2),
    0x87: _tuple(3),
    ord("t"): _tuple_since_mark,
    ord("("): lambda machine: machine.marks.append(len(machine.stack)),
    ord("a"): _append,
    ord("e"): _appends,
    ord("s"): _set_item,
    ord("u"): _set_items,
    ord("q"): _remember(_BYTE),
    ord("r"): _remember(_LONG),
    ord("h"): _recall(_BYTE),
    ord("j"): _recall(_LONG),
    ord("c"): _name,
    ord("Q"): _stored,
    ord("R"): _call,
}


def _other_protocol() -> None:
    raise CheckpointError("its description is damaged (not of pickle's protocol 2)")
