"""Steps of replicas on a device, where positions, momenta, forces and thermostats stay between two frames.

The host launches steps without waiting for results. Whether the neighbour list was still good, it asks after a number
of steps in which, by the speed so far, it should be; if it was not, these steps are made once more from where they
began, with a new list. So each step counts only with a list that holds all pairs within the cutoff.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asecalc_mlip.calculators.checks import CLOSEST
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.md.batch_integrators import BatchedNoseHoover, Flat, batched, drawn_noise
from asecalc_mlip.md.device_noise import SeededNoise
from asecalc_mlip.models.potential import Prediction
from asecalc_mlip.neighbors.cells import cell_lists
from asecalc_mlip.neighbors.lists import FARTHEST

__all__ = ["DeviceFlat", "DeviceSteps", "DrawnNoise"]

# Share of the time in which an atom would have used up the skin that a list is trusted for.
_SHARE = 0.8
# Steps between two looks at most, and numbers of noise for them.
_MOST_AHEAD, _NOISE_NUMBERS = 200, 2**25

_TENSORS = ("positions", "momenta", "forces")
_CHAIN = ("eta", "p_eta")


@dataclass
class DeviceFlat(Flat):
    """Atoms of all replicas in one, as float64 tensors on a device."""

    @classmethod
    def of(cls, flat: Flat, device: torch.device) -> DeviceFlat:
        """Copy arrays of the host to a device."""
        made = cls(flat.positions, flat.momenta, flat.forces, flat.masses, flat.starts, flat.owner)
        made.owner = torch.from_numpy(flat.owner).to(device)
        for name in (*_TENSORS, "masses"):
            setattr(made, name, torch.from_numpy(getattr(flat, name)).to(device, copy=True))
        made._lengths = torch.tensor(flat.sizes, device=device)
        made._equal = len(set(flat.sizes)) == 1
        return made

    _lengths: Any = None
    _equal: bool = False

    def sum(self, values: Tensor) -> Tensor:
        """Return sums over the atoms of each replica, in a fixed order."""
        if self._equal:
            return values.reshape(len(self._lengths), -1, *values.shape[1:]).sum(1)
        return torch.segment_reduce(values, "sum", lengths=self._lengths, axis=0, unsafe=True)

    def largest(self, values: Tensor) -> Tensor:
        """Return the largest value among the atoms of each replica: (N,) to (B,)."""
        if self._equal:
            return values.reshape(len(self._lengths), -1).amax(1)
        return torch.segment_reduce(values, "max", lengths=self._lengths, axis=0, unsafe=True)

    def spread(self, values: Tensor) -> Tensor:
        """Return values of each replica to its atoms."""
        return values.index_select(0, self.owner)

    def array(self, values: np.ndarray) -> Tensor:
        """Return a tensor on the device."""
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.masses.device)

    def exp(self, values: Tensor) -> Tensor:
        """Return the exponential function of a tensor."""
        return values.exp()


class DrawnNoise:
    """Noise from the replicas' own generators on the host: that of runs alone, at the price of its transfer.

    Parameters
    ----------
    alone : sequence of Integrator
    sizes : sequence of int
    device : torch.device
    """

    def __init__(self, alone: Sequence, sizes: Sequence[int], device: torch.device) -> None:
        self._alone, self._sizes, self._device = alone, sizes, device
        self._kept: list[Tensor] = []
        self._begin = 0

    def block(self, place: int, number: int) -> Tensor:
        """Return the noise of `number` steps after the first `place` ones, (number, 2, N, 3) float64."""
        # Steps before will not be made again.
        del self._kept[: place - self._begin]
        self._begin = place
        while len(self._kept) < number:
            drawn = np.stack(drawn_noise(self._alone, self._sizes))
            self._kept.append(torch.from_numpy(drawn).to(self._device))
        return torch.stack(self._kept[:number])


class DeviceSteps:
    """Replicas on a device.

    Parameters
    ----------
    flat : Flat
        On the host, with forces; `fetch` writes to it.
    alone : sequence of Integrator
        Of the replicas.
    seeds : sequence of int or None
        Of the noise; None takes it from the replicas' own generators.
    steps : sequence of int
        Which each replica has made.
    state : AtomGraph
        Numbers, owners and cells on the device; edges are not used.
    pbc : (3,) bool array
    cutoff, skin : float
        Å; the skin must be more than 0.
    predict : callable
        (graph, number of steps made in this call of `run`) → Prediction. The graph has edges in the skin, too.
    """

    def __init__(
        self, flat: Flat, alone: Sequence, seeds: Sequence[int] | None, steps: Sequence[int], state: AtomGraph,
        pbc: np.ndarray, cutoff: float, skin: float, predict: Callable[[AtomGraph, int], Prediction],
    ) -> None:  # fmt: skip
        device = state.numbers.device
        self.host, self.flat, self.predict = flat, DeviceFlat.of(flat, device), predict
        self.cutoff, self.skin, self._state = cutoff, skin, state
        self._pbc = torch.from_numpy(np.asarray(pbc, dtype=bool)).to(device).expand(state.n_structures, 3)
        self.energies = torch.zeros(state.n_structures, dtype=torch.float64, device=device)
        # Step of this call at which a replica was refused, and by what; 0 while it is not.
        self.refused_at = torch.zeros(state.n_structures, dtype=torch.int64, device=device)
        self.too_close = torch.zeros(state.n_structures, dtype=torch.bool, device=device)
        self._drawn = None if seeds is not None else DrawnNoise(alone, flat.sizes, device)
        self._seeded = None if seeds is None else SeededNoise(seeds, flat.sizes, device)
        self._first = torch.from_numpy(np.repeat(np.asarray(steps, dtype=np.int64), flat.sizes)).to(device)
        self.integrator = batched(self.flat, alone, self._noise)
        self._noises: Iterator[Tensor] = iter(())
        self._noisy = hasattr(self.integrator, "noise")
        self._most = max(1, min(_MOST_AHEAD, _NOISE_NUMBERS // flat.positions.size // 2))
        self._made = self._step = 0
        self._ahead = 1
        self.lists = self.looks = 0
        self._make_list()

    def run(self, number: int) -> None:
        """Make `number` steps of all replicas; one that is refused stays as it is from then on."""
        self.refused_at.zero_()
        self._step = 0
        while self._step < number:
            self._some(min(self._ahead, number - self._step))
        self._made += number

    def fetch(self) -> tuple[np.ndarray, dict[int, tuple[int, bool]]]:
        """Bring the arrays of the host up to date; return energies, and refused replicas.

        Returns
        -------
        energies : (B,) array
            eV.
        refused : dict
            Replica → step of the last `run` at which it was refused, and whether because atoms were too close.
        """
        names = [(self.flat, name) for name in _TENSORS]
        if isinstance(self.integrator, BatchedNoseHoover):
            names += [(self.integrator, name) for name in _CHAIN]
        tensors = [getattr(owner, name) for owner, name in names]
        tensors += [self.energies, self.refused_at.double(), self.too_close.double()]
        # One copy, for which the host waits once.
        parts = torch.cat([tensor.reshape(-1) for tensor in tensors]).cpu().split([t.numel() for t in tensors])
        arrays = [part.view(tensor.shape).numpy().copy() for part, tensor in zip(parts, tensors, strict=True)]
        self.host.positions, self.host.momenta, self.host.forces = arrays[:3]
        self.chain = dict(zip(_CHAIN, arrays[3:-3], strict=False))
        energies, steps, close = arrays[-3:]
        return energies, {int(k): (int(steps[k]), bool(close[k])) for k in np.flatnonzero(steps)}

    def _some(self, number: int) -> None:
        """Make steps with one list, or fewer of them if the list does not last."""
        while True:
            before = self._snapshot()
            self._launch(number)
            # The one thing that the host waits for.
            moved = float(self._farthest) ** 0.5
            self.looks += 1
            if moved < 0.5 * self.skin:
                break
            self._restore(before)
            if self._age == 0 and number == 1:
                self._one_with_a_new_list()
                return
            lasts = int(_SHARE * 0.5 * self.skin * (self._age + number) / moved)
            number = max(1, min(number - (self._age == 0), lasts))
            if self._age > 0:
                self._make_list()
        self._age += number
        life = int(_SHARE * self._age * 0.5 * self.skin / max(moved, 1e-6 * self.skin))
        if life <= self._age:
            self._make_list()
        self._ahead = max(1, min(life - self._age, self._most))

    def _launch(self, number: int) -> None:
        """Make steps without a look at any result; note how far atoms were from where they were for the list."""
        self._take_noise(number)
        self._farthest = torch.zeros_like(self.energies[0])
        for _ in range(number):
            self._one()

    def _take_noise(self, number: int) -> None:
        if not self._noisy:
            return
        place = self._made + self._step
        if self._drawn is not None:
            self._noises = iter(self._drawn.block(place, number))
        elif self._seeded is not None:
            self._noises = iter(self._seeded.block(self._first + place, number))

    def _noise(self) -> tuple[Tensor, Tensor]:
        xi, eta = next(self._noises)
        return xi, eta

    def _one(self) -> None:
        self._step += 1
        flat = self.flat
        stands = flat.spread(self.refused_at > 0)[:, None]
        before = [getattr(flat, name).clone() for name in _TENSORS]
        self.integrator.step(self._forces)
        for name, old in zip(_TENSORS, before, strict=True):
            setattr(flat, name, torch.where(stands, old, getattr(flat, name)))

    def _forces(self) -> Tensor:
        flat, graph = self.flat, self._graph
        positions = flat.positions
        # Written so that NaN counts as far away.
        lost = flat.largest((~(positions.abs() <= FARTHEST)).any(1).double()) > 0
        gone = lost | (self.refused_at > 0)
        # Those that are refused stand still where the list was made, out of the way of the others.
        positions = torch.where(flat.spread(gone)[:, None], graph.positions, positions)
        self._farthest = torch.maximum(self._farthest, (positions - graph.positions).square().sum(1).max())
        graph = replace(graph, positions=positions)
        close = self._overlaps(graph) if self._closest < CLOSEST + self.skin else torch.zeros_like(gone)
        new = (lost | close) & (self.refused_at == 0)
        self.refused_at = torch.where(new, self._step, self.refused_at)
        self.too_close = torch.where(new, close, self.too_close)
        prediction = self.predict(graph, self._step)
        assert prediction.forces is not None
        keeps = self.refused_at > 0
        self.energies = torch.where(keeps & ~new, self.energies, prediction.energy.double())
        return torch.where(flat.spread(new | gone)[:, None], torch.nan, prediction.forces.double())

    def _overlaps(self, graph: AtomGraph) -> Tensor:
        close = (graph.vectors().square().sum(-1) < CLOSEST**2).to(graph.positions.dtype)
        atoms = torch.zeros_like(graph.positions[:, 0]).index_add_(0, graph.centers, close)
        return self.flat.largest(atoms) > 0

    def _make_list(self) -> None:
        """Make a list of all where they are now; those that are lost are left where they were."""
        self._age = 0
        self.lists += 1
        flat, graph = self.flat, getattr(self, "_graph", None)
        positions = flat.positions
        if graph is not None:
            lost = flat.largest((~(positions.abs() <= FARTHEST)).any(1).double()) > 0
            gone = flat.spread(lost | (self.refused_at > 0))[:, None]
            positions = torch.where(gone, graph.positions, positions)
        state, reach = self._state, self.cutoff + self.skin
        i, j, shifts = cell_lists(positions, state.cell, self._pbc, state.batch, reach)
        self._graph = replace(state, positions=positions.clone(), centers=i, neighbors=j, shifts=shifts, reach=reach)
        self._closest = self._graph.shortest() if len(i) else reach

    def _one_with_a_new_list(self) -> None:
        """Make one step in which an atom moves so far that the list must be made between drift and forces."""
        forces = self._forces

        def anew() -> Tensor:
            self._make_list()
            return forces()

        self._take_noise(1)
        self._farthest = torch.zeros_like(self.energies[0])
        try:
            self._forces = anew  # type: ignore[method-assign]
            self._one()
        finally:
            del self._forces
        self._ahead = 1

    def _snapshot(self) -> dict[str, Any]:
        kept: dict[str, Any] = {name: getattr(self.flat, name).clone() for name in _TENSORS}
        if isinstance(self.integrator, BatchedNoseHoover):
            kept |= {name: getattr(self.integrator, name).clone() for name in _CHAIN}
        return kept | {name: getattr(self, name) for name in ("energies", "refused_at", "too_close", "_step")}

    def _restore(self, kept: dict[str, Any]) -> None:
        for name, value in kept.items():
            owner = self.flat if name in _TENSORS else self.integrator if name in _CHAIN else self
            setattr(owner, name, value)
