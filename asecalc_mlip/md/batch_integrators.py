"""NVE, Langevin and Nosé-Hoover steps of many replicas at once, on arrays of all their atoms.

The arrays are numpy's (`Flat`) or tensors on a device (`asecalc_mlip.md.device_state.DeviceFlat`): the operations are
those that both have.

Each replica keeps its own integrator (thermostats.py), whose coefficients and state are gathered here and written back,
so a replica's files are those of a run alone, and its noise comes from its own generator. Every operation is the one of
the integrator alone, atom by atom or summed over one replica, so a replica does not depend on the others of its batch.

    r, p, F     positions, momenta, forces        (N, 3) of all atoms, replicas one after another
    m           masses                            (N, 1)
    starts      first atom of each replica        (B,)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from ase.md.nose_hoover_chain import FOURTH_ORDER_COEFFS

from asecalc_mlip.analysis.fixed import fixed_atoms
from asecalc_mlip.errors import InputError
from asecalc_mlip.md.thermostats import NVE, THERMOSTATS, LangevinFixedCom, NoseHoover

# Arrays of numpy, or tensors.
Array = Any
Forces = Callable[[], Array]
# Noise of one step: two arrays (N, 3) of standard normal numbers.
Noise = Callable[[], tuple[Array, Array]]


@dataclass
class Flat:
    """Atoms of all replicas in one."""

    positions: Array
    momenta: Array
    forces: Array
    masses: Array
    starts: np.ndarray
    owner: Array
    mobile: Array | None = None
    """(N, 1), 1 of atoms that move and 0 of fixed ones; None where all move."""

    @classmethod
    def gather(cls, all_atoms: Sequence) -> Flat:
        """Gather a list of `ase.Atoms`."""
        sizes = [len(atoms) for atoms in all_atoms]
        positions = np.concatenate([atoms.positions for atoms in all_atoms])
        momenta = np.concatenate([atoms.get_momenta() for atoms in all_atoms])
        masses = np.concatenate([atoms.get_masses() for atoms in all_atoms])[:, None]
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        owner = np.repeat(np.arange(len(sizes)), sizes)
        fixed = np.concatenate([fixed_atoms(atoms)[0] for atoms in all_atoms])[:, None]
        mobile = (~fixed).astype(float) if fixed.any() else None
        return cls(positions, momenta, np.zeros_like(positions), masses, starts, owner, mobile)

    @property
    def push(self) -> Array:
        """Forces that move atoms, eV/Å: those on fixed ones do not."""
        return self.forces if self.mobile is None else self.mobile * self.forces

    @property
    def sizes(self) -> list[int]:
        """Number of atoms of each replica."""
        return np.diff([*self.starts, len(self.masses)]).tolist()

    def sum(self, values: Array) -> Array:
        """Return sums over the atoms of each replica: (N, ...) to (B, ...)."""
        return np.add.reduceat(values, self.starts, axis=0)

    def spread(self, values: Array) -> Array:
        """Return values of each replica to its atoms: (B, ...) to (N, ...)."""
        return values[self.owner]

    def array(self, values: np.ndarray) -> Array:
        """Return an array of the kind that the others have."""
        return values

    def exp(self, values: Array) -> Array:
        """Return the exponential function of an array."""
        return np.exp(values)


class BatchedIntegrator(ABC):
    """A step in two halves, as on a device forces come from elsewhere in between."""

    flat: Flat

    def step(self, forces: Forces) -> None:
        """Make one step of all replicas; `forces` gives those at the positions as they are then."""
        self.first_half()
        self.flat.forces = forces()
        self.second_half()

    @abstractmethod
    def first_half(self) -> None:
        """Move all atoms."""

    @abstractmethod
    def second_half(self) -> None:
        """Complete the momenta with the new forces."""

    @abstractmethod
    def write_back(self, index: int) -> None:
        """Hand the state of one replica back to its own integrator."""


class BatchedNVE(BatchedIntegrator):
    """Velocity Verlet."""

    def __init__(self, flat: Flat, alone: Sequence[NVE], noise: Noise | None = None) -> None:
        self.flat, self.dt = flat, alone[0].dt

    def first_half(self) -> None:
        """Kick and drift."""
        flat = self.flat
        flat.momenta += 0.5 * self.dt * flat.push
        flat.positions += self.dt * flat.momenta / flat.masses

    def second_half(self) -> None:
        """Kick."""
        self.flat.momenta += 0.5 * self.dt * self.flat.push

    def write_back(self, index: int) -> None:
        """Do nothing: positions and momenta say it all."""


class BatchedLangevin(BatchedIntegrator):
    """Langevin dynamics with the centre of mass of each replica held (Vanden-Eijnden and Ciccotti 2006, Eq. 23)."""

    def __init__(self, flat: Flat, alone: Sequence[LangevinFixedCom], noise: Noise | None = None) -> None:
        self.flat, self.dt = flat, alone[0].dt
        self.noise: Noise = noise or partial(drawn_noise, alone, flat.sizes)
        self.c1, self.c2 = alone[0].c1, alone[0].c2
        self.c3, self.c4, self.c5 = (
            flat.array(np.concatenate([getattr(a, c) for a in alone])) for c in ("c3", "c4", "c5")
        )
        self.total_mass = flat.sum(flat.masses)
        self.held = flat.array(np.array([a.holds_centre for a in alone])[:, None].astype(float))

    def first_half(self) -> None:
        """Kick and drift, with noise and the centre of mass held."""
        flat, dt = self.flat, self.dt
        xi, eta = self.noise()
        self._kick, shift = self.c3 * xi - self.c4 * eta, self.c5 * eta
        v = flat.momenta / flat.masses
        v += self.c1 * flat.push / flat.masses - self.c2 * v + self._kick
        old = flat.positions
        new = old + dt * v + shift
        new += flat.spread(self.held * (flat.sum(flat.masses * old) - flat.sum(flat.masses * new)) / self.total_mass)
        flat.positions = new
        self._v = (new - old - shift) / dt

    def second_half(self) -> None:
        """Kick with the same noise, and take the motion of the centre of mass off."""
        flat, v = self.flat, self._v
        v += self.c1 * flat.push / flat.masses - self.c2 * v + self._kick
        p = v * flat.masses
        flat.momenta = p - flat.masses * flat.spread(self.held * flat.sum(p) / self.total_mass)

    def write_back(self, index: int) -> None:
        """Do nothing: the generator is the replica's own."""


class BatchedNoseHoover(BatchedIntegrator):
    """Nosé-Hoover chains, one for each replica (Martyna, Klein, Tuckerman 1992)."""

    def __init__(self, flat: Flat, alone: Sequence[NoseHoover], noise: Noise | None = None) -> None:
        self.flat, self.alone, self.dt = flat, alone, alone[0].dt
        chains = [a._thermostat for a in alone]
        # Chain variables as (links, replicas), so that a link is a row.
        self.eta, self.p_eta, self.Q = (
            flat.array(np.array([getattr(c, k) for c in chains]).T) for k in ("_eta", "_p_eta", "_Q")
        )
        self.kT = flat.array(np.array([c._kT for c in chains]))
        self.ndof = flat.array(np.array([3.0 * c._num_atoms_global for c in chains]))

    def first_half(self) -> None:
        """Chain, kick and drift."""
        flat, half = self.flat, 0.5 * self.dt
        self._chain(half)
        flat.momenta += half * flat.push
        flat.positions += self.dt * flat.momenta / flat.masses

    def second_half(self) -> None:
        """Kick and chain."""
        half = 0.5 * self.dt
        self.flat.momenta += half * self.flat.push
        self._chain(half)

    def write_back(self, index: int) -> None:
        """Hand the chain of one replica back to its own integrator."""
        chain, alone = self.alone[index]._thermostat, self.alone[index]
        chain._eta, chain._p_eta = self.eta[:, index].copy(), self.p_eta[:, index].copy()
        alone._q, alone._p = alone.atoms.get_positions(), alone.atoms.get_momenta()

    def _chain(self, delta: float) -> None:
        """Scale all momenta of a replica alike, so that its kinetic energy is summed once and scaled along."""
        flat, links, scale = self.flat, len(self.eta), 1.0
        twice = flat.sum((flat.momenta**2 / flat.masses).sum(1))
        for part in (c * delta for c in FOURTH_ORDER_COEFFS):
            for j in reversed(range(links)):
                self._link(j, twice, part)
            self.eta += part * self.p_eta / self.Q
            factor = flat.exp(-part * self.p_eta[0] / self.Q[0])
            scale, twice = scale * factor, twice * factor**2
            for j in range(links):
                self._link(j, twice, part)
        flat.momenta *= flat.spread(scale)[:, None]

    def _link(self, j: int, twice: Array, delta: float) -> None:
        p, Q, last = self.p_eta, self.Q, j == len(self.eta) - 1
        drag = 1.0 if last else self.flat.exp(-delta / 4 * p[j + 1] / Q[j + 1])
        pull = twice - self.ndof * self.kT if j == 0 else p[j - 1] ** 2 / Q[j - 1] - self.kT
        p[j] = (p[j] * drag + delta / 2 * pull) * drag


def drawn_noise(alone: Sequence, sizes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Draw the noise of one step from the replicas' own generators, in the order in which a run alone draws it."""
    drawn = [
        (a.rng.standard_normal(size=(n, 3)), a.rng.standard_normal(size=(n, 3)))
        for a, n in zip(alone, sizes, strict=True)
    ]
    return np.concatenate([xi for xi, _ in drawn]), np.concatenate([eta for _, eta in drawn])


# How the replicas of each integrator advance together; one that is not here cannot be in a campaign.
BATCHED: dict[type, Any] = {NVE: BatchedNVE, LangevinFixedCom: BatchedLangevin, NoseHoover: BatchedNoseHoover}


def batched(flat: Flat, alone: Sequence, noise: Noise | None = None) -> BatchedIntegrator:
    """Make the integrator of a batch from those of its replicas, which must be of one kind and time step.

    Parameters
    ----------
    flat : Flat
    alone : sequence of Integrator
    noise : callable, optional
        Gives the noise of one step; by default it comes from the replicas' own generators.

    Raises
    ------
    InputError
        A kind that is not there, or a mixture.
    """
    kinds = {type(a) for a in alone}
    if len(kinds) != 1 or len({a.dt for a in alone}) != 1:
        raise InputError("replicas of one batch need the same integrator and time step: make a batch for each")
    (kind,) = kinds
    if kind not in BATCHED:
        known = " or ".join(["nve", *(name for name, one in THERMOSTATS.items() if one in BATCHED)])
        raise InputError(f"replicas advance together by {known}, not otherwise")
    return BATCHED[kind](flat, alone, noise)
