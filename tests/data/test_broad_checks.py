"""Energies without forces, energies of many crystals, and forces of symmetric ones are judged by physics."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule

from asecalc_mlip.data.broad_checks import ELECTRONEGATIVITY, check_mixing, check_stiff_bonds
from asecalc_mlip.data.plausibility import check_energies
from asecalc_mlip.data.symmetry_checks import check_symmetry

HA, KCAL, KJ = units.Hartree, units.kcal / units.mol, units.kJ / units.mol


def methanol(n=80):
    """Methanol, shaken, with harmonic bonds of 32 (C–H), 45 (O–H) and 25 eV/Å² (C–O), and some eV of all else."""
    rng, start, frames = np.random.default_rng(3), molecule("CH3OH"), []
    i, j = np.triu_indices(len(start), 1)
    distances = start.get_all_distances()[i, j]
    bonds = np.flatnonzero(distances < 1.6)
    constants = {(6, 1): 32.0, (1, 8): 45.0, (6, 8): 25.0}
    for _ in range(n):
        atoms = start.copy()
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
        now = atoms.get_all_distances()[i, j]
        energy = -3000.0 + 0.05 * rng.normal()
        for k in bonds:
            kind = frozenset((int(start.numbers[i[k]]), int(start.numbers[j[k]])))
            constant = next(value for pair, value in constants.items() if frozenset(pair) == kind)
            energy += 0.5 * constant * (now[k] - distances[k]) ** 2
        atoms.info["energy"] = energy
        frames.append(atoms)
    return frames


def mixed_crystals(n=150):
    """Binary crystals of 24 elements with the energies that Pauling gives them."""
    rng, elements, frames = np.random.default_rng(5), list(ELECTRONEGATIVITY)[2:26], []
    alone = dict(zip(elements, rng.uniform(-8, -2, len(elements)), strict=True))
    for _ in range(n):
        numbers = rng.permutation(elements)[:2].repeat([int(rng.integers(1, 4)), int(rng.integers(1, 4))])
        chi = np.array([ELECTRONEGATIVITY[z] for z in numbers])
        mixing = -0.8 * np.mean((chi[:, None] - chi) ** 2) + 0.1 * rng.normal()
        atoms = Atoms(numbers, rng.uniform(0, 6, (len(numbers), 3)), cell=[6, 6, 6], pbc=True)
        atoms.info["energy"] = float(sum(alone[z] for z in numbers) + len(numbers) * mixing)
        frames.append(atoms)
    return frames


def scaled(frames, factor):
    for atoms in frames:
        atoms.info["energy"] *= factor
    return frames


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (1 / HA, "Hartree (data.energy_unit=Hartree)"),
        (2 / HA, "Rydberg"),
        (1 / KCAL, "kcal/mol"),
        (1 / KJ, "kJ/mol"),
        (-1.0, "other sign"),
        (1 / 6, "eV per atom"),
    ],
)
def test_energies_of_a_molecule_are_judged_by_its_bonds_to_hydrogen(factor, words):
    assert check_stiff_bonds(methanol()) == ([], [])
    problems, (warning,) = check_stiff_bonds(scaled(methanol(), factor))
    assert problems == [] and words in warning and "29 to 70 is usual" in warning


@pytest.mark.parametrize(
    ("factor", "words"), [(1 / HA, "Hartree"), (2 / HA, "Rydberg"), (1 / KCAL, "kcal/mol"), (-1.0, "other sign")]
)
def test_energies_of_many_crystals_are_judged_by_what_mixing_gains(factor, words):
    assert check_mixing(mixed_crystals()) == ([], [])
    problems, (warning,) = check_mixing(scaled(mixed_crystals(), factor))
    assert problems == [] and words in warning and "Pauling" in warning


def test_shuffled_energies_of_many_crystals_are_told():
    frames = mixed_crystals()
    energies = np.random.default_rng(0).permutation([a.info["energy"] / len(a) for a in frames])
    for atoms, energy in zip(frames, energies, strict=True):
        atoms.info["energy"] = float(energy * len(atoms))
    _, (warning,) = check_mixing(frames)
    assert "those of other structures" in warning


@pytest.mark.parametrize("how", ["axes", "order"])
def test_forces_that_break_the_symmetry_of_crystals_are_a_problem(how):
    pytest.importorskip("spglib")
    frames = []
    for k in range(8):
        # Along z alone atoms of each layer move together, and forces along x and y vanish.
        atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
        atoms.positions[:, 2] += 0.05 * (k + 1) * np.where(atoms.numbers == 11, 1.0, 0.0)
        atoms.arrays["forces"] = np.outer(np.where(atoms.numbers == 11, -1.0, 1.0), [0.0, 0.0, 0.1 * (k + 1)])
        frames.append(atoms)
    assert check_symmetry(frames) == ([], [])
    for k, atoms in enumerate(frames):
        forces = atoms.arrays["forces"]
        order = np.random.default_rng(k).permutation(len(atoms))
        atoms.arrays["forces"] = forces[:, ::-1].copy() if how == "axes" else forces[order]
    (problem,), _ = check_symmetry(frames)
    assert problem.label == "forces" and "symmetry" in problem.text
    assert check_symmetry(frames[:5]) == ([], [])  # too few to tell


def test_a_gap_parts_two_energies_from_the_rest():
    frames = methanol()
    assert check_energies(frames) == ([], [])
    for k in (7, 30):
        frames[k].info["energy"] += 6.0  # 1 eV per atom
    _, (warning,) = check_energies(frames)
    assert "2 energies are far from the rest" in warning and "frame 7" in warning and "frame 30" in warning
