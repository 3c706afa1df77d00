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
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT

from asecalc_mlip.errors import InputError

GPA = 0.006241509125883258  # eV/Å³
CELL_DEGREES = 6


class _ConstantPressure:
    """What both share; comes before ASE's class among the bases."""

    def __init__(
        self,
        atoms: Atoms,
        timestep: float,
        *,
        temperature_K: float,
        pressure: float,
        tdamp: float,
        pdamp: float,
        ndof: int,
    ) -> None:
        check_stress(atoms)
        super().__init__(atoms, timestep, temperature_K, pressure, tdamp, pdamp)  # type: ignore[call-arg]
        _set_degrees(self, ndof)

    def conserved(self) -> float:
        """E_total, chains, cell and P V, eV."""
        return self.get_conserved_energy()  # type: ignore[attr-defined]


class IsotropicNPT(_ConstantPressure, IsotropicMTKNPT):
    """Isotropic volume fluctuations. State: chains of thermostat and barostat, strain and its momentum, first cell."""

    def get_state(self) -> dict:
        """Exact floats of all that positions, momenta and cell do not tell."""
        cell = {"volume0": float(self._volume0), "cell0": self._cell0.tolist()}
        return {**_chains(self), **cell, "eps": float(self._eps), "p_eps": float(self._p_eps)}

    def set_state(self, state: dict) -> None:
        """Continue from `get_state`; the atoms must have been restored before."""
        _set_chains(self, state)
        self._volume0, self._cell0 = state["volume0"], np.array(state["cell0"])
        self._eps, self._p_eps = state["eps"], state["p_eps"]


class FullNPT(_ConstantPressure, MTKNPT):
    """Fluctuations of volume and shape. State: chains of thermostat and barostat, momentum of the cell."""

    def __init__(self, atoms: Atoms, timestep: float, **settings: Any) -> None:
        super().__init__(atoms, timestep, **settings)
        self._barostat._R[0] *= CELL_DEGREES / self._barostat._cell_dof
        self._barostat._cell_dof = CELL_DEGREES

    def get_state(self) -> dict:
        """Exact floats of all that positions, momenta and cell do not tell."""
        return {**_chains(self), "p_g": self._p_g.tolist()}

    def set_state(self, state: dict) -> None:
        """Continue from `get_state`; the atoms must have been restored before."""
        _set_chains(self, state)
        self._h, self._p_g = np.array(self.atoms.get_cell()), np.array(state["p_g"])


def check_stress(atoms: Atoms) -> None:
    """Refuse what has no pressure: open directions, and calculators without stress.

    Raises
    ------
    InputError
    """
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise InputError(
            f"Constant pressure needs a cell that is periodic in three directions; pbc is {atoms.pbc.tolist()}. "
            "Use nvt.py, or set the cell."
        )
    try:
        atoms.get_stress()
    except (PropertyNotImplementedError, NotImplementedError, InputError) as error:
        name = type(atoms.calc).__name__
        raise InputError(
            f"Constant pressure needs a stress, which {name} does not give ({error or 'not implemented'}): use a "
            "conservative model, or nvt.py."
        ) from None


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
