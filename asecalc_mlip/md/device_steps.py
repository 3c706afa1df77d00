"""Steps of replicas on a device, where positions, momenta, forces and thermostats stay between two frames.

The host launches steps without waiting for results. Whether the neighbour list was still good, it asks after a number
of steps in which, by the speed so far, it should be; if it was not, these steps are made once more from where they
began, with a new list. So each step counts only with a list that holds all pairs within the cutoff.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from asecalc_mlip.calculators.checks import CLOSEST
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.md.batch_integrators import Flat, drawn_noise
from asecalc_mlip.md.device_noise import SeededNoise
from asecalc_mlip.md.device_state import CHAIN, TENSORS, DeviceState
from asecalc_mlip.models.potential import Prediction
from asecalc_mlip.neighbors.cells import cell_lists

__all__ = ["DeviceSteps", "DrawnNoise"]

# Share of the time in which an atom would have used up the skin that a list is trusted for.
_SHARE = 0.8
# Steps between two looks at most, and numbers of noise for them.
_MOST_AHEAD, _NOISE_NUMBERS = 200, 2**25


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
    graph : AtomGraph
        Numbers, owners and cells on the device; edges are not used.
    pbc : (3,) bool array
    cutoff, skin : float
        Å; the skin must be more than 0.
    predict : callable
        (graph, number of steps made in this call of `run`) → Prediction. The graph has edges in the skin, too.

    Attributes
    ----------
    state : DeviceState
    lists, looks : int
        How many lists were made, and how often the host waited to hear whether one had held.
    """

    def __init__(
        self, flat: Flat, alone: Sequence, seeds: Sequence[int] | None, steps: Sequence[int], graph: AtomGraph,
        pbc: np.ndarray, cutoff: float, skin: float, predict: Callable[[AtomGraph, int], Prediction],
    ) -> None:  # fmt: skip
        device = graph.numbers.device
        self.host, self.state, self.predict = flat, DeviceState(flat, alone, device), predict
        self.cutoff, self.skin, self._bare = cutoff, skin, graph
        self._pbc = torch.from_numpy(np.asarray(pbc, dtype=bool)).to(device).expand(graph.n_structures, 3)
        self._drawn = None if seeds is not None else DrawnNoise(alone, flat.sizes, device)
        self._seeded = None if seeds is None else SeededNoise(seeds, flat.sizes, device)
        self._first = torch.from_numpy(np.repeat(np.asarray(steps, dtype=np.int64), flat.sizes)).to(device)
        self._noises: Iterator[Tensor] = iter(())
        self._most = max(1, min(_MOST_AHEAD, _NOISE_NUMBERS // flat.positions.size // 2))
        self._made = self._step = 0
        self._ahead = 1
        self.lists = self.looks = 0
        self._make_list()

    def run(self, number: int) -> None:
        """Make `number` steps of all replicas; one that is refused stays as it is from then on."""
        self.state.refused_at.zero_()
        self.state.step.zero_()
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
        state = self.state
        tensors = [getattr(state.flat, name) for name in TENSORS]
        tensors += [getattr(state.integrator, name) for name in state.chain]
        tensors += [state.energies, state.refused_at.double(), state.too_close.double()]
        # One copy, for which the host waits once.
        parts = torch.cat([tensor.reshape(-1) for tensor in tensors]).cpu().split([t.numel() for t in tensors])
        arrays = [part.view(tensor.shape).numpy().copy() for part, tensor in zip(parts, tensors, strict=True)]
        self.host.positions, self.host.momenta, self.host.forces = arrays[:3]
        self.chain = dict(zip(CHAIN, arrays[3:-3], strict=False))
        energies, steps, close = arrays[-3:]
        return energies, {int(k): (int(steps[k]), bool(close[k])) for k in np.flatnonzero(steps)}

    def _some(self, number: int) -> None:
        """Make steps with one list, or fewer of them if the list does not last."""
        while True:
            before, step = self.state.snapshot(), self._step
            self._launch(number)
            # The one thing that the host waits for.
            moved = float(self.state.farthest) ** 0.5
            self.looks += 1
            if moved < 0.5 * self.skin:
                break
            self.state.restore(before)
            self._step = step
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
        self.state.farthest.zero_()
        for _ in range(number):
            self._one()

    def _take_noise(self, number: int) -> None:
        if not self.state.is_noisy:
            return
        place = self._made + self._step
        if self._drawn is not None:
            self._noises = iter(self._drawn.block(place, number))
        elif self._seeded is not None:
            self._noises = iter(self._seeded.block(self._first + place, number))

    def _one(self, anew: bool = False) -> None:
        """Make one step, with a new list where forces are wanted if `anew`."""
        self._step += 1
        state = self.state
        if state.is_noisy:
            state.noise.copy_(next(self._noises))
        state.move()
        if anew:
            self._make_list()
        graph = replace(self._graph, positions=state.here)
        if self._closest < CLOSEST + self.skin:
            state.close.copy_(self._overlaps(graph))
        found = self.predict(graph, self._step)
        assert found.forces is not None
        state.given_forces.copy_(found.forces)
        state.given_energies.copy_(found.energy)
        state.finish()

    def _overlaps(self, graph: AtomGraph) -> Tensor:
        close = (graph.vectors().square().sum(-1) < CLOSEST**2).to(graph.positions.dtype)
        atoms = torch.zeros_like(graph.positions[:, 0]).index_add_(0, graph.centers, close)
        return self.state.flat.any(atoms > 0)

    def _make_list(self) -> None:
        """Make a list of all where they are now; those that are refused are left where they were."""
        self._age = 0
        self.lists += 1
        state, bare, reach = self.state, self._bare, self.cutoff + self.skin
        gone = state.flat.spread(state.lost() | (state.refused_at > 0))[:, None]
        state.reference.copy_(torch.where(gone, state.reference, state.flat.positions))
        state.here.copy_(state.reference)
        i, j, shifts = cell_lists(state.reference, bare.cell, self._pbc, bare.batch, reach)
        self._graph = replace(bare, positions=state.reference, centers=i, neighbors=j, shifts=shifts, reach=reach)
        self._closest = self._graph.shortest() if len(i) else reach
        state.close.zero_()

    def _one_with_a_new_list(self) -> None:
        """Make one step in which an atom moves so far that the list must be made between drift and forces."""
        self._take_noise(1)
        self.state.farthest.zero_()
        self._one(anew=True)
        self._ahead = 1
