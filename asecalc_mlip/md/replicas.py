"""Replicas of one model that advance together in one process: a run each, forces from one batch.

Each replica is a run as MDRun alone makes it, with its own folder, monitor, restart file and random numbers. With the
native engine it is a pure function of its own settings, bit for bit: neither the others of its batch nor breaks in
between change it. Other engines round by the composition of the batch, so there a break after which fewer replicas run
may change the last digits, and with them, in time, the trajectory.

On a GPU positions, momenta and thermostats stay there until the next frame or restart point (device_steps.py). Langevin
noise is then a function of the seed and the step, and not that of a run on the CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from ase import Atoms

from asecalc_mlip.calculators.checks import CLOSEST
from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.md.batch_integrators import BatchedNoseHoover, Flat, batched
from asecalc_mlip.md.device_steps import DeviceSteps
from asecalc_mlip.md.run import MDRun
from asecalc_mlip.md.summary import write_report
from asecalc_mlip.models.potential import Prediction
from asecalc_mlip.neighbors.batched import BatchedNeighborCache
from asecalc_mlip.neighbors.lists import FARTHEST

_LOST, _TOO_CLOSE = "positions are not finite or far away", f"atoms closer than {CLOSEST} Å"
# Å; where the calculator makes every list anew, which would bring positions to the host.
DEFAULT_SKIN = 0.5


class BatchedModel:
    """Stands in for the calculator of one replica: hands out what the batch computed for it."""

    def __init__(self, card: dict | None) -> None:
        self.card = card
        self.energy, self.forces = 0.0, np.zeros((0, 3))

    def get_potential_energy(self, atoms: Atoms | None = None, force_consistent: bool = False) -> float:
        """Return the energy, eV."""
        return self.energy

    def get_forces(self, atoms: Atoms | None = None) -> np.ndarray:
        """Return the forces, eV/Å."""
        return self.forces


class Replica(MDRun):
    """A run whose steps are made by a `Batch`."""

    def add_wall(self, seconds: float) -> None:
        """Count a share of the batch's wall time."""
        self.state.wall_s += seconds

    def after_step(self) -> bool:
        """Take frame and restart point where they are due; return whether the run has ended."""
        state, settings = self.state, self.settings
        if state.step % settings.interval == 0:
            self.take_frame()
        if state.failure is None and state.step % settings.restart_every == 0:
            self.restart_point()
        self.judge_end()
        return self.ended

    def due(self) -> bool:
        """Return whether anything is to be done after this step."""
        return self.steps_until_due(self.state.step - 1) == 1

    def steps_until_due(self, step: int) -> int:
        """Return after how many steps from step number `step` on something is to be done."""
        settings = self.settings
        every = (settings.interval - step % settings.interval, settings.restart_every - step % settings.restart_every)
        return max(1, min(*every, settings.steps - step))

    @property
    def ended(self) -> bool:
        """Whether it broke or made all its steps."""
        return self.state.failure is not None or self.state.step >= self.settings.steps

    def report(self) -> dict:
        """Write the summary; a figure of each of many runs would take longer than many of the runs."""
        return write_report(self, figure=False)

    def _tick(self) -> None:
        """Wall time comes from `add_wall`."""


class Batch:
    """Replicas in flat arrays; `advance` makes a step of all, on a device all steps until the next frame.

    Parameters
    ----------
    replicas : sequence of Replica
        Of one model, integrator, time step and periodicity.
    calculator : PIWSLCalculator
    on_device : bool, optional
        Whether everything stays on the device of the calculator between frames; by default where that is a GPU.
    drawn : bool
        On a device: take Langevin noise from the generators of the replicas, so that trajectories are those of runs
        alone; slower.
    """

    flat: Flat
    energies: np.ndarray
    integrator: Any
    _slices: list[slice]
    _on_device: DeviceSteps | None

    def __init__(
        self, replicas: Sequence[Replica], calculator, *, on_device: bool | None = None, drawn: bool = False
    ) -> None:
        self.calculator, self.drawn = calculator, drawn
        self.on_device = calculator.device.type == "cuda" if on_device is None else on_device
        self.neighbors = BatchedNeighborCache(calculator.cutoff, calculator.neighbors.skin)
        self.replicas: list[Replica] = []
        self._set(list(replicas))

    def evaluate(self) -> dict[int, str]:
        """Compute forces and energies; return messages of the replicas that the model refuses, by index."""
        refused: dict[int, str] = {}
        self.flat.forces = self._forces(refused)
        return refused

    def advance(self) -> tuple[dict[int, str], int]:
        """Make steps of all: messages of refused replicas, as `evaluate`, and the number of steps."""
        return self._steps_on_device() if self.on_device else (self._step(), 1)

    def look(self, step: int) -> None:
        """Prepare the forces of the step after which the first replica has made `step` steps."""

    def _step(self) -> dict[int, str]:
        refused: dict[int, str] = {}
        self.look(self.replicas[0].state.step + 1)
        begun = time.perf_counter()
        self.integrator.step(lambda: self._forces(refused))
        share = (time.perf_counter() - begun) / len(self.replicas)
        for replica in self.replicas:
            replica.state.step += 1
            replica.add_wall(share)
        return refused

    def _steps_on_device(self) -> tuple[dict[int, str], int]:
        begun = time.perf_counter()
        steps = self._on_device or self._to_device()
        self._on_device = steps
        number = min(replica.steps_until_due(replica.state.step) for replica in self.replicas)
        steps.run(number)
        self.energies, refused = steps.fetch()
        if isinstance(self.integrator, BatchedNoseHoover):
            self.integrator.eta, self.integrator.p_eta = steps.chain["eta"], steps.chain["p_eta"]
        share = (time.perf_counter() - begun) / len(self.replicas)
        for index, replica in enumerate(self.replicas):
            done, _ = refused.get(index, (number, False))
            replica.state.step += done
            replica.add_wall(share)
        return {index: _TOO_CLOSE if close else _LOST for index, (_, close) in refused.items()}, number

    def _to_device(self) -> DeviceSteps:
        first = self.replicas[0].state.step

        def predict(graph: AtomGraph, step: int) -> Prediction:
            self.look(first + step)
            return self._predict(graph)

        owner = self._owner
        return DeviceSteps(
            self.flat,
            [replica.integrator for replica in self.replicas],
            None if self.drawn else [replica.settings.seed for replica in self.replicas],
            [replica.state.step for replica in self.replicas],
            AtomGraph(self._numbers.long(), owner, owner, owner, owner, self._cells.double()),
            self._pbc,
            self.calculator.cutoff,
            self.calculator.neighbors.skin or DEFAULT_SKIN,
            predict,
        )

    def write_back(self, index: int) -> None:
        """Bring atoms, results and thermostat of one replica up to date."""
        atoms, mine = self.replicas[index].atoms, self._slices[index]
        atoms.positions[:] = self.flat.positions[mine]
        atoms.set_momenta(self.flat.momenta[mine], apply_constraint=False)
        atoms.calc.energy, atoms.calc.forces = float(self.energies[index]), self.flat.forces[mine].copy()
        self.integrator.write_back(index)

    def drop(self, indices: Sequence[int]) -> None:
        """Go on without some replicas; those that stay keep their state, and their forces."""
        keep = [k for k in range(len(self.replicas)) if k not in set(indices)]
        for k in keep:
            self.write_back(k)
        forces, energies = [self.flat.forces[self._slices[k]] for k in keep], self.energies[keep]
        self._set([self.replicas[k] for k in keep])
        if keep:
            self.flat.forces, self.energies = np.concatenate(forces), energies

    def _set(self, replicas: list[Replica]) -> None:
        self.replicas = replicas
        self._on_device = None
        self.energies = np.zeros(len(replicas))
        if not replicas:
            return
        all_atoms = [r.atoms for r in replicas]
        self.flat = Flat.gather(all_atoms)
        ends = [*self.flat.starts[1:], len(self.flat.masses)]
        self._slices = [slice(int(a), int(b)) for a, b in zip(self.flat.starts, ends, strict=True)]
        self.integrator = batched(self.flat, [r.integrator for r in replicas])
        device = self.calculator.device
        self._numbers = torch.as_tensor(np.concatenate([a.numbers for a in all_atoms])).to(device)
        self._cells = torch.as_tensor(np.array([a.cell.array for a in all_atoms])).to(device)
        self._owner = torch.as_tensor(self.flat.owner).to(device)
        self._pbc = all_atoms[0].pbc.copy()

    @torch.inference_mode(False)  # forces are derivatives, which a caller's inference mode forbids
    def _forces(self, refused: dict[int, str]) -> np.ndarray:
        """Return forces (N, 3); those of refused replicas are NaN, and their positions are out of the batch's way."""
        positions = torch.from_numpy(self.flat.positions).to(self.calculator.device)
        positions = self._without_lost(positions, refused)
        graph = self.neighbors.graph(
            self._numbers, positions, self._cells, self._owner, self._pbc, self.calculator.check_elements
        )
        self._find_overlaps(graph, refused)
        prediction = self._predict(graph)
        self.energies = prediction.energy.detach().cpu().numpy().astype(float)
        assert prediction.forces is not None
        forces = prediction.forces.detach().cpu().numpy().astype(float)
        for index in refused:
            forces[self._slices[index]] = np.nan
        return forces

    def _predict(self, graph: AtomGraph) -> Prediction:
        return self.calculator.engine(graph, forces=True, stress=False)

    def _without_lost(self, positions: torch.Tensor, refused: dict[int, str]) -> torch.Tensor:
        """Replicas with NaN or with atoms that flew off stand still where they started, until they are dropped."""
        bad = ~(np.abs(self.flat.positions).max(axis=1) < FARTHEST)
        if not bad.any():
            return positions
        positions = positions.clone()
        for index in np.unique(self.flat.owner[bad]):
            refused[int(index)] = _LOST
            start = torch.from_numpy(self.replicas[index].start.positions)
            positions[self._slices[index]] = start.to(positions.device)
        return positions

    def _find_overlaps(self, graph, refused: dict[int, str]) -> None:
        if graph.n_edges == 0:
            return
        close = graph.vectors().square().sum(-1) < CLOSEST**2
        if bool(close.any()):
            for index in self._owner[graph.centers[close]].unique().tolist():
                refused[int(index)] = _TOO_CLOSE


def run_together(
    replicas: Sequence[Replica],
    batch_of: Callable[[Sequence[Replica]], Batch],
    *,
    told: set[str] | None = None,
    **options: Any,
) -> None:
    """Begin new replicas, take those that were begun to their restart points, and run all to their ends in one batch.

    Parameters
    ----------
    replicas : sequence of Replica
        Their folders stay locked until the end.
    batch_of : callable
        Makes the batch once they are where they were.
    told : set of str, optional
        Rules of the monitor that need not be told again, as of `MDRun.begin`.
    **options
        As of `run_replicas`.

    Raises
    ------
    InputError
        The model refuses a start, a folder is in use, or as `run_replicas`.
    """
    new, told = [replica for replica in replicas if not replica.files.begun], set() if told is None else told
    with ExitStack() as locks:
        for replica in replicas:
            if replica not in new:
                locks.enter_context(replica.files.lock())
                replica.resume()
        batch = batch_of(replicas)
        refused = batch.evaluate()
        for index, replica in enumerate(replicas):
            batch.write_back(index)
            if index in refused:
                raise InputError(f"{replica.files.directory}: the model refuses the start: {refused[index]}")
            if replica in new:
                locks.enter_context(replica.files.lock())
                replica.begin(told)
        run_replicas(batch, **options)


def run_replicas(
    batch: Batch,
    *,
    report: Callable[[Replica, dict], None] = lambda replica, summary: None,
    stop: Callable[[], bool] = lambda: False,
    tick: Callable[[int], None] = lambda steps: None,
) -> None:
    """Advance all replicas of a batch to their ends.

    Parameters
    ----------
    batch : Batch
        With forces (`Batch.evaluate`).
    report : callable
        Called with each replica that ended and its summary.
    stop : callable
        Asked after every step, on a GPU after every frame, whether to leave off; replicas then stay at their restart
        points.
    tick : callable
        Called with the number of replica steps made.

    Raises
    ------
    InputError
        The model refuses a geometry that the monitor finds sound.
    """
    _finish(batch, [k for k, r in enumerate(batch.replicas) if r.ended], report)
    while batch.replicas and not stop():
        refused, steps = batch.advance()
        tick(steps * len(batch.replicas))
        ended = []
        for index, replica in enumerate(batch.replicas):
            if index in refused:
                batch.write_back(index)
                if not replica.refused():
                    raise InputError(f"{replica.files.directory}: the model refuses the geometry: {refused[index]}")
                ended.append(index)
            elif replica.due():
                batch.write_back(index)
                if replica.after_step():
                    ended.append(index)
        _finish(batch, ended, report)


def _finish(batch: Batch, ended: list[int], report: Callable[[Replica, dict], None]) -> None:
    for index in ended:
        replica = batch.replicas[index]
        report(replica, replica.report())
    if ended:
        batch.drop(ended)
