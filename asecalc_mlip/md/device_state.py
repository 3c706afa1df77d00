"""The two halves of a step of replicas on a device, in tensors that stay where they are.

A step is some sixty to six hundred small operations, which a GPU does faster than a host can ask for them. As all of
them work in place they can be recorded as CUDA graphs: then each half is one launch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asecalc_mlip.md.batch_integrators import BatchedNoseHoover, Flat, batched
from asecalc_mlip.neighbors.lists import FARTHEST

__all__ = ["CHAIN", "TENSORS", "DeviceFlat", "DeviceState"]

TENSORS = ("positions", "momenta", "forces")
CHAIN = ("eta", "p_eta")
# Calls before a recording: libraries set themselves up in the first ones.
_BEFORE = 2


@dataclass
class DeviceFlat(Flat):
    """Atoms of all replicas in one, as float64 tensors on a device."""

    @classmethod
    def of(cls, flat: Flat, device: torch.device) -> DeviceFlat:
        """Copy arrays of the host to a device."""
        made = cls(flat.positions, flat.momenta, flat.forces, flat.masses, flat.starts, flat.owner)
        made.owner = torch.from_numpy(flat.owner).to(device)
        names = (*TENSORS, "masses", *(["mobile"] if flat.mobile is not None else []))
        for name in names:
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

    def any(self, values: Tensor) -> Tensor:
        """Return whether a value is true for an atom of each replica: (N,) to (B,)."""
        return self.sum(values.to(self.masses.dtype)) > 0

    def spread(self, values: Tensor) -> Tensor:
        """Return values of each replica to its atoms."""
        return values.index_select(0, self.owner)

    def array(self, values: np.ndarray) -> Tensor:
        """Return a tensor on the device."""
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.masses.device)

    def exp(self, values: Tensor) -> Tensor:
        """Return the exponential function of a tensor."""
        return values.exp()


class DeviceState:
    """Replicas with their integrator; a step is `move`, forces into `given_forces`, `finish`.

    Parameters
    ----------
    flat : Flat
        On the host.
    alone : sequence of Integrator
        Of the replicas.
    device : torch.device

    Attributes
    ----------
    here, reference : (N, 3)
        Positions at which forces are wanted, and those for which the list was made, Å.
    farthest : scalar
        Largest square of a distance between the two since it was zero, Å².
    noise : (2, N, 3)
        Of the next step.
    given_forces, given_energies : (N, 3), (B,)
        Of the model, eV/Å and eV.
    energies : (B,)
        Of the last step, eV; of a refused replica that of its last step.
    step : scalar
        Number of steps made.
    refused_at, too_close : (B,)
        Step at which a replica was refused, 0 while it is not, and whether for atoms that were too close.
    close : (B,)
        Replicas with atoms that are too close now.
    """

    def __init__(self, flat: Flat, alone: Sequence, device: torch.device) -> None:
        self.flat = DeviceFlat.of(flat, device)
        self._stays = {name: getattr(self.flat, name) for name in TENSORS}
        masses, number = self.flat.masses, len(flat.starts)
        self.here, self.reference = (self.flat.positions.clone() for _ in range(2))
        self.noise = masses.new_zeros(2, len(masses), 3)
        self.given_forces = torch.zeros_like(self.here)
        self.given_energies, self.energies = masses.new_zeros(number), masses.new_zeros(number)
        self.farthest = masses.new_zeros(())
        self.step = torch.zeros((), dtype=torch.int64, device=device)
        self.refused_at = torch.zeros(number, dtype=torch.int64, device=device)
        self.too_close, self.close = (torch.zeros(number, dtype=torch.bool, device=device) for _ in range(2))
        self.integrator: Any = batched(self.flat, alone, lambda: (self.noise[0], self.noise[1]))
        self.is_noisy = hasattr(self.integrator, "noise")
        self.move, self.finish = _Recorded(self._move, device), _Recorded(self._finish, device)

    @property
    def chain(self) -> tuple[str, ...]:
        """Names of the integrator's tensors."""
        return CHAIN if isinstance(self.integrator, BatchedNoseHoover) else ()

    def lost(self) -> Tensor:
        """Return which replicas have atoms that are far away or nowhere, (B,)."""
        # Written so that NaN counts as far away.
        return self.flat.any((~(self.flat.positions.abs() <= FARTHEST)).any(1))

    def snapshot(self) -> dict[str, Tensor]:
        """Copy all that `restore` needs."""
        return {name: tensor.clone() for name, tensor in self._all().items()}

    def restore(self, kept: dict[str, Tensor]) -> None:
        """Go back to a snapshot."""
        for name, tensor in self._all().items():
            tensor.copy_(kept[name])

    def _all(self) -> dict[str, Tensor]:
        names = ("energies", "refused_at", "too_close", "step")
        own = {name: getattr(self, name) for name in names} | {n: getattr(self.integrator, n) for n in self.chain}
        return self._stays | own

    def _move(self) -> None:
        """Drift, and note where forces are wanted."""
        flat = self.flat
        self.step += 1
        self._stands = flat.spread(self.refused_at > 0)[:, None]
        self._old = [self._stays[name].clone() for name in TENSORS]
        self.integrator.first_half()
        self._settle()
        self._lost = self.lost()
        # Those that are refused stand still where the list was made, out of the way of the others.
        self._gone = self._lost | (self.refused_at > 0)
        self.here.copy_(torch.where(flat.spread(self._gone)[:, None], self.reference, flat.positions))
        moved = (self.here - self.reference).square().sum(1).max()
        self.farthest.copy_(torch.maximum(self.farthest, moved))

    def _finish(self) -> None:
        """Kick with the forces that were given; replicas that were refused before stay as they were."""
        flat = self.flat
        new = (self._lost | self.close) & (self.refused_at == 0)
        self.refused_at.copy_(torch.where(new, self.step, self.refused_at))
        self.too_close.copy_(torch.where(new, self.close, self.too_close))
        before = (self.refused_at > 0) & ~new
        self.energies.copy_(torch.where(before, self.energies, self.given_energies))
        flat.forces.copy_(torch.where(flat.spread(self._gone | new)[:, None], torch.nan, self.given_forces))
        self.integrator.second_half()
        self._settle()
        for name, old in zip(TENSORS, self._old, strict=True):
            self._stays[name].copy_(torch.where(self._stands, old, self._stays[name]))

    def _settle(self) -> None:
        """Bring what an integrator made anew to where it stays."""
        for name, place in self._stays.items():
            made = getattr(self.flat, name)
            if made is not place:
                place.copy_(made)
                setattr(self.flat, name, place)


class _Recorded:
    """A function that works in place on tensors that stay, recorded as a CUDA graph where there is a GPU."""

    def __init__(self, function: Callable[[], None], device: torch.device) -> None:
        self._function, self._device = function, device
        self._calls = 0
        self._replay: Callable[[], None] | None = None if device.type == "cuda" else function

    def __call__(self) -> None:
        self._calls += 1
        if self._replay is None and self._calls <= _BEFORE:
            self._function()
            return
        if self._replay is None:
            self._replay = self._record()
        self._replay()

    def _record(self) -> Callable[[], None]:
        try:
            with torch.cuda.device(self._device):
                graph = torch.cuda.CUDAGraph()
                # A stream of this device; torch's own is that of its first capture.
                with torch.cuda.graph(graph, stream=torch.cuda.Stream()):
                    self._function()
        except RuntimeError as error:
            reason = (str(error).splitlines() or ["no message"])[0]
            warnings.warn(f"steps on the GPU cannot be recorded ({reason}) and are slower", stacklevel=4)
            return self._function
        return graph.replay
