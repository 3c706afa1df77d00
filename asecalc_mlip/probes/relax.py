"""Relaxation of atoms, and of the cell with them: the start of everything that takes second derivatives."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import PropertyNotImplementedError
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, FIRE

from asecalc_mlip.errors import InputError
from asecalc_mlip.probes.constraints import check_atoms, check_crystal
from asecalc_mlip.probes.single_points import model_name

__all__ = ["CellRelaxation", "RelaxResult", "relax"]

CellRelaxation = Literal["fixed", "full", "volume"]
_OPTIMIZERS = {"bfgs": BFGS, "fire": FIRE}


@dataclass(frozen=True, repr=False)
class RelaxResult:
    """A structure after relaxation; look at `converged` before using it.

    Attributes
    ----------
    atoms : Atoms
        The relaxed structure, with the calculator.
    converged : bool
        Whether all forces (and the stress, if the cell moved) are below the limit.
    n_steps : int
        Steps taken.
    energy_start_eV, energy_eV : float
        Before and after.
    max_force_eV_per_A : float
        Largest force on an atom after.
    max_stress_GPa : float or None
        Largest component of the stress after, or None where there is none.
    largest_move_A : float
        Largest distance an atom moved, beyond what the cell carried it.
    volume_change_percent : float or None
        Of the cell, or None for molecules.
    cell : str
        What the cell was allowed to do.
    model : str
        Name.
    """

    atoms: Atoms
    converged: bool
    n_steps: int
    energy_start_eV: float
    energy_eV: float
    max_force_eV_per_A: float
    max_stress_GPa: float | None
    largest_move_A: float
    volume_change_percent: float | None
    cell: str
    model: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, units in the names."""
        plain = {name: value for name, value in self.__dict__.items() if name != "atoms"}
        return plain | {
            "symbols": self.atoms.get_chemical_symbols(),
            "positions_A": self.atoms.positions.tolist(),
            "cell_A": self.atoms.cell.array.tolist(),
            "pbc": self.atoms.pbc.tolist(),
        }

    def __repr__(self) -> str:
        gained = self.energy_start_eV - self.energy_eV
        state = "relaxed" if self.converged else "NOT relaxed (more steps, or another start, is needed)"
        stress = "" if self.max_stress_GPa is None else f", stress {self.max_stress_GPa:.3g} GPa"
        volume = "" if self.volume_change_percent is None else f", volume {self.volume_change_percent:+z.2f} %"
        formula = self.atoms.get_chemical_formula("metal")
        return (
            f"{formula}, {self.model}: {state} in {self.n_steps} steps, {_change(gained)}, largest "
            f"force {self.max_force_eV_per_A:.2g} eV/Å{stress}, largest move {self.largest_move_A:.3f} Å{volume}"
        )


def _change(gained: float) -> str:
    """Tell by how much the energy went down. Quasi-Newton steps follow the force, and may end at a saddle point."""
    if gained > -1e-4:
        return f"{gained:.4f} eV lower"
    return f"{-gained:.4f} eV HIGHER than at the start (a saddle point? try --optimizer fire)"


def relax(
    atoms: Atoms,
    calc: Any,
    *,
    fmax_eV_per_A: float = 1e-3,
    steps: int = 500,
    cell: CellRelaxation = "fixed",
    keep_symmetry: bool = False,
    optimizer: str = "bfgs",
    tell: Callable[[int, float], bool] | None = None,
) -> RelaxResult:
    """Relax a copy of a structure.

    Parameters
    ----------
    atoms : Atoms
        Stays as it is; its constraints hold.
    calc : ASE calculator
        In float64 where fmax is below 0.01: float32 forces are good to about 1e-5 of the largest.
    fmax_eV_per_A : float
        Largest force; for the cell, its generalised forces of the same size (`ase.filters.FrechetCellFilter`).
    steps : int
        At most.
    cell : {"fixed", "full", "volume"}
        "volume" keeps the shape.
    keep_symmetry : bool
        Keep the space group of the start (needs spglib, which comes with phonopy).
    optimizer : str
        "bfgs" or "fire".
    tell : callable, optional
        Gets the number of the step and the largest force (eV/Å) after each; True ends the relaxation there.

    Raises
    ------
    InputError
        For options that are not allowed, no atoms, a cell that cannot relax, and a model without stress where that is
        needed.
    """
    if not fmax_eV_per_A > 0 or steps < 1:
        raise InputError(f"fmax is {fmax_eV_per_A} eV/Å and steps {steps}; both must be above 0")
    _check(atoms, cell, optimizer)
    moved = atoms.copy()
    moved.calc = calc
    if keep_symmetry:
        _keep_symmetry(moved)
    try:
        energy_start = moved.get_potential_energy()
        target = moved if cell == "fixed" else FrechetCellFilter(moved, hydrostatic_strain=cell == "volume")
        run = _OPTIMIZERS[optimizer](target, logfile=None)
        converged = _run(run, moved, fmax_eV_per_A, steps, tell)
    except InputError:  # says more, also of a stress that there is not
        raise
    except PropertyNotImplementedError as error:
        raise InputError(f"{model_name(calc)} cannot relax {moved.get_chemical_formula('metal')}: no {error}") from None
    moved.set_constraint(atoms.constraints)
    stress = _stress(moved) if moved.pbc.all() else None
    return RelaxResult(
        atoms=moved,
        converged=converged,
        n_steps=run.nsteps,
        energy_start_eV=float(energy_start),
        energy_eV=float(moved.get_potential_energy()),
        max_force_eV_per_A=_largest(moved.get_forces()),
        max_stress_GPa=None if stress is None else float(np.abs(stress).max() / units.GPa),
        largest_move_A=_largest_move(atoms, moved),
        volume_change_percent=100.0 * (moved.get_volume() / atoms.get_volume() - 1.0) if atoms.pbc.all() else None,
        cell=cell,
        model=model_name(calc),
    )


def _check(atoms: Atoms, cell: str, optimizer: str) -> None:
    if cell not in get_args(CellRelaxation):
        raise InputError(f"cell is {cell!r}; allowed: {', '.join(get_args(CellRelaxation))}")
    if optimizer not in _OPTIMIZERS:
        raise InputError(f"optimizer is {optimizer!r}; allowed: {', '.join(_OPTIMIZERS)}")
    if cell != "fixed":
        check_crystal(atoms, f"cell={cell!r} (unlike cell='fixed') needs")
    check_atoms(atoms, "a relaxation needs")


def _run(run: Any, moved: Atoms, fmax_eV_per_A: float, steps: int, tell: Callable[[int, float], bool] | None) -> bool:
    """Move the atoms; return whether the forces have become as small as that."""
    converged = False
    with warnings.catch_warnings():
        # scipy on the logarithm of a strain, of an error of 1e-13.
        warnings.filterwarnings("ignore", message="logm result may be inaccurate")
        for done in run.irun(fmax=fmax_eV_per_A, steps=steps):
            converged = bool(done)
            if tell is not None and tell(run.nsteps, _largest(moved.get_forces())):
                break
    return converged


def _largest(forces: np.ndarray) -> float:
    return float(np.linalg.norm(forces, axis=1).max())


def _stress(atoms: Atoms) -> np.ndarray | None:
    try:
        return atoms.get_stress()
    except (PropertyNotImplementedError, NotImplementedError, InputError):
        return None


def _largest_move(before: Atoms, after: Atoms) -> float:
    carried = before.copy()
    carried.set_cell(after.cell, scale_atoms=True)
    return float(np.linalg.norm(after.positions - carried.positions, axis=1).max())


def _keep_symmetry(atoms: Atoms) -> None:
    if not atoms.pbc.any() or atoms.cell.rank < 3:
        raise InputError(
            "keep_symmetry keeps a space group, which a structure without a cell does not have: leave it out"
        )
    try:
        from ase.constraints import FixSymmetry

        atoms.set_constraint([*atoms.constraints, FixSymmetry(atoms)])
    except ModuleNotFoundError as error:
        from asecalc_mlip.extras import needs

        raise needs("keep_symmetry", error) from None
