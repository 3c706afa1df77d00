"""Integrators for constant pressure: ASE's Martyna-Tobias-Klein dynamics with exact state and the right counts.

    isotropic   the volume fluctuates, the shape stays        V = V0 e^(3ε),  W ε' = p_ε
    full        all six strains of the cell fluctuate         h' = h p_g / W, p_g symmetric

Two counts differ from ASE's. A crystal whose total momentum is zero has 3N − 3 degrees of freedom, not 3N, in the
thermostat and in the barostat alike. A symmetric cell momentum has six, not nine: with nine the chain heats the cell to
1.5 T, and its fluctuations with it.

Source: Martyna, Tobias, Klein, J. Chem. Phys. 101, 4177 (1994).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import PropertyNotImplementedError
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT

from asecalc_mlip.errors import InputError
from asecalc_mlip.md.fixed import refuse_constraints
from asecalc_mlip.md.integrators import Integrator, degrees_of_freedom

__all__ = ["BAROSTATS", "GPA", "FullNPT", "IsotropicNPT", "check_stress", "refuse_fixed"]

GPA = 0.006241509125883258  # eV/Å³
CELL_DEGREES = 6


class ConstantPressure(Integrator):
    """What both share; comes before ASE's class among the bases.

    Parameters
    ----------
    atoms : Atoms
        Periodic in three directions, with momenta and a calculator that has a stress.
    timestep_fs : float
        fs.
    temperature_K : float
        K.
    pressure_GPa : float
        GPa.
    tau_fs, tau_p_fs : float
        Relaxation times of thermostat and barostat, fs.
    """

    columns = ("volume_A3", "pressure_GPa", "a_A", "b_A", "c_A")

    def __init__(
        self,
        atoms: Atoms,
        *,
        timestep_fs: float,
        temperature_K: float,
        pressure_GPa: float = 0.0,
        tau_fs: float = 50.0,
        tau_p_fs: float = 500.0,
    ) -> None:
        refuse_fixed(atoms)
        check_stress(atoms)
        super().__init__(  # type: ignore[call-arg]
            atoms,
            timestep_fs * units.fs,
            temperature_K,
            pressure_GPa * GPA,
            tau_fs * units.fs,
            tau_p_fs * units.fs,
        )
        self.ndof, self.target_K = degrees_of_freedom(atoms), temperature_K
        _set_degrees(self, self.ndof)

    def conserved(self) -> float:
        """Return E_total, chains, cell and P V, eV."""
        return self.get_conserved_energy()  # type: ignore[attr-defined]

    def log_values(self) -> tuple[float, ...]:
        """Return volume (Å³), pressure with its kinetic part (GPa), lengths of the cell vectors (Å)."""
        try:
            stress = self.atoms.get_stress(include_ideal_gas=True)
        except InputError:  # a broken geometry, which the monitor names
            stress = np.full(6, np.nan)
        return self.atoms.get_volume(), -float(np.mean(stress[:3])) / GPA, *self.atoms.cell.lengths()

    def averages(self, log: dict[str, np.ndarray]) -> dict[str, float]:
        """Return volume and pressure of the second half of the stable frames."""
        if len(log["step"]) < 2:
            return {}
        volume, pressure = (log[name][len(log[name]) // 2 :] for name in ("volume_A3", "pressure_GPa"))
        return {
            "volume_mean_A3": float(volume.mean()),
            "volume_std_A3": float(volume.std()),
            "pressure_mean_GPa": float(pressure.mean()),
        }


class IsotropicNPT(ConstantPressure, IsotropicMTKNPT):
    """Isotropic volume fluctuations, the shape stays.

    State: chains of thermostat and barostat, strain and its momentum, first cell.
    """

    name = "isotropic"

    def get_state(self) -> dict:
        """Return exact floats of all that positions, momenta and cell do not tell."""
        cell = {"volume0": float(self._volume0), "cell0": self._cell0.tolist()}
        return {**_chains(self), **cell, "eps": float(self._eps), "p_eps": float(self._p_eps)}

    def set_state(self, state: dict) -> None:
        """Continue from `get_state`; the atoms must have been restored before."""
        _set_chains(self, state)
        self._volume0, self._cell0 = state["volume0"], np.array(state["cell0"])
        self._eps, self._p_eps = state["eps"], state["p_eps"]


class FullNPT(ConstantPressure, MTKNPT):
    """Fluctuations of volume and shape. State: chains of thermostat and barostat, momentum of the cell."""

    name = "full"

    def __init__(self, atoms: Atoms, **settings: Any) -> None:
        super().__init__(atoms, **settings)
        self._barostat._R[0] *= CELL_DEGREES / self._barostat._cell_dof
        self._barostat._cell_dof = CELL_DEGREES

    def get_state(self) -> dict:
        """Return exact floats of all that positions, momenta and cell do not tell."""
        return {**_chains(self), "p_g": self._p_g.tolist()}

    def set_state(self, state: dict) -> None:
        """Continue from `get_state`; the atoms must have been restored before."""
        _set_chains(self, state)
        self._h, self._p_g = np.array(self.atoms.get_cell()), np.array(state["p_g"])


def refuse_fixed(atoms: Atoms) -> None:
    """Refuse fixed atoms and other constraints: the cell moves all atoms.

    Raises
    ------
    InputError
    """
    what = "constant pressure moves all atoms with the cell, also those that are fixed"
    refuse_constraints(atoms, what, "run nvt, which keeps FixAtoms, or save the structure without them")


def check_stress(atoms: Atoms) -> None:
    """Refuse what has no pressure: open directions, and calculators without stress.

    Raises
    ------
    InputError
    """
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise InputError(
            f"constant pressure needs a cell that is periodic in three directions; pbc is {atoms.pbc.tolist()}: "
            "use nvt, or set the cell"
        )
    try:
        atoms.get_stress()
    except (PropertyNotImplementedError, NotImplementedError, InputError) as error:
        name = type(atoms.calc).__name__
        raise InputError(
            f"constant pressure needs a stress, which {name} does not give ({error or 'not implemented'}): use a "
            "conservative model, or nvt"
        ) from None


BAROSTATS: dict[str, type[ConstantPressure]] = {kind.name: kind for kind in (IsotropicNPT, FullNPT)}


def _set_degrees(integrator: Any, ndof: int) -> None:
    """Both chains and the coupling count atoms only as degrees of freedom over 3, so the number need not be whole."""
    for part in (integrator, integrator._thermostat, integrator._barostat):
        part._num_atoms_global = ndof / 3
    thermostat, barostat = integrator._thermostat, integrator._barostat
    thermostat._Q[0] = ndof * thermostat._kT * thermostat._tdamp**2
    share = 3 if isinstance(integrator, IsotropicMTKNPT) else 1
    barostat._W = (ndof / 3 + 1) * share * barostat._kT * barostat._pdamp**2


def _chains(integrator: Any) -> dict:
    thermostat, barostat = integrator._thermostat, integrator._barostat
    return {
        "eta": thermostat._eta.tolist(),
        "p_eta": thermostat._p_eta.tolist(),
        "xi": barostat._xi.tolist(),
        "p_xi": barostat._p_xi.tolist(),
    }


def _set_chains(integrator: Any, state: dict) -> None:
    thermostat, barostat = integrator._thermostat, integrator._barostat
    thermostat._eta, thermostat._p_eta = np.array(state["eta"]), np.array(state["p_eta"])
    barostat._xi, barostat._p_xi = np.array(state["xi"]), np.array(state["p_xi"])
    integrator._q, integrator._p = integrator.atoms.get_positions(), integrator.atoms.get_momenta()
