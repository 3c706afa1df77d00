"""PySCF as a teacher: ground states of atoms and dimers, and cores of heavy elements."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms

from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.errors import InputError
from asecalc_mlip.teachers import Failed, Labels


def test_pyscf_dimer_of_hydrogen(tmp_path, monkeypatch):
    pytest.importorskip("pyscf")
    from asecalc_mlip.teachers import atoms as module

    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path)
    path = module.write_atoms(["H"], "PBE/def2-SVP", tmp_path / "h.xyz", dimers=4, longest=1.5, progress=False)
    atom, *pairs = read_frames(path)
    energies = [p.info["energy"] - 2 * atom.info["energy"] for p in pairs]
    # PBE/def2-SVP: H-H -4.4 eV at 0.75 Å; a wall inside, a bound pair outside.
    assert energies[0] > 30 and -4.5 < min(energies) < -1.0
    assert len(json.loads(next((tmp_path / "atoms").iterdir()).read_text())) == 5


def test_a_state_that_is_lower_but_not_converged_is_no_ground_state_of_another_spin():
    """The triplet of O2 is 0.4 eV below what broken symmetry finds without it."""
    from asecalc_mlip.teachers.pyscf import _Unconverged, ground_state

    def lowest(triplet):
        energies = {0: Labels(-1.0, np.zeros((2, 3))), 2: triplet, 4: Failed("too few orbitals")}
        solver = SimpleNamespace(solve=lambda atoms, unpaired, *, broken=False: energies[unpaired])
        return ground_state(solver, Atoms("O2"))

    assert lowest(_Unconverged("150 cycles", -1.4)).reason == "150 cycles"
    # An energy of a field that is not self-consistent is an upper bound: these may be lower, but nothing says so.
    for other in (_Unconverged("150 cycles", -0.9), _Unconverged("150 cycles", -1.0005), Failed("no field")):
        assert lowest(other).energy == -1.0


def test_pyscf_writes_no_files():
    """On a full disk HDF5 ends the process by a segmentation fault."""
    pytest.importorskip("pyscf")
    from asecalc_mlip.teachers.pyscf import PyscfTeacher

    field = PyscfTeacher("LDA/sto-3g")._field(Atoms("He"), 0, False)
    assert field.chkfile is None and field.newton().chkfile is None


def test_pyscf_leaves_cores_of_heavy_elements_to_their_potential(tmp_path, monkeypatch):
    pytest.importorskip("pyscf")
    from asecalc_mlip.teachers import atoms as module
    from asecalc_mlip.teachers.pyscf import PyscfTeacher

    field = PyscfTeacher("PBE/def2-SVP")._field(Atoms("IBrH2", np.eye(4, 3) * 2.0), 0, False)
    assert field.mol.nelectron == 53 - 28 + 35 + 2 and set(field.mol.ecp) == {"I"}
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path)
    # What a cache of before holds of iodine is not taken.
    old = {symbol: {"energy": 1.0, "forces": [[0.0, 0.0, 0.0]]} for symbol in ("I", "H")}
    states = module.GroundStates("PBE/def2-SVP")
    states.path.parent.mkdir()
    states.path.write_text(json.dumps(old))
    assert states._known(Atoms("I")) is None and states._known(Atoms("H")).energy == 1.0
    assert states.teacher.notes(Atoms("IBrH2")) == {"core_potentials": "I"} and states.teacher.notes(Atoms("Br")) == {}
    with pytest.raises(InputError, match="gth-szv is of valence electrons alone"):
        PyscfTeacher("PBE/gth-szv")
