"""What a run asks of its integrator, degrees of freedom, and initial velocities.

Degrees of freedom decide what a temperature means, T = 2 E_kin / (f k_B):

    isolated molecule, E and L conserved (NVE, Nosé-Hoover, Bussi)   f = 3N − 6  (5 if linear)
    molecule under Langevin, centre of mass fixed, rotation excited  f = 3N − 3
    periodic system                                                  f = 3N − 3
    one atom                                                         f = 3
    some atoms fixed, see `asecalc_mlip.md.fixed`                    f = 3 (N − N_fixed)

ASE's own classes count 3N for Nosé-Hoover and Bussi, which would hold aspirin (N = 21) at 3N/(3N − 6) × 500 K = 553 K
once momentum and angular momentum are zero; here each thermostat is told the right number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from ase import Atoms, units

from asecalc_mlip.errors import InputError
from asecalc_mlip.md.fixed import only_fixed

__all__ = ["Integrator", "degrees_of_freedom", "maxwell_boltzmann", "refuse_masses"]


class Integrator:
    """What a run asks of its integrator; comes before ASE's class among the bases, which has `step()`.

    Attributes
    ----------
    name : str
        As settings and commands call it.
    columns : tuple of str
        What it adds to the log; `log_values` gives the numbers.
    spins : bool
        Whether it excites the rotation of an isolated molecule.
    target_K : float or None
        Temperature that it holds now, K.
    ndof : int
        Degrees of freedom.
    """

    name: ClassVar[str] = ""
    columns: ClassVar[tuple[str, ...]] = ()
    spins: ClassVar[bool] = False
    target_K: float | None = None
    ndof: int
    atoms: Any

    if TYPE_CHECKING:

        def step(self, *arguments: Any) -> Any:
            """Make one time step; ASE's class has it."""

    def begin_step(self, step: int) -> None:
        """Prepare step number `step`, for what changes in time."""

    def conserved(self) -> float:
        """Return what stays constant, eV; NaN where nothing does."""
        return self.atoms.get_potential_energy() + self.atoms.get_kinetic_energy()

    def log_values(self) -> tuple[float, ...]:
        """Return numbers of `columns` for the frame as it is now."""
        return ()

    def averages(self, log: dict[str, np.ndarray]) -> dict[str, float]:
        """Return numbers for the summary from the stable frames of the log, the unit in the name."""
        return {}

    def get_state(self) -> dict:
        """Return what positions, momenta and cell do not tell, as exact plain values."""
        return {}

    def set_state(self, state: dict) -> None:
        """Continue from `get_state`; the atoms must have been restored before."""


def degrees_of_freedom(atoms: Atoms, *, spins: bool = False) -> int:
    """Count the quadratic kinetic terms that are free to move, see the table at the top."""
    n = len(atoms)
    if (fixed := only_fixed(atoms)).any():
        return 3 * int((~fixed).sum())
    if n == 1:
        return 3
    if atoms.pbc.any() or spins:
        return 3 * n - 3
    return 3 * n - 3 - _rotations(atoms)


def maxwell_boltzmann(atoms: Atoms, temperature_K: float, rng: np.random.Generator) -> None:
    """Draw momenta at `temperature_K`, without total momentum and (no periodic direction) angular momentum.

    The removal is a projection, so what is left is Maxwell-Boltzmann distributed in the remaining degrees of
    freedom: nothing is rescaled, the first temperature fluctuates about `temperature_K` as it should. Where atoms are
    fixed these have no momenta, and nothing is removed from the others.

    Parameters
    ----------
    atoms : Atoms
        Gets the momenta.
    temperature_K : float
        K.
    rng : numpy.random.Generator
    """
    masses = atoms.get_masses()[:, None]
    velocities = rng.standard_normal((len(atoms), 3)) * np.sqrt(units.kB * temperature_K / masses)
    fixed = only_fixed(atoms)
    velocities[fixed] = 0.0
    if len(atoms) > 1 and not fixed.any():
        velocities -= (masses * velocities).sum(axis=0) / masses.sum()
        if not atoms.pbc.any():
            velocities -= _rigid_rotation(atoms, velocities)
    atoms.set_momenta(masses * velocities, apply_constraint=False)


def refuse_masses(atoms: Atoms) -> None:
    """Refuse masses that are not positive numbers."""
    bad = np.flatnonzero(~((masses := atoms.get_masses()) > 0) | ~np.isfinite(masses))
    if len(bad):
        raise InputError(
            f"the masses of atoms {bad[:10].tolist()} are {masses[bad[:10]].tolist()} u; they must be above 0"
        )


def _inertia(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Positions relative to the centre of mass (n, 3) and the tensor of inertia (3, 3)."""
    r = atoms.positions - atoms.get_center_of_mass()
    m = atoms.get_masses()
    return r, np.sum(m * (r**2).sum(axis=1)) * np.eye(3) - (m[:, None] * r).T @ r


def _rotations(atoms: Atoms) -> int:
    """Return the number of rotations that move the atoms: 3, or 2 for a linear molecule."""
    moments = np.linalg.eigvalsh(_inertia(atoms)[1])
    return int(np.sum(moments > 1e-6 * moments[-1]))


def _rigid_rotation(atoms: Atoms, velocities: np.ndarray) -> np.ndarray:
    """Return the part of `velocities` that is a rigid rotation about the centre of mass, shape (n, 3)."""
    r, inertia = _inertia(atoms)
    angular_momentum = np.cross(r, atoms.get_masses()[:, None] * velocities).sum(axis=0)
    omega = np.linalg.pinv(inertia, rcond=1e-6, hermitian=True) @ angular_momentum
    return np.cross(omega, r)
