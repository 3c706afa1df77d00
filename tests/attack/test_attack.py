"""The small form of every attack: a few cases of each family; the large form is `make attack`."""

import os
import signal
import sys

import pytest

from tests.attack.catalogue import FAMILIES
from tests.attack.harness import Arena, Family, Refused, Trap, attack
from tests.attack.outcomes import Tally
from tests.attack.running import Changes

SEED = int(os.environ.get("ASECALC_ATTACK_SEED", "0"))


@pytest.mark.parametrize("name", sorted(name for name, family in FAMILIES.items() if family.small))
def test_attack(name):
    family, tally = FAMILIES[name], Tally()
    for case, result in attack(family, SEED, range(family.small)):
        tally.add(case, result)
    print(f"seed {SEED}, {name}: {tally}")
    assert tally.failures == [], f"seed {SEED}, {tally}"


def _made(attempt, **limits):
    return Family("made up", lambda arena: ("x", lambda: attempt(arena)), 1, 1, **limits).run(0, 0)


def _spring(arena: Arena):
    Trap(arena.trap).__reduce__()[0](str(arena.trap))
    raise Refused("too late")


def _burn(arena: Arena):
    while True:
        pass


def _swallow(arena: Arena):
    from asecalc_mlip.errors import InputError

    try:
        bytearray(1 << 44)
    except MemoryError as error:
        raise InputError("the file is damaged") from error


@pytest.mark.parametrize(
    ("attempt", "outcome"),
    [
        (lambda arena: True, "equal"),
        (lambda arena: "3 eV off", "silent_wrong"),
        (lambda arena: 1 / 0, "raw_traceback"),
        (lambda arena: os.kill(os.getpid(), 9), "raw_traceback"),
        (_spring, "executed"),
        (_swallow, "beyond_limits"),
        (lambda arena: bool(bytearray(300_000_000)), "beyond_limits"),
        (_burn, "beyond_limits"),
    ],
)
def test_the_harness_tells_outcomes_apart(attempt, outcome):
    from tests.attack.harness import ISOLATED

    if not ISOLATED:
        pytest.skip("cases have no process of their own here")
    assert _made(attempt, gigabytes=0.2, seconds=0.02).outcome == outcome


def test_cases_share_a_process_up_to_the_first_that_does_not_end_well():
    from tests.attack.harness import ISOLATED

    def prepare(arena):
        return (
            "x",
            lambda: os.kill(os.getpid(), 9) if arena.case == 3 else setattr(arena, "note", str(os.getpid())) or True,
        )

    if not ISOLATED:
        pytest.skip("cases have no process of their own here")
    results = [result for _, result in attack(Family("made up", prepare, 1, 1, together=4), 0, range(8))]
    assert [result.well for result in results] == [case != 3 for case in range(8)]
    processes = [result.told for result in results if result.well]
    assert len(set(processes[:3])) == len(set(processes[3:])) == 1 and processes[0] != processes[3]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_process_is_killed_just_before_a_change_of_a_file(tmp_path):
    child = os.fork()
    if child == 0:
        sys.addaudithook(Changes(3))
        (tmp_path / "a").write_text("whole")
        (tmp_path / "a").rename(tmp_path / "b")
        (tmp_path / "c").write_text("never")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("b", "whole")]


def test_a_refusal_has_a_message():
    def refuse(text):
        raise Refused(text)

    assert _made(lambda arena: refuse("file x is damaged")).outcome == "refused"
    for message in ("", "x" * 5000, "name \udcff"):
        assert _made(lambda arena, message=message: refuse(message)).outcome == "raw_traceback"
