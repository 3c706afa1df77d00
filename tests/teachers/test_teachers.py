"""Teachers: what they say of a structure, what they are called, and files that go on."""

import os
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from asecalc_mlip.calculators.piwsl import PIWSLCalculator
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.errors import DataError, InputError
from asecalc_mlip.locks import locked_file
from asecalc_mlip.teachers import Failed, Labels, TeacherOptions, labelling, open_teacher
from asecalc_mlip.teachers.bare import states_of, with_state
from asecalc_mlip.teachers.base import AseTeacher, checked
from asecalc_mlip.teachers.corrected import CorrectedTeacher
from asecalc_mlip.teachers.labelling import failures_of, label_structures
from asecalc_mlip.teachers.structures import isolated_atoms, isolated_dimers
from training.far.sources import make_structures
from training.settings import FarConfig


def _argon(distance: float = 3.8) -> Atoms:
    return Atoms("Ar2", [[0, 0, 0], [0, 0, distance]])


def _teacher(**settings) -> AseTeacher:
    return AseTeacher("lj", LennardJones(epsilon=0.01, sigma=3.4, rc=12.0, **settings), {"version": 1})


def test_labels_of_an_ase_calculator_are_its_own():
    atoms = _argon()
    (found,) = _teacher().label([atoms])
    atoms.calc = LennardJones(epsilon=0.01, sigma=3.4, rc=12.0)
    assert found.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-14)
    np.testing.assert_allclose(found.forces, atoms.get_forces(), atol=1e-14)
    assert found.stress is None


def test_stress_of_a_crystal_is_a_symmetric_matrix():
    crystal = bulk("Cu", cubic=True)
    crystal.rattle(0.05, seed=0)
    (found,) = AseTeacher("emt", EMT()).label([crystal])
    crystal.calc = EMT()
    np.testing.assert_allclose(found.stress, crystal.get_stress(voigt=False), atol=1e-12)


def test_a_program_that_has_no_stress_in_its_mode_gives_the_rest():
    class Without(EMT):
        def get_property(self, name, atoms=None, allow_calculation=True):
            if name == "stress":
                raise PropertyNotImplementedError("stress not present in this calculation")
            return super().get_property(name, atoms, allow_calculation)

    (found,) = AseTeacher("emt", Without()).label([bulk("Cu", cubic=True)])
    assert isinstance(found, Labels) and found.stress is None


def test_a_label_that_fails_is_recorded_and_not_tried_again(tmp_path):
    class Picky(LennardJones):
        asked = 0

        def calculate(self, atoms=None, properties=None, system_changes=()):
            Picky.asked += 1
            if atoms.get_distance(0, 1) < 1.0:
                raise RuntimeError("no convergence")
            super().calculate(atoms, properties, system_changes)

    teacher = AseTeacher("picky", Picky(epsilon=0.01, sigma=3.4, rc=12.0))
    path = tmp_path / "labels.xyz"
    structures = [_argon(d) for d in (3.6, 0.5, 4.0)]
    for _ in range(2):
        label_structures(structures, teacher, path, progress=False)
        assert [len(a) for a in read_frames(path)] == [2, 2]
        assert failures_of(path) == [{"number": 1, "formula": "Ar2", "reason": "RuntimeError: no convergence"}]
    assert Picky.asked == 3
    # Also beside a line that a full disk has cut off.
    beside = tmp_path / "labels.failed.jsonl"
    beside.write_text(beside.read_text() + '{"number": 3, "reason": "KeyError: {0}')
    label_structures([*structures, _argon(0.4)], teacher, path, progress=False)
    assert [one["number"] for one in failures_of(path)] == [1, 3]


def test_failures_without_a_label_are_tried_again_where_asked(tmp_path):
    class Missing(LennardJones):
        def calculate(self, atoms=None, properties=None, system_changes=()):
            raise FileNotFoundError("no such program")

    path, structures = tmp_path / "labels.xyz", [_argon(3.6), _argon(4.0)]
    label_structures(structures, AseTeacher("lj", Missing(), {"version": 1}), path, progress=False)
    assert len(failures_of(path)) == 2
    label_structures(structures, _teacher(), path, progress=False)
    assert len(failures_of(path)) == 2 and not path.exists()
    label_structures(structures, _teacher(), path, progress=False, again=True)
    assert failures_of(path) == [] and len(read_frames(path)) == 2


def _ion() -> Atoms:
    ion = molecule("OH")
    ion.set_initial_magnetic_moments([0.5, 0.5])
    ion.set_initial_charges([-0.7, -0.3])
    ion.info.update(spin=2, name="hydroxide")
    return ion


def test_ase_calculators_see_moments_and_charges():
    class Seeing(LennardJones):
        def calculate(self, atoms=None, properties=None, system_changes=()):
            self.seen = atoms.get_initial_magnetic_moments(), atoms.get_initial_charges(), dict(atoms.info)
            super().calculate(atoms, properties, system_changes)

    calculator = Seeing()
    next(AseTeacher("lj", calculator).label([_ion()]))
    moments, charges, info = calculator.seen
    assert moments.tolist() == [0.5, 0.5] and charges.tolist() == [-0.7, -0.3] and info == {"spin": 2}


def test_charge_and_spin_are_those_that_a_structure_states_unless_given():
    ion = _ion()
    assert (TeacherOptions().charge_of(ion), TeacherOptions(charge=1).charge_of(ion)) == (-1, 1)
    ion.info["charge"] = 0
    assert TeacherOptions().charge_of(ion) == 0 and TeacherOptions().unpaired(ion) == 1
    oxygen = molecule("O2")
    oxygen.set_initial_magnetic_moments([1.0, 1.0])
    assert TeacherOptions().unpaired(oxygen) == 2 and TeacherOptions(multiplicity=1).unpaired(oxygen) == 0
    oxygen.set_initial_magnetic_moments([0.6, 0.4])  # a guess, which the electrons do not allow
    assert TeacherOptions().unpaired(oxygen) == 0
    oxygen.info["multiplicity"] = 2
    with pytest.raises(InputError, match="multiplicity 2"):
        TeacherOptions().unpaired(oxygen)


def test_copies_of_a_structure_keep_its_electronic_state():
    ion, teacher = _ion(), AseTeacher("lj", LennardJones(epsilon=1.0, sigma=0.85))
    made = make_structures([ion], FarConfig(sources=["bonds", "two_step", "dynamics"], n=1), 4.0, teacher)
    assert {atoms.info["config_type"] for atoms in made} == {"far_bonds", "far_two_step", "far_dynamics"}
    for atoms in made:
        assert atoms.get_initial_charges().tolist() == [-0.7, -0.3] and atoms.info["spin"] == 2
        assert "name" not in atoms.info
    assert states_of(made) and not states_of([molecule("H2O")])


def test_xtb_labels_ions_as_ions(tmp_path):
    pytest.importorskip("tblite")
    ion = molecule("OH")
    (stated,), (given,) = (
        list(open_teacher("xtb", options).label([atoms]))
        for options, atoms in ((None, with_state(ion.copy(), _ion())), (TeacherOptions(charge=-1), ion))
    )
    assert stated.energy == given.energy
    # The file says what is the same for all, and each frame what it states itself.
    charged = ion.copy()
    charged.info["charge"] = -1
    path = label_structures([charged], open_teacher("xtb"), tmp_path / "ion.xyz", progress=False)
    assert read_frames(path)[0].info["charge"] == -1
    label_structures([charged, ion], open_teacher("xtb"), path, progress=False)
    assert [atoms.info["energy"] == pytest.approx(given.energy) for atoms in read_frames(path)] == [True, False]


def test_overlapping_atoms_are_a_failure_of_our_own_calculators_too():
    calculator = PIWSLCalculator.load("aspirin.pt")
    teacher = AseTeacher("ours", calculator)
    failed, fine = teacher.label([Atoms("OH", [[0, 0, 0], [0, 0, 0.05]]), molecule("OH")])
    assert isinstance(failed, Failed) and "0.050 Å apart" in failed.reason
    assert isinstance(fine, Labels)
    with pytest.raises(InputError, match="does not know the element Cu"):
        next(teacher.label([bulk("Cu")]))


def test_a_file_that_was_cut_off_goes_on_to_the_same_bytes(tmp_path):
    structures = [_argon(d) for d in np.linspace(3.3, 6.0, 6)]
    whole = label_structures(structures, _teacher(), tmp_path / "whole.xyz", progress=False).read_bytes()
    cut = tmp_path / "cut.xyz"
    cut.write_bytes(whole[: len(whole) // 2])
    assert label_structures(structures, _teacher(), cut, progress=False).read_bytes() == whole


def test_a_file_of_another_teacher_is_refused(tmp_path):
    path = label_structures([_argon()], _teacher(), tmp_path / "labels.xyz", progress=False)
    other = AseTeacher("lj", LennardJones(), {"version": 2})
    with pytest.raises(InputError, match="another recipe"):
        label_structures([_argon(), _argon()], other, path, progress=False)


def test_absurd_forces_and_no_numbers_are_failures():
    (hot,) = _teacher().label([_argon(0.05)])
    assert isinstance(hot, Failed) and "eV/Å" in hot.reason
    for energy, stress in ((np.nan, None), (1.0, np.diag([1.0, np.nan, 1.0]))):
        assert isinstance(checked(Labels(energy, np.zeros((1, 3)), stress)), Failed)


@pytest.mark.parametrize("name", ["xtb:GFN9", "nothing:here", "missing.pt", "missing.py:calculator", "pyscf:PBE"])
def test_names_that_say_nothing_are_refused_with_advice(name):
    with pytest.raises(InputError):
        open_teacher(name)


def test_a_calculator_of_a_python_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from ase.calculators.lj import LennardJones\n"
        "calculator = LennardJones(epsilon=0.01, sigma=3.4, rc=12.0)\n"
        "def made():\n    return LennardJones(epsilon=0.02, sigma=3.4, rc=12.0)\n"
    )
    one, two = (next(iter(open_teacher(f"{file}{name}").label([_argon()]))) for name in ("", ":made"))
    assert two.energy == pytest.approx(2 * one.energy)
    file.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom ase.calculators.lj import *\n"
        "@dataclass\nclass Settings:\n    epsilon: float = 0.01\n"
        "calculator = LennardJones(epsilon=Settings().epsilon, sigma=3.4, rc=12.0)\n"
    )
    assert next(iter(open_teacher(str(file)).label([_argon()]))).energy == one.energy
    ends = tmp_path / "ends.py"
    ends.write_text("import sys\nsys.exit(2)\n")
    with pytest.raises(InputError, match=r"ends\.py ends the process where it is read"):
        open_teacher(str(ends))
    with pytest.raises(InputError, match="no ASE calculator 'other'"):
        open_teacher(f"{file}:other")


def test_a_python_file_is_read_as_it_is_now(tmp_path, monkeypatch):
    """Bytecode beside a file holds for any text of this second and of this length."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = tmp_path / "mine.py"
    energies = []
    for epsilon in (0.01, 0.02):
        file.write_text(f"from ase.calculators.lj import *\ncalculator = LennardJones(epsilon={epsilon}, rc=9)\n")
        os.utime(file, (1e9, 1e9))
        energies += [next(iter(open_teacher(str(file)).label([_argon()]))).energy]
    assert energies[1] == pytest.approx(2 * energies[0]) and list(tmp_path.iterdir()) == [file]


def test_a_model_file_labels_in_batches_and_names_its_checksum():
    teacher = open_teacher("aspirin.pt")
    atoms = [molecule("CH3COOH"), molecule("CH3CH2OH")]
    found = list(teacher.label(atoms))
    assert all(isinstance(labels, Labels) for labels in found)
    atoms[0].calc = teacher.calculator
    assert found[0].energy == pytest.approx(atoms[0].get_potential_energy(), abs=1e-3)
    assert teacher.recipe()["teacher_sha256"].startswith("x")
    with pytest.raises(InputError):
        list(teacher.label([bulk("Cu")]))
    overlap = Atoms("OH", [[0, 0, 0], [0, 0, 0.05]])
    first, failed, last = teacher.label([atoms[0], overlap, atoms[1]])
    assert isinstance(failed, Failed) and failed.reason.startswith("atoms 0 and 1 are 0.050 Å apart")
    assert first.energy == pytest.approx(found[0].energy) and last.energy == pytest.approx(found[1].energy)


def test_spin_that_the_electrons_do_not_allow_is_refused():
    with pytest.raises(InputError, match="multiplicity 2"):
        TeacherOptions(multiplicity=2).unpaired(molecule("H2O"))
    assert TeacherOptions().unpaired(molecule("OH")) == 1


def test_xtb_labels_molecules_and_radicals_of_one_file():
    pytest.importorskip("tblite")
    found = list(open_teacher("xtb").label([molecule("H2O"), molecule("OH"), molecule("H2O")]))
    assert found[0].energy == found[2].energy and found[1].energy > found[0].energy


def test_isolated_structures_reach_from_overlap_to_the_cutoff():
    assert [len(a) for a in isolated_atoms([8, 1])] == [1, 1]
    frames = isolated_dimers([1, 8], 7, 5.0)
    assert len(frames) == 21
    distances = [a.get_distance(0, 1) for a in frames[:7]]
    assert distances[0] == pytest.approx(0.2 * 0.62, abs=1e-3) and distances[-1] == 5.0
    assert {a.info["config_type"] for a in frames} == {"IsolatedDimer"}


class _Atoms:
    """Stands in for PySCF: an energy by element and distance, and no oxygen atom."""

    name = "stand-in"

    def __init__(self, level):
        pass

    def recipe(self):
        return {"teacher": self.name}

    def label(self, structures):
        for atoms in structures:
            energy = -float(atoms.numbers.sum()) + len(atoms)
            fails = atoms.numbers.tolist() == [8]
            yield Failed("no convergence") if fails else Labels(energy, np.zeros((len(atoms), 3)))


def test_files_of_atoms_go_on_with_the_same_ones_only(tmp_path, monkeypatch):
    from asecalc_mlip.teachers import atoms as module

    monkeypatch.setattr(module, "GroundStates", _Atoms)
    path = tmp_path / "atoms.xyz"
    module.write_atoms(["H", "N"], "PBE/x", path, progress=False)
    for elements, dimers in ((["H", "C", "N"], 0), (["H"], 3)):  # what follows would be nitrogen once more
        with pytest.raises(InputError, match="other atoms or dimers"):
            module.write_atoms(elements, "PBE/x", path, dimers=dimers, progress=False)
    module.write_atoms(["H", "N"], "PBE/x", path, dimers=3, progress=False)
    assert len(read_frames(path)) == 2 + 9
    # Dimers do not make up for an atom.
    with locked_file(path), pytest.raises(InputError, match=r"atoms\.xyz is in use by another running process"):
        module.write_atoms(["H", "N"], "PBE/x", path, dimers=3, progress=False)
    with pytest.raises(DataError, match="isolated atom O did not converge"):
        module.write_atoms(["H", "O"], "PBE/x", tmp_path / "other.xyz", dimers=3, progress=False)


class _WithNotes:
    """A teacher whose older version computed the labels of krypton in another way, and said nothing of it."""

    name, asked, batches = "noting", 0, ()

    def recipe(self):
        return {"teacher": self.name}

    def label(self, structures):
        self.batches = (*self.batches, len(structures))
        return (Labels(1.0, np.zeros((len(atoms), 3))) for atoms in structures)

    def notes(self, atoms):
        return {"core_potentials": "Kr"} if 36 in atoms.numbers else {}


@pytest.mark.parametrize("suffix", ["xyz", "db"])
def test_labels_that_an_older_version_made_otherwise_are_not_continued(suffix, tmp_path, monkeypatch):
    path, light, heavy = tmp_path / f"labels.{suffix}", [_argon(3.6), _argon(4.0)], Atoms("Kr2", [[0, 0, 0], [0, 0, 4]])
    teacher = CorrectedTeacher(_WithNotes(), [])
    teacher.label = teacher.teacher.label
    with monkeypatch.context() as patch:
        patch.delattr(_WithNotes, "notes")
        label_structures(light, teacher, path, progress=False)
    # Frames that are right go on, and what is new says how it was made.
    for _ in range(2):
        label_structures([*light, heavy], teacher, path, progress=False)
    assert [atoms.info.get("core_potentials") for atoms in read_frames(path)] == [None, None, "Kr"]
    old = tmp_path / f"old.{suffix}"
    with monkeypatch.context() as patch:
        patch.delattr(_WithNotes, "notes")
        label_structures([*light, heavy], teacher, old, progress=False)
    with pytest.raises(
        InputError, match=r"frame 2 of old.* \(Kr2\) was labelled by an older version, without core_pot"
    ):
        label_structures([*light, heavy, heavy], teacher, old, progress=False)


def test_structures_are_made_when_they_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(labelling, "AT_ONCE", 2)
    teacher = _WithNotes()
    label_structures(5 * [_argon(3.6)], teacher, tmp_path / "labels.xyz", progress=False)
    assert teacher.batches == (2, 2, 1) and len(read_frames(tmp_path / "labels.xyz")) == 5
