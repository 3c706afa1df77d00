"""Density functional theory by PySCF as a teacher: molecules, isolated atoms and isolated dimers.

Energies are those of unrestricted Kohn-Sham where electrons are unpaired or bonds are broken, else restricted. The
density is fitted, which moves energies of ethanol by 5 meV and forces by 1 meV/Å, and is several times faster. Source:
Sun et al., J. Chem. Phys. 153 (2020) 024109.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np
from ase import Atoms
from ase.units import Bohr, Hartree

from asecalc_mlip.errors import InputError
from asecalc_mlip.extras import needs
from asecalc_mlip.teachers.bare import stated_multiplicity
from asecalc_mlip.teachers.base import Failed, Labels, TeacherOptions, checked

__all__ = ["PyscfTeacher", "cores", "ground_state"]

# Unpaired electrons of isolated atoms, by atomic number: Hund's rules for the main groups.
_SHELLS = {
    1: 1,
    2: 0,
    **{z: n for row in (3, 11) for z, n in zip(range(row, row + 8), (1, 0, 1, 2, 3, 2, 1, 0), strict=True)},
}
HUND = {**_SHELLS, 19: 1, 20: 0, **dict(zip(range(31, 37), (1, 2, 3, 2, 1, 0), strict=True)), 53: 1, 54: 0}
# Basis sets of valence electrons alone, with potentials of the cores that have other names.
_OF_VALENCE = ("gth", "ccecp", "bfd")


# eV, by which the energy of a state that did not converge may be below that of the lowest one that did.
_SAME = 1e-3


@dataclass(frozen=True)
class _Unconverged(Failed):
    """A field that is not self-consistent; its energy (eV) is an upper bound of that of the state."""

    energy: float


class PyscfTeacher:
    """Labels by PySCF.

    Parameters
    ----------
    level : str
        Functional and basis, such as "PBE/def2-SVP".
    options : TeacherOptions
    grid : int
        Level of PySCF's integration grid, 0 to 9.
    tolerance : float
        Hartree; change of the energy at which the field counts as self-consistent.
    """

    def __init__(self, level: str, options: TeacherOptions | None = None, *, grid: int = 3, tolerance: float = 1e-9):
        functional, _, basis = level.partition("/")
        if not functional or not basis:
            raise InputError(
                f"pyscf:{level} names no level of theory; give FUNCTIONAL/BASIS, such as pyscf:PBE/def2-SVP"
            )
        self.functional, self.basis, self.grid, self.tolerance = functional, basis, grid, tolerance
        self.options, self.name = options or TeacherOptions(), level
        _check_level(level, functional, basis)

    def recipe(self) -> dict[str, Any]:
        """Return level, version and grid, and charge and multiplicity where they are given for all structures."""
        named = {"teacher": self.name, "pyscf": f"v{version('pyscf')}", "grid": self.grid}
        return {**named, "density_fitting": True, **self.options.recipe()}

    def notes(self, atoms: Atoms) -> dict[str, str]:
        """Return the elements of a structure that have core potentials, which older versions left out."""
        found = cores(self.basis, atoms.get_chemical_symbols())
        return {"core_potentials": "-".join(found)} if found else {}

    def label(self, structures: Sequence[Atoms]) -> Iterator[Labels | Failed]:
        """Yield the labels of each structure, in order; of isolated atoms and dimers those of the lowest state found.

        Raises
        ------
        InputError
            For periodic structures, which need another program.
        """
        for atoms in structures:
            if atoms.pbc.any():
                raise InputError(
                    "pyscf labels molecules here; for periodic structures give an ASE calculator, FILE.py:NAME"
                )
            yield ground_state(self, atoms) if self._is_free(atoms) else self.solve(atoms, self.options.unpaired(atoms))

    def _is_free(self, atoms: Atoms) -> bool:
        """Return whether it is an isolated atom or dimer whose spin nobody gave and that has the spins of the table."""
        options = self.options
        given = options.multiplicity is not None or stated_multiplicity(atoms) is not None
        return (
            not given
            and options.charge_of(atoms) == 0
            and len(atoms) <= 2
            and all(int(z) in HUND for z in atoms.numbers)
        )

    def solve(self, atoms: Atoms, unpaired: int, *, broken: bool = False) -> Labels | Failed:
        """Solve one structure.

        Parameters
        ----------
        atoms : Atoms
        unpaired : int
            Electrons without a partner, 2S.
        broken : bool
            Start a dimer from unlike spins on its two atoms, which a stretched bond needs.
        """
        try:
            field = self._field(atoms, unpaired, broken)
            field.kernel(_broken_guess(field) if broken else None)
            if not field.converged:
                field = field.newton()
                field.kernel(field.mo_coeff, field.mo_occ)
            if not field.converged:
                reason = f"the self-consistent field did not converge in {field.max_cycle} cycles"
                return _Unconverged(reason, float(field.e_tot) * Hartree)
            gradient = field.nuc_grad_method()
            gradient.grid_response = True  # else forces do not add up to zero
            forces = -gradient.kernel() * (Hartree / Bohr)
        except Exception as error:  # linear algebra, basis sets and grids each raise their own kinds
            return Failed(f"{type(error).__name__}: {error}")
        return checked(Labels(float(field.e_tot) * Hartree, np.asarray(forces, dtype=float)))

    def _field(self, atoms: Atoms, unpaired: int, broken: bool) -> Any:
        from pyscf import dft, gto

        geometry = [(s, tuple(p)) for s, p in zip(atoms.get_chemical_symbols(), atoms.positions, strict=True)]
        molecule = gto.M(
            atom=geometry,
            basis=self.basis,
            ecp=dict.fromkeys(cores(self.basis, atoms.get_chemical_symbols()), self.basis),
            charge=self.options.charge_of(atoms),
            spin=unpaired,
            unit="Angstrom",
            verbose=0,
        )
        kind = dft.UKS if unpaired or broken else dft.RKS
        field = kind(molecule, xc=self.functional).density_fit()
        field.grids.level, field.conv_tol, field.max_cycle = self.grid, self.tolerance, 150
        # No checkpoint, which nobody reads: on a full disk HDF5 ends the process by a segmentation fault.
        field.chkfile = None
        return field


def ground_state(teacher: PyscfTeacher, atoms: Atoms) -> Labels | Failed:
    """Return the labels of the lowest state found of an isolated atom or dimer: all spins, and broken symmetry.

    It has failed where a state that did not converge is lower already than all that did.

    Raises
    ------
    InputError
        For an element whose free atom has no spin in the table here.
    """
    if unknown := sorted(
        {s for s, z in zip(atoms.get_chemical_symbols(), atoms.numbers, strict=True) if z not in HUND}
    ):
        raise InputError(f"the spin of the free atom is not known here for {', '.join(unknown)}; main groups only")
    spins = [HUND[int(z)] for z in atoms.numbers]
    if len(atoms) == 1:
        return teacher.solve(atoms, spins[0])
    fewest, most = abs(spins[0] - spins[1]), sum(spins)
    tried = [teacher.solve(atoms, s) for s in range(fewest % 2, most + 1, 2)]
    if most:
        tried.append(teacher.solve(atoms, fewest, broken=True))
    found = [labels for labels in tried if isinstance(labels, Labels)]
    if not found:
        return tried[0]
    lowest = min(found, key=lambda labels: labels.energy)
    below = [one for one in tried if isinstance(one, _Unconverged) and one.energy < lowest.energy - _SAME]
    return min(below, key=lambda one: one.energy) if below else lowest


def cores(basis: str, symbols: Iterable[str]) -> list[str]:
    """Return the elements whose core electrons a basis set leaves to an effective core potential.

    PySCF sets no such potential by itself: 53 electrons of iodine would be in the valence orbitals of def2-SVP.
    """
    return [symbol for symbol in sorted(set(symbols)) if _has_core(basis, symbol)]


@lru_cache(maxsize=1000)
def _has_core(basis: str, symbol: str) -> bool:
    from pyscf import gto

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice to look in another package
        try:
            return bool(gto.basis.load_ecp(basis, symbol))
        except Exception:  # names without such potentials raise many kinds
            return False


def _broken_guess(field: Any) -> Any:
    """Return a density with more spin-up electrons on the first atom and more spin-down ones on the second."""
    density = np.array(field.get_init_guess())
    up, down = density
    first, second = (slice(*field.mol.aoslice_by_atom()[k, 2:4]) for k in (0, 1))
    share = 0.5  # of the density of an atom that is moved from one spin to the other
    for atom, sign in ((first, 1.0), (second, -1.0)):
        total, moved = up[atom, atom] + down[atom, atom], sign * share
        up[atom, atom], down[atom, atom] = total * (0.5 + moved / 2), total * (0.5 - moved / 2)
    return np.array([up, down])


def _check_level(level: str, functional: str, basis: str) -> None:
    """Refuse a functional or basis set that PySCF does not know, before the first structure."""
    try:
        from pyscf import dft, gto
    except ImportError:
        raise needs(f"labels at {level}", "pyscf") from None
    try:
        dft.libxc.parse_xc(functional)
        gto.basis.load(basis, "H")
    except Exception as error:
        raise InputError(f"pyscf does not know the level {level} ({type(error).__name__}: {error})") from None
    if basis.lower().startswith(_OF_VALENCE):
        raise InputError(
            f"the basis set {basis} is of valence electrons alone, and no potential of the cores is set for it here; "
            "give another one, such as def2-SVP"
        )
