"""Integrators for constant energy and temperature, with their exact state (constant pressure: barostats.py).

A new thermostat is its class, with the same arguments, and its entry in THERMOSTATS.

ASE's Langevin(fixcm=True) does not sample the canonical distribution; here the centre of mass is a constraint (FixCom),
which the integrator handles exactly. Where atoms are fixed, it is free.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from ase import Atoms, units
from ase.constraints import FixCom
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import NoseHooverChainNVT, NoseHooverChainThermostat
from ase.md.verlet import VelocityVerlet

from asecalc_mlip.md.fixed import settle_fixed
from asecalc_mlip.md.integrators import Integrator, degrees_of_freedom

__all__ = ["NVE", "THERMOSTATS", "BussiRescaling", "LangevinFixedCom", "NoseHoover", "Ramp", "Thermostat"]


class NVE(Integrator, VelocityVerlet):
    """Velocity Verlet. No state beyond positions and momenta.

    Parameters
    ----------
    atoms : Atoms
        With momenta and a calculator; those that FixAtoms holds stay where they are.
    timestep_fs : float
        fs.
    """

    def __init__(self, atoms: Atoms, *, timestep_fs: float) -> None:
        settle_fixed(atoms)
        super().__init__(atoms, timestep_fs * units.fs)
        self.ndof = degrees_of_freedom(atoms)


class Thermostat(Integrator, ABC):
    """Base of the thermostats, all of which are made with the same arguments.

    Parameters
    ----------
    atoms : Atoms
        With momenta and a calculator; those that FixAtoms holds stay where they are.
    timestep_fs : float
        fs.
    temperature_K : float
        Temperature to hold, K.
    tau_fs : float, optional
        Relaxation time, fs; by default `default_tau_fs` of the class.
    rng : numpy.random.Generator, optional
        For those with noise; by default that of seed 0.
    """

    default_tau_fs: ClassVar[float] = 100.0

    def __init__(
        self,
        atoms: Atoms,
        *,
        timestep_fs: float,
        temperature_K: float,
        tau_fs: float | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        self.fixed = settle_fixed(atoms)
        self.ndof, self.target_K = degrees_of_freedom(atoms, spins=self.spins), temperature_K
        tau = (self.default_tau_fs if tau_fs is None else tau_fs) * units.fs
        self._begin(atoms, timestep_fs * units.fs, temperature_K, tau, rng)

    @abstractmethod
    def _begin(
        self, atoms: Atoms, dt: float, temperature_K: float, tau: float, rng: np.random.Generator | None
    ) -> None:
        """Set up ASE's class, whose times are in its own unit."""

    def set_target(self, temperature_K: float) -> None:
        """Hold another temperature (K) from now on."""
        self.target_K = temperature_K


class NoseHoover(Thermostat, NoseHooverChainNVT):
    """Nosé-Hoover chain of three thermostats. State: chain positions and momenta, temperature, energy of its changes.

    Source: Martyna, Klein, Tuckerman, J. Chem. Phys. 97, 2635 (1992); ASE's integrator.
    """

    name = "nose-hoover"
    default_tau_fs = 50.0

    def _begin(
        self, atoms: Atoms, dt: float, temperature_K: float, tau: float, rng: np.random.Generator | None
    ) -> None:
        NoseHooverChainNVT.__init__(self, atoms, dt, temperature_K=temperature_K, tdamp=tau)
        # The chain needs the number of atoms only through 3N, the degrees of freedom, so it need not be whole.
        n_atoms: Any = self.ndof / 3
        self._thermostat = NoseHooverChainThermostat(
            num_atoms_global=n_atoms, masses=self.masses, temperature_K=temperature_K, tdamp=tau
        )
        self._jumps = 0.0

    def _get_forces(self) -> np.ndarray:
        """Return forces that are zero on fixed atoms, whose momenta ASE would count in the chain. Called by ASE."""
        forces = super()._get_forces()
        return np.where(self.fixed[:, None], 0.0, forces) if self.fixed.any() else forces

    def set_target(self, temperature_K: float) -> None:
        """Hold another temperature (K) from now on; the masses of the chain stay."""
        super().set_target(temperature_K)
        before = self._thermostat.get_thermostat_energy()
        self._thermostat._kT = units.kB * temperature_K
        # Part of the energy of the chain is in proportion to T: what a new T adds to it came from no atom.
        self._jumps += self._thermostat.get_thermostat_energy() - before

    def conserved(self) -> float:
        """Return E_total plus the energy of the chain, less what changes of the temperature gave to it, eV."""
        return super().conserved() + self._thermostat.get_thermostat_energy() - self._jumps

    def get_state(self) -> dict:
        """Return chain variables, the target (K) and the energy of its changes (eV) as exact floats."""
        chain = {"eta": self._thermostat._eta.tolist(), "p_eta": self._thermostat._p_eta.tolist()}
        return {**chain, "target_K": self.target_K, "jumps": float(self._jumps)}

    def set_state(self, state: dict) -> None:
        """Continue from `get_state`; the atoms must have been restored before."""
        self._thermostat._eta = np.array(state["eta"])
        self._thermostat._p_eta = np.array(state["p_eta"])
        self._q, self._p = self.atoms.get_positions(), self.atoms.get_momenta()
        if "target_K" in state:  # not in files of older versions
            self.set_target(state["target_K"])
            self._jumps = state["jumps"]


class BussiRescaling(Thermostat, Bussi):
    """Stochastic velocity rescaling. State: random numbers and the energy exchanged so far.

    Source: Bussi, Donadio, Parrinello, J. Chem. Phys. 126, 014101 (2007); ASE's integrator.
    """

    name = "bussi"

    def _begin(
        self, atoms: Atoms, dt: float, temperature_K: float, tau: float, rng: np.random.Generator | None
    ) -> None:
        ndof = self.ndof
        Bussi.__init__(self, atoms, dt, temperature_K=temperature_K, taut=tau, rng=rng or np.random.default_rng(0))
        self.ndof = ndof
        self.target_kinetic_energy = 0.5 * self.temp * ndof

    def set_target(self, temperature_K: float) -> None:
        """Hold another temperature (K) from now on."""
        super().set_target(temperature_K)
        self.temp = units.kB * temperature_K
        self.target_kinetic_energy = 0.5 * self.temp * self.ndof

    def conserved(self) -> float:
        """Return E_total less what the thermostat put in, eV."""
        return super().conserved() - self.transferred_energy

    def get_state(self) -> dict:
        """Return state of the random numbers and exchanged energy."""
        return {"rng": self.rng.bit_generator.state, "transferred_energy": float(self.transferred_energy)}

    def set_state(self, state: dict) -> None:
        """Continue from `get_state`."""
        self.rng.bit_generator.state = state["rng"]
        self.transferred_energy = state["transferred_energy"]


class LangevinFixedCom(Thermostat, Langevin):
    """Langevin dynamics with the centre of mass held by a constraint. State: random numbers.

    Source: Vanden-Eijnden and Ciccotti, Chem. Phys. Lett. 429, 310 (2006), Eq. 23; ASE's integrator.
    """

    name = "langevin"
    spins = True

    def _begin(
        self, atoms: Atoms, dt: float, temperature_K: float, tau: float, rng: np.random.Generator | None
    ) -> None:
        self.holds_centre = len(atoms) > 1 and not self.fixed.any()
        if self.holds_centre:
            atoms.set_constraint(FixCom())
        rng = rng or np.random.default_rng(0)
        Langevin.__init__(self, atoms, dt, temperature_K=temperature_K, friction=1.0 / tau, fixcm=False, rng=rng)

    def updatevars(self) -> None:
        """Compute the coefficients, those of the noise without fixed atoms. Called by ASE."""
        super().updatevars()
        mobile = ~self.fixed[:, None]
        self.c3, self.c4, self.c5 = self.c3 * mobile, self.c4 * mobile, self.c5 * mobile

    def set_target(self, temperature_K: float) -> None:
        """Hold another temperature (K) from now on."""
        super().set_target(temperature_K)
        self.set_temperature(temperature_K=temperature_K)

    def conserved(self) -> float:
        """Return NaN: Langevin dynamics has no conserved energy."""
        return float("nan")

    def get_state(self) -> dict:
        """Return state of the random numbers."""
        return {"rng": self.rng.bit_generator.state}

    def set_state(self, state: dict) -> None:
        """Continue from `get_state`."""
        self.rng.bit_generator.state = state["rng"]


class Ramp(Integrator):
    """A thermostat whose temperature changes with the number of the step. State: that of the thermostat.

    Parameters
    ----------
    thermostat : Thermostat
    target : callable
        Temperature (K) at a step.
    """

    columns = ("target_K",)

    def __init__(self, thermostat: Thermostat, target: Callable[[int], float]) -> None:
        self.thermostat, self._target = thermostat, target
        self.atoms, self.ndof, self.target_K = thermostat.atoms, thermostat.ndof, target(0)

    def begin_step(self, step: int) -> None:
        """Set the temperature of this step."""
        self.target_K = self._target(step)
        self.thermostat.set_target(self.target_K)

    def step(self, *arguments: Any) -> Any:
        """Make one time step of the thermostat."""
        return self.thermostat.step(*arguments)

    def conserved(self) -> float:
        """Return what the thermostat conserves, eV."""
        return self.thermostat.conserved()

    def log_values(self) -> tuple[float, ...]:
        """Return temperature of the thermostat, K."""
        assert self.target_K is not None
        return (self.target_K,)

    def averages(self, log: dict[str, np.ndarray]) -> dict[str, float]:
        """Return temperature that was reached before anything broke."""
        return {"reached_K": float(log["target_K"][-1])} if len(log["target_K"]) else {}

    def get_state(self) -> dict:
        """Return that of the thermostat."""
        return self.thermostat.get_state()

    def set_state(self, state: dict) -> None:
        """Continue from `get_state`."""
        self.thermostat.set_state(state)


THERMOSTATS: dict[str, type[Thermostat]] = {kind.name: kind for kind in (LangevinFixedCom, NoseHoover, BussiRescaling)}
