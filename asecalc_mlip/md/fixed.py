"""Fixed atoms in dynamics: those of `FixAtoms`, which stand still and act on the others.

A fixed atom has no velocity, no noise and no degrees of freedom, and the force on it does nothing. It takes up
momentum, so neither total momentum nor angular momentum is conserved, and none is removed: f = 3 (N − N_fixed).
"""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms

from asecalc_mlip.analysis.fixed import fixed_atoms
from asecalc_mlip.errors import InputError

__all__ = ["only_fixed", "refuse_constraints", "settle_fixed"]


def only_fixed(atoms: Atoms) -> np.ndarray:
    """Return which atoms are fixed, (n,) bool.

    The constraint that Langevin dynamics itself puts on the centre of mass is no obstacle where no atom is fixed.

    Raises
    ------
    InputError
        For other constraints, which need integrators that know them, and where nothing can move.
    """
    fixed, others = fixed_atoms(atoms)
    wrong = [name for name in others if fixed.any() or name != "FixCom"]
    if wrong:
        raise InputError(
            f"the structure has constraints ({', '.join(wrong)}), which these integrators do not support; FixAtoms is "
            "allowed at constant energy or temperature. Save it without the others, or keep them and run ase.md with "
            "the model as atoms.calc"
        )
    if len(atoms) and fixed.all():
        raise InputError(f"all {len(atoms)} atoms are fixed (FixAtoms), so none can move: free those that should")
    return fixed


def settle_fixed(atoms: Atoms) -> np.ndarray:
    """Return which atoms are fixed, (n,) bool, and make one FixAtoms of the constraints that say so.

    Raises
    ------
    InputError
        As `only_fixed`.
    """
    fixed = only_fixed(atoms)
    if fixed.any():
        atoms.set_constraint(FixAtoms(np.flatnonzero(fixed)))
    return fixed


def refuse_constraints(atoms: Atoms, what: str, instead: str) -> None:
    """Refuse constraints in dynamics that move all atoms.

    Parameters
    ----------
    atoms : Atoms
    what : str
        Why there are none, for the message.
    instead : str
        What to do, for the message.

    Raises
    ------
    InputError
    """
    fixed, others = fixed_atoms(atoms)
    names = [*(["FixAtoms"] if fixed.any() else []), *(name for name in others if name != "FixCom")]
    if names:
        raise InputError(f"the structure has constraints ({', '.join(names)}), and {what}: {instead}")
