"""Labels by workers: in order, none twice, none lost."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lj import LennardJones

from asecalc_mlip.errors import InputError
from asecalc_mlip.locks import lock_of
from asecalc_mlip.stopping import PERMIT, Interrupted, Permit, SoftStop, at_work, stop_wanted
from asecalc_mlip.teachers import Failed, TeacherOptions, open_teacher
from asecalc_mlip.teachers.base import AseTeacher, Labels
from asecalc_mlip.teachers.labelling import failures_of, label_structures
from asecalc_mlip.teachers.side_by_side import side_by_side
from asecalc_mlip.workers import Workers, each
from tests.inline import Inline

TOY = """
import os
import signal
from pathlib import Path
from ase.calculators.lj import LennardJones

class Toy(LennardJones):
    def calculate(self, atoms=None, properties=None, system_changes=None):
        with open(Path(__file__).with_name("calls.txt"), "a") as file:
            file.write("x")
        if os.environ.get("CTRL_C"):
            signal.raise_signal(signal.SIGINT)
            raise RuntimeError("the program ended with exit status 130")
        if atoms.positions[1, 0] > 2.9:
            raise RuntimeError("SCF not converged")
        if atoms.positions[1, 0] < 0.5:
            os._exit(9)
        Path(self.directory).mkdir(exist_ok=True)
        (Path(self.directory) / "output.txt").write_text("mine")
        super().calculate(atoms, properties, system_changes)

calculator = Toy(epsilon=0.1, sigma=1.3)
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("toy.py").write_text(TOY)
    return open_teacher("toy.py")


def _dimers(*distances):
    return [Atoms("Ar2", [[0, 0, 0], [d, 0, 0]]) for d in distances]


def _calls():
    return len(Path("calls.txt").read_text()) if Path("calls.txt").exists() else 0


DISTANCES = (1.4, 1.5, 3.0, 1.7, 1.8)  # the third fails


def _spread(toy, structures, pool, **given):
    return side_by_side(toy, "toy.py", TeacherOptions(), structures, Path("ahead.jsonl"), pool=pool, **given)


@pytest.mark.parametrize("backwards", [False, True])
def test_the_file_is_that_of_one_process_in_whatever_order_labels_come(toy, tmp_path, backwards):
    structures = _dimers(*DISTANCES)
    label_structures(structures, toy, "alone.xyz", progress=False)
    calls = _calls()
    with _spread(toy, structures, Inline(tmp_path, 5, backwards=backwards)) as teacher:
        label_structures(structures, teacher, "spread.xyz", progress=False)
    assert _calls() == 2 * calls
    for name in ("{}.xyz", "{}.failed.jsonl"):
        assert Path(name.format("spread")).read_bytes() == Path(name.format("alone")).read_bytes()
    assert [one["number"] for one in failures_of("spread.xyz")] == [2]
    assert not Path("ahead.jsonl").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_labels_before_their_turn_outlive_the_process(toy, tmp_path, workers):
    """An error stands for a kill after the first label, with all others there already."""
    structures = _dimers(*DISTANCES)
    with pytest.raises(ZeroDivisionError), _spread(toy, structures, Inline(tmp_path, 5)) as teacher:
        label_structures(structures[:1], teacher, "out.xyz", progress=False)
        raise ZeroDivisionError
    text = Path("ahead.jsonl").read_text().rstrip("\n")
    Path("ahead.jsonl").write_text(text[:-20])  # the last was cut off
    calls = _calls()
    with _spread(toy, structures[1:], Inline(tmp_path, 2) if workers else None) as teacher:
        label_structures(structures, teacher, "out.xyz", progress=False)
    assert _calls() == calls + 1
    label_structures(structures, toy, "alone.xyz", progress=False)
    assert Path("out.xyz").read_bytes() == Path("alone.xyz").read_bytes()


def test_after_a_stop_no_label_begins_and_those_at_work_are_kept(toy, tmp_path):
    structures, stopped = _dimers(*DISTANCES), []
    with _spread(toy, structures, Inline(tmp_path, 2), stop=lambda: bool(stopped)) as teacher:
        assert next(teacher.label(structures[:1]))
        stopped.append(True)
        assert next(teacher.label(structures[1:2]))
        assert _calls() == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_a_program_that_ctrl_c_ends_has_not_failed(toy, tmp_path, monkeypatch, workers):
    """A terminal sends Ctrl-C to the program that labels as well, and it ends with an error."""
    pool = Inline(tmp_path, 2) if workers else None
    monkeypatch.setenv("CTRL_C", "1")
    structures = _dimers(*DISTANCES)
    with SoftStop() as stop, pytest.raises(Interrupted):
        with _spread(toy, structures, pool, stop=lambda: stop.signal is not None) as teacher:
            label_structures(structures, teacher, "out.xyz", progress=False)
    assert failures_of("out.xyz") == []
    monkeypatch.delenv("CTRL_C")
    with _spread(toy, structures, pool) as teacher:
        label_structures(structures, teacher, "out.xyz", progress=False)
    assert [one["number"] for one in failures_of("out.xyz")] == [2]


def test_a_worker_that_dies_costs_one_label(toy, tmp_path):
    structures = _dimers(1.4, 1.5)
    with _spread(toy, structures, Inline(tmp_path, lost=(0,))) as teacher:
        first, second = teacher.label(structures)
    assert first == Failed("the process at work on it died") and second.energy < 0


def test_a_worker_with_another_teacher_is_refused(toy, tmp_path):
    structures = _dimers(1.4)
    Path("toy.py").write_text(TOY.replace("0.1", "0.2"))
    with pytest.raises(InputError, match="labels would be by .*same versions .*on the worker"):
        with _spread(toy, structures, Inline(tmp_path)) as teacher:
            list(teacher.label(structures))


def test_processes_label_apart_and_may_die(toy, tmp_path):
    """Two real ones: one structure kills each that labels it, and the others have labels."""
    structures = _dimers(1.4, 0.1, 1.5, 1.6)
    with Workers(2).open(tmp_path) as pool, _spread(toy, structures, pool) as teacher:
        found = list(teacher.label(structures))
    assert found[1] == Failed("the process at work on it died 2 times: it was killed, or ran out of memory")
    alone = list(toy.label([structures[k] for k in (0, 2, 3)]))
    assert [found[k].energy for k in (0, 2, 3)] == [labels.energy for labels in alone]
    np.testing.assert_array_equal(found[3].forces, alone[2].forces)
    assert all(path.parent.name.startswith("labels-") for path in tmp_path.glob("labels-*/output.txt"))
    assert list(tmp_path.glob("labels-*/output.txt"))
    assert not list(tmp_path.glob(".*workers*"))


def test_a_calculator_that_writes_nothing_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    teacher = AseTeacher("pair", LennardJones(epsilon=0.1, sigma=1.3))
    teacher.write_apart("labels-here")
    assert all(isinstance(found, Labels) for found in teacher.label(_dimers(1.4, 1.5)))
    assert not list(tmp_path.iterdir())


def _ask(*answers):
    return [stop_wanted() for _ in answers]


def test_a_task_is_to_stop_when_its_pool_is_stopped_or_another_one_takes_over(tmp_path):
    assert not stop_wanted()
    first = Permit.give(tmp_path / ".workers")
    assert at_work(first, _ask, (1,)) == [False]
    second = Permit.give(tmp_path / ".workers")
    assert at_work(Permit(first.path, first.token), _ask, (1,)) == [True]
    assert at_work(second, _ask, (1,)) == [False] and not stop_wanted()
    second.take_back()
    assert at_work(Permit(second.path, second.token), _ask, (1,)) == [True]


def test_work_without_workers_takes_the_permit_of_a_killed_process(tmp_path):
    permit = Permit.give(tmp_path / PERMIT)
    lock_of(permit.path).touch()
    with Workers().open(tmp_path) as pool:
        assert pool is None and at_work(permit, _ask, (1,)) == [True]
    assert not list(tmp_path.iterdir())


def _fail(number):
    if number == 1:
        raise InputError("this one")
    return number


def test_the_error_of_a_task_is_raised_and_a_folder_has_one_giver(tmp_path):
    with pytest.raises(InputError, match="this one"):
        list(each(Inline(tmp_path), _fail, [(0,), (1,), (2,)]))
    assert dict(each(Inline(tmp_path), _fail, [(0,), (2,), (3,)])) == {0: 0, 1: 2, 2: 3}
    with Workers(2).open(tmp_path), pytest.raises(InputError, match="in use by another"):
        with Workers(2).open(tmp_path):
            pass
    with pytest.raises(InputError, match="--processes must be at least 1"):
        Workers(0)


def test_labels_are_read_back_as_they_were(toy, tmp_path):
    """Digit by digit: the file of labels must not depend on who computed them."""
    structures = _dimers(1.4321987654321, 1.5)
    (wanted, _) = toy.label(structures)
    with pytest.raises(ZeroDivisionError), _spread(toy, structures, Inline(tmp_path)) as teacher:
        next(teacher.label(structures))
        raise ZeroDivisionError
    entry = json.loads(Path("ahead.jsonl").read_text().split("\n")[1])
    assert entry["energy"] == wanted.energy and entry["forces"] == wanted.forces.tolist()
