"""Faults of labels that sizes do not show: units, sign, order of atoms, single calculations that failed."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from asecalc_mlip.data.census import census
from asecalc_mlip.errors import DataError
from tests.teacher import crystal_frames, molecule_frames

ALL = {"energy": 0.1, "forces": 0.9}
BOHR, HARTREE = 0.529177, 27.2114


def spoiled(change, make=lambda: molecule_frames(30, seed=1)):
    frames = make()
    for atoms in frames:
        change(atoms)
    return census(frames)


def bohr(atoms):
    atoms.set_cell(atoms.cell / BOHR, scale_atoms=False)
    atoms.positions /= BOHR


@pytest.mark.parametrize("make", [lambda: molecule_frames(30, seed=1), lambda: crystal_frames(10)])
def test_sound_data_pass_and_bohr_is_found(make):
    sound = census(make())
    assert not sound.problems and not sound.warnings
    with pytest.raises(DataError, match=r"nearest neighbour, which is no bond: are the positions in Bohr\?"):
        spoiled(bohr, make).require(ALL)
    spoiled(bohr, make).require(ALL, allow_implausible=["structure"])


def test_forces_of_the_opposite_sign_are_refused():
    with pytest.raises(DataError, match="the opposite sign, as gradients of the energy have"):
        spoiled(lambda atoms: atoms.set_array("forces", -atoms.arrays["forces"])).require(ALL)


def test_forces_of_other_atoms_and_in_hartree_are_told():
    (text,) = spoiled(lambda atoms: atoms.set_array("forces", atoms.arrays["forces"][::-1].copy())).warnings
    assert "do they belong to these atoms, in this order?" in text
    for unit in (HARTREE, HARTREE / BOHR):
        (text,) = spoiled(lambda atoms, unit=unit: atoms.set_array("forces", atoms.arrays["forces"] / unit)).warnings
        assert "are energies and forces in Hartree?" in text


def test_small_forces_in_kcal_are_told_by_the_stiffness_of_bonds():
    def make():
        return [a for name in ("CH4", "C2H6", "H2O2") for a in molecule_frames(9, name=name, spread=0.01)]

    def change(atoms):
        atoms.info["energy"] = 0.1 * len(atoms) + 23.06 * (atoms.info["energy"] % 0.1)  # of a zero of their own
        atoms.arrays["forces"] *= 23.06

    assert not any("stiffness" in text for text in census(make()).warnings)
    found = spoiled(change, make)
    assert not found.problems and any("energies and forces in kcal/mol or kJ/mol?" in text for text in found.warnings)


def test_single_energies_far_off_are_told():
    frames = molecule_frames(30, seed=1)
    frames[3].info["energy"] += 500.0
    frames[7].info["energy"] -= 30.0
    (text,) = census(frames).warnings
    assert "2 energies are far from the rest" in text and "frame 3 (+55.5), frame 7 (-3.25)" in text


def test_isolated_atoms_are_not_far_from_the_rest():
    frames = molecule_frames(30, seed=1)
    for symbol, energy in (("H", -13.6), ("C", -1027.0), ("O", -2041.0)):
        atom = Atoms(symbol, info={"energy": energy + 3.0, "config_type": "IsolatedAtom"})
        atom.arrays["forces"] = np.zeros((1, 3))
        frames.append(atom)
    found = census(frames)
    assert found.n_isolated == 3 and not found.problems and not found.warnings


def test_what_has_no_bonds_passes():
    gas = [bulk("Ar", cubic=True) * 2 for _ in range(5)]
    dimers = [Atoms("H2", [[0, 0, 0], [0, 0, d]]) for d in np.linspace(2.0, 6.0, 10)]
    atoms = [Atoms("H"), Atoms("C")]
    for frames in (gas, dimers, atoms):
        for k, frame in enumerate(frames):
            frame.rattle(0.01, seed=k)
        assert not census(frames).problems and not census(frames).warnings


def test_real_data_pass(data_file):
    from asecalc_mlip.data.readers import read_frames

    for name in ("rmd17_ethanol_train.xyz", "mlearn_Li_test.xyz", "water_revpbe0d3_train30.xyz"):
        found = census(read_frames(data_file(name), index=":100"))
        assert not found.problems and not found.warnings
