"""Integrators for NVE and NVT, their exact state, and initial velocities (constant pressure: barostats.py).

Degrees of freedom decide what a temperature means, T = 2 E_kin / (f k_B):

    isolated molecule, E and L conserved (NVE, Nosé-Hoover, Bussi)   f = 3N − 6  (5 if linear)
    molecule under Langevin, centre of mass fixed, rotation excited  f = 3N − 3
    periodic system                                                  f = 3N − 3
    one atom                                                         f = 3

ASE's own classes count 3N for Nosé-Hoover and Bussi, which would hold aspirin (N = 21) at 3N/(3N − 6) × 500 K = 553 K
once momentum and angular momentum are zero; here each thermostat is told the right number. ASE's
Langevin(fixcm=True) does not sample the canonical distribution; here the centre of mass is a constraint (FixCom),
which the integrator handles exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms, units
from ase.constraints import FixCom
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import NoseHooverChainNVT, NoseHooverChainThermostat
from ase.md.verlet import VelocityVerlet

from asecalc_mlip.errors import InputError
from asecalc_mlip.md.barostats import GPA, FullNPT, IsotropicNPT
from asecalc_mlip.md.settings import MDSettings


class NVE(VelocityVerlet):
    """Velocity Verlet. No state beyond positions and momenta."""

    def conserved(self) -> float:
        """E_total, eV."""
        return self.atoms.get_potential_energy() + self.atoms.get_kinetic_energy()

    def get_state(self) -> dict:
        """Nothing: positions and momenta say it all."""
        return {}

    def set_state(self, state: dict) -> None:
        """Nothing to set."""


class NoseHoover(NoseHooverChainNVT):
    """Nosé-Hoover chain of three thermostats for `ndof` degrees of freedom. State: chain positions and momenta.

    Source: Martyna, Klein, Tuckerman, J. Chem. Phys. 97, 2635 (1992); ASE's integrator.
    """

    def __init__(self, atoms: Atoms, timestep: float, *, temperature_K: float, tdamp: float, ndof: int) -> None:
        super().__init__(atoms, timestep, temperature_K=temperature_K, tdamp=tdamp)
        # The chain needs the number of atoms only through 3N, the degrees of freedom, so it need not be whole.
        n_atoms: Any = ndof / 3
        self._thermostat = NoseHooverChainThermostat(
            num_atoms_global=n_atoms, masses=self.masses, temperature_K=temperature_K, tdamp=tdamp
        )

    def set_target(self, temperature_K: float) -> None:
        """Hold another temperature (K) from now on; the masses of the chain stay."""
        self._thermostat._kT = units.kB * temperature_K

    def conserved(self) -> float:
        """E_total plus the energy of the chain, eV."""
        total = self.atoms.get_potential_energy() + self.atoms.get_kinetic_energy()
        return total + self._thermostat.get_thermostat_energy()

    def get_state(self) -> dict:
        """Chain variables as exact floats."""
        return {"eta": self._thermostat._eta.tolist(), "p_eta": self._thermostat._p_eta.tolist()}

    def set_state(self, state: dict) -> None:
        """Continue from `get_state`; the atoms must have been restored before."""
        self._thermostat._eta = np.array(state["eta"])
        self._thermostat._p_eta = np.array(state["p_eta"])
        self._q, self._p = self.atoms.get_positions(), self.atoms.get_momenta()


class BussiRescaling(Bussi):
    """Stochastic velocity rescaling for `ndof` degrees of freedom. State: RNG and the energy exchanged so far.

    Source: Bussi, Donadio, Parrinello, J. Chem. Phys. 126, 014101 (2007); ASE's integrator.
    """

    def __init__(
        self, atoms: Atoms, timestep: float, *, temperature_K: float, taut: float, ndof: int, rng: np.random.Generator
    ) -> None:
        super().__init__(atoms, timestep, temperature_K=temperature_K, taut=taut, rng=rng)
        self.ndof = ndof
        self.target_kinetic_energy = 0.5 * self.temp * ndof

    def set_target(self, temperature_K: float) -> None:
        """Hold another temperature (K) from now on."""
        self.temp = units.kB * temperature_K
        self.target_kinetic_energy = 0.5 * self.temp * self.ndof

    def conserved(self) -> float:
        """E_total less what the thermostat put in, eV."""
        return self.atoms.get_potential_energy() + self.atoms.get_kinetic_energy() - self.transferred_energy

    def get_state(self) -> dict:
        """RNG state and exchanged energy."""
        return {"rng": self.rng.bit_generator.state, "transferred_energy": float(self.transferred_energy)}

    def set_state(self, state: dict) -> None:
        """Continue from `get_state`."""
        self.rng.bit_generator.state = state["rng"]
        self.transferred_energy = state["transferred_energy"]


class LangevinFixedCom(Langevin):
    """Langevin dynamics with the centre of mass held by a constraint. State: RNG.

    Source: Vanden-Eijnden and Ciccotti, Chem. Phys. Lett. 429, 310 (2006), Eq. 23; ASE's integrator.
    """

    def __init__(
        self, atoms: Atoms, timestep: float, *, temperature_K: float, friction: float, rng: np.random.Generator
    ) -> None:
        if len(atoms) > 1:
            atoms.set_constraint(FixCom())
        super().__init__(atoms, timestep, temperature_K=temperature_K, friction=friction, fixcm=False, rng=rng)

    def set_target(self, temperature_K: float) -> None:
        """Hold another temperature (K) from now on."""
        self.set_temperature(temperature_K=temperature_K)

    def conserved(self) -> float:
        """Langevin dynamics has no conserved energy: NaN."""
        return float("nan")

    def get_state(self) -> dict:
        """RNG state."""
        return {"rng": self.rng.bit_generator.state}

    def set_state(self, state: dict) -> None:
        """Continue from `get_state`."""
        self.rng.bit_generator.state = state["rng"]


Integrator = NVE | NoseHoover | BussiRescaling | LangevinFixedCom | IsotropicNPT | FullNPT


def make_integrator(atoms: Atoms, settings: MDSettings, rng: np.random.Generator) -> Integrator:
    """The integrator that `settings` ask for, attached to `atoms` (which have momenta and a calculator)."""
    dt, temperature = settings.timestep_fs * units.fs, settings.temperature_K
    if settings.thermostat is None:
        return NVE(atoms, dt)
    assert settings.tau_fs is not None  # MDSettings has set it for every thermostat
    tau = settings.tau_fs * units.fs
    ndof = degrees_of_freedom(atoms, settings.thermostat)
    if settings.ensemble == "npt":
        return _barostat(atoms, settings, dt, tau, ndof)
    if settings.thermostat == "nose-hoover":
        return NoseHoover(atoms, dt, temperature_K=temperature, tdamp=tau, ndof=ndof)
    if settings.thermostat == "bussi":
        return BussiRescaling(atoms, dt, temperature_K=temperature, taut=tau, ndof=ndof, rng=rng)
    return LangevinFixedCom(atoms, dt, temperature_K=temperature, friction=1.0 / tau, rng=rng)


def _barostat(atoms: Atoms, settings: MDSettings, dt: float, tau: float, ndof: int) -> IsotropicNPT | FullNPT:
    assert settings.pressure_GPa is not None and settings.tau_p_fs is not None  # MDSettings has set them
    kind = IsotropicNPT if settings.barostat == "isotropic" else FullNPT
    return kind(
        atoms,
        dt,
        temperature_K=settings.temperature_K,
        pressure=settings.pressure_GPa * GPA,
        tdamp=tau,
        pdamp=settings.tau_p_fs * units.fs,
        ndof=ndof,
    )


def degrees_of_freedom(atoms: Atoms, thermostat: str | None) -> int:
    """Number of quadratic kinetic terms that are free to move, see the table at the top."""
    n = len(atoms)
    if n == 1:
        return 3
    if atoms.pbc.any() or thermostat == "langevin":
        return 3 * n - 3
    return 3 * n - 3 - _rotations(atoms)


def maxwell_boltzmann(atoms: Atoms, temperature_K: float, rng: np.random.Generator) -> None:
    """Draw momenta at `temperature_K`, without total momentum and (no periodic direction) angular momentum.

    The removal is a projection, so what is left is Maxwell-Boltzmann distributed in the remaining degrees of
    freedom: nothing is rescaled, the first temperature fluctuates about `temperature_K` as it should.
    """
    masses = atoms.get_masses()[:, None]
    velocities = rng.standard_normal((len(atoms), 3)) * np.sqrt(units.kB * temperature_K / masses)
    if len(atoms) > 1:
        velocities -= (masses * velocities).sum(axis=0) / masses.sum()
        if not atoms.pbc.any():
            velocities -= _rigid_rotation(atoms, velocities)
    atoms.set_momenta(masses * velocities, apply_constraint=False)


def refuse_constraints(atoms: Atoms) -> None:
    """Constraints change degrees of freedom and need integrators that know them; say so rather than be wrong."""
    if atoms.constraints:
        names = ", ".join(type(c).__name__ for c in atoms.constraints)
        raise InputError(
            f"The structure has constraints ({names}), which these protocols do not support: save it without them "
            "(atoms.set_constraint(); atoms.write(...))."
        )


def _inertia(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Positions relative to the centre of mass (n, 3) and the tensor of inertia (3, 3)."""
    r = atoms.positions - atoms.get_center_of_mass()
    m = atoms.get_masses()
    return r, np.sum(m * (r**2).sum(axis=1)) * np.eye(3) - (m[:, None] * r).T @ r


def _rotations(atoms: Atoms) -> int:
    """Number of rotations that move the atoms: 3, or 2 for a linear molecule."""
    moments = np.linalg.eigvalsh(_inertia(atoms)[1])
    return int(np.sum(moments > 1e-6 * moments[-1]))


def _rigid_rotation(atoms: Atoms, velocities: np.ndarray) -> np.ndarray:
    """The part of `velocities` that is a rigid rotation about the centre of mass, shape (n, 3)."""
    r, inertia = _inertia(atoms)
    angular_momentum = np.cross(r, atoms.get_masses()[:, None] * velocities).sum(axis=0)
    omega = np.linalg.pinv(inertia, rcond=1e-6, hermitian=True) @ angular_momentum
    return np.cross(omega, r)
