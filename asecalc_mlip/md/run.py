"""One run of molecular dynamics: the loop, frames, restart points, stop signals. All ensembles share it.

A run is a pure function of its settings, start structure and model, also when it is cut into pieces. For that
  - everything the next step depends on goes into the restart file as exact floats (positions, momenta, cell,
    thermostat, random numbers, monitor);
  - at every restart point the calculator forgets its neighbour list, in the run that goes on as well as in the one that
    is restarted, so both sum the same neighbours in the same order;
  - restart points lie on a fixed grid of steps, whenever and however the run was stopped.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms, units

from asecalc_mlip.analysis.bonds import whole
from asecalc_mlip.analysis.distances import DistanceHistogram, bin_edges, count_distances
from asecalc_mlip.analysis.molecule_reference import MoleculeReference
from asecalc_mlip.analysis.references import Reference, load_reference
from asecalc_mlip.errors import CommitteeDisagreement, InputError
from asecalc_mlip.md import files as names
from asecalc_mlip.md import spread
from asecalc_mlip.md.ensembles import ENSEMBLES, make_integrator
from asecalc_mlip.md.failures import UNCERTAIN, Failure, atom_name
from asecalc_mlip.md.files import RunFiles, extra_arrays, fixed_array, frame, stored_atoms
from asecalc_mlip.md.fixed import settle_fixed
from asecalc_mlip.md.going_on import check_start, ended_before, settings_to_go_on
from asecalc_mlip.md.integrators import Integrator, maxwell_boltzmann, refuse_masses
from asecalc_mlip.md.monitor import Monitor, start_bonds
from asecalc_mlip.md.progress import Progress
from asecalc_mlip.md.settings import MDSettings
from asecalc_mlip.md.summary import MDResult, rules_text, write_report
from asecalc_mlip.neighbors.lists import check_structure
from asecalc_mlip.stopping import SoftStop

__all__ = ["MDRun", "RunState"]

_LOG = logging.getLogger("asecalc_mlip")


@dataclass
class RunState:
    """How far a run has come."""

    step: int = 0
    stable_step: int = 0
    """Last step that was found stable: that of a frame, or the last one of the run."""
    frames: int = 0
    """Stable frames in the trajectory."""
    wall_s: float = 0.0
    restarts: int = 0
    failure: Failure | None = None
    failure_step: int | None = None
    signal: int | None = None
    """The signal that stopped the run, if one did."""


class MDRun:
    """One run: atoms, settings, integrator, monitor and the folder of its files.

    Parameters
    ----------
    atoms : Atoms
        Start structure with any ASE calculator; it is moved.
    settings : MDSettings
    output : path
        Folder of the run. Where it has a run with the same settings, `run` goes on with that.
    integrator : Integrator, optional
        By default the one that the settings ask for, after new Maxwell-Boltzmann velocities.
    monitor : Monitor, optional
        By default the one that the settings ask for.
    reference : Reference, optional
        For the bonds and h(r) of a molecule or the g(r) of a periodic structure. By default the bonds of the start
        structure of a molecule, nothing for what is periodic.
    identity : dict, optional
        What must be unchanged when the run goes on, such as the digest of the model file.

    Raises
    ------
    InputError
        For constraints other than FixAtoms, positions, masses or a cell that cannot be, and an ensemble that the
        structure or calculator cannot have.
    """

    def __init__(
        self,
        atoms: Atoms,
        settings: MDSettings,
        output: str | os.PathLike,
        *,
        integrator: Integrator | None = None,
        monitor: Monitor | None = None,
        reference: Reference | None = None,
        identity: dict | None = None,
    ) -> None:
        self.atoms, self.settings, self.files = atoms, settings, RunFiles(output)
        self.identity = identity or {}
        self.start = atoms.copy()
        if not settle_fixed(self.start).any():
            self.start.set_constraint()  # that of an integrator is not one of the structure
        self._own_integrator = integrator is None
        self.integrator = integrator or _new_integrator(atoms, settings)
        self.ndof = self.integrator.ndof
        self._own_monitor = monitor is None
        self._watch(_usual(reference, self.start), monitor)
        self.columns = (*names.LOG_COLUMNS, *self.integrator.columns, *spread.columns_of(atoms.calc))
        self.state = RunState()
        self.first_step = 0
        self._wall_before = 0.0
        self._begun = time.perf_counter()

    @property
    def histogram(self) -> DistanceHistogram:
        """h(r) of the stable frames so far."""
        return DistanceHistogram(self.edges, self.counts, self.state.frames)

    @property
    def seconds(self) -> float:
        """Wall time of this piece of the run, without the time before a restart."""
        return self.state.wall_s - self._wall_before

    @property
    def temperature(self) -> float:
        """2 E_kin / (f k_B) in K."""
        return 2.0 * self.atoms.get_kinetic_energy() / (self.ndof * units.kB)

    def run(self, progress: bool | None = False) -> MDResult:
        """Integrate to the last step, the first broken frame or a stop signal.

        A run of the same settings in the folder goes on where it was; one that has ended is read.

        Parameters
        ----------
        progress : bool or None
            True: a progress bar; None: only on a terminal; False: none.

        Raises
        ------
        InputError
            The folder has a run with other settings, another model or start, or is in use; the start is broken; the
            disk is full.
        """
        ended = ended_before(self.files.directory, self.settings, self.identity)
        if ended is not None:
            return ended
        with self.files.lock():
            told = not self.files.begun and _LOG.isEnabledFor(logging.INFO)
            if self.files.begun:
                self.resume()
            else:
                self.begin()
            self._integrate(progress)
            self._tick()
            return MDResult(write_report(self), self.files.directory, rules_told=told)

    def begin(self, told: set[str] | None = None) -> None:
        """Judge the start; write the reference, frame 0 and the first restart point.

        Rules in `told` are not told again; the others are added to it.
        """
        self.check_start()
        self.files.start(self.columns)
        if self.reference is not None:
            self.files.write_json(names.REFERENCE, self.reference.to_dict())
        told = set() if told is None else told
        for line in rules_text(self.rules()):
            if line not in told:
                _LOG.info(line)
            told.add(line)
        self.take_frame()
        self.restart_point()

    def rules(self) -> dict[str, Any]:
        """Return what is watched, as `Monitor.rules`, and the committee that is asked."""
        return {**self.monitor.rules(), "committee": spread.committee_of(self.atoms.calc)}

    def check_start(self) -> None:
        """Refuse a start structure that counts as broken."""
        fresh, window = self.monitor.get_state(), self.monitor.get_window()
        failure, *_ = self._judge()
        if failure is not None:
            raise InputError(f"the start structure is broken already: {failure.message}; relax or repair it first")
        self.monitor.set_state(fresh, window)  # frame 0 is judged once more, and counts once

    def resume(self) -> None:
        """Set everything to the restart point and cut the files back to it."""
        arrays, meta = self.files.load_restart()
        self._adopt(meta)
        check_start(self.start, stored_atoms(arrays, meta), self.files.directory)
        path = self.files.path(names.REFERENCE)
        self._watch(load_reference(path) if path.exists() else None, None if self._own_monitor else self.monitor)
        self.files.cut_back(meta["sizes"])
        self.columns = self.files.log_columns()
        self._restore_atoms(arrays)
        self.integrator.set_state(meta["integrator"])
        self.integrator.begin_step(meta["step"])
        self.monitor.set_state(meta["monitor"], arrays.get("monitor_window", ()))
        self.monitor.temperature_K = self.integrator.target_K or self.settings.temperature_K
        self.counts[:] = arrays["counts"]
        for name in ("step", "stable_step", "frames", "restarts"):
            setattr(self.state, name, meta[name])
        self.state.restarts += 1
        self.first_step = self.state.step
        self._wall_before = self.state.wall_s = meta["wall_s"]

    def take_frame(self) -> None:
        """Log and judge the frame; keep it in the trajectory if it is stable."""
        failure, energy, forces = self._judge()
        kinetic = self.atoms.get_kinetic_energy()
        values = (self._time_ps(), self.temperature, energy, kinetic, energy + kinetic, self.integrator.conserved())
        more: dict[str, float | None] = dict(zip(self.integrator.columns, self.integrator.log_values(), strict=True))
        more[spread.COLUMN] = spread.spread_of(self.atoms.calc)
        extra = (_number(more.get(name)) for name in self.columns[len(names.LOG_COLUMNS) :])
        self.files.append_row((self.state.step, *map(float, (*values, *extra))))
        if failure is not None:
            self._broken(failure, energy, forces)
            return
        self.files.append_frame(self._frame(energy, forces))
        self.state.stable_step = self.state.step
        self.state.frames += 1
        if isinstance(self.reference, MoleculeReference) or not self.atoms.pbc.any():
            self.counts += count_distances(self._molecule(), self.edges)

    def judge_end(self) -> None:
        """Judge the last step of a run that is no whole number of intervals long; it is no frame of the trajectory."""
        state = self.state
        if state.failure is not None or state.step < self.settings.steps or state.stable_step == state.step:
            return
        failure, energy, forces = self._judge()
        if failure is not None:
            self._broken(failure, energy, forces)
        else:
            state.stable_step = state.step

    def restart_point(self) -> None:
        """Write the restart file and start the calculator afresh, as a restarted run will."""
        self._tick()
        arrays = {
            "positions": self.atoms.positions,
            "momenta": self.atoms.get_momenta(),
            "cell": self.atoms.cell.array,
            "pbc": self.atoms.pbc,
            "start_positions": self.start.positions,
            "start_cell": self.start.cell.array,
            "counts": self.counts,
            "monitor_window": self.monitor.get_window(),
            **fixed_array(self.start),
            **{f"atoms_{name}": values for name, values in extra_arrays(self.start).items()},
        }
        state = self.state
        meta = {
            "settings": self.settings.to_dict(),
            "identity": self.identity,
            "symbols": self.atoms.get_chemical_symbols(),
            "info": {k: v for k, v in self.start.info.items() if isinstance(v, (bool, int, float, str))},
            "integrator": self.integrator.get_state(),
            "monitor": self.monitor.get_state(),
            **{name: getattr(state, name) for name in ("step", "stable_step", "frames", "restarts", "wall_s")},
        }
        self.files.save_restart(arrays, meta)
        self._refresh_calculator()

    def refused(self) -> bool:
        """End a run whose geometry the calculator refuses, if the monitor finds it broken too; say whether it does."""
        failure = self.monitor.check(self.atoms)
        if failure is not None:
            self._broken(failure, np.nan, np.full((len(self.atoms), 3), np.nan))
        return failure is not None

    def _watch(self, reference: Reference | None, monitor: Monitor | None) -> None:
        """Take a reference, which may be a rule for the run or only for comparison."""
        self.reference = reference
        self.start.calc = self.atoms.calc
        self.monitor = monitor or Monitor.for_run(self.start, self.settings, reference)
        self.start.calc = None
        self.edges = reference.histogram.edges if isinstance(reference, MoleculeReference) else bin_edges()
        self.counts = np.zeros(len(self.edges) - 1, dtype=np.int64)

    def _adopt(self, meta: dict) -> None:
        """Take the settings of the run in the folder, if ours go on with it."""
        given, self.settings = self.settings, settings_to_go_on(meta, self.settings, self.identity)
        self.identity = meta["identity"]
        if self._own_integrator and self.settings.ramp_steps != given.ramp_steps:
            self.integrator = make_integrator(self.atoms, self.settings, np.random.default_rng(self.settings.seed))

    def _restore_atoms(self, arrays: dict[str, np.ndarray]) -> None:
        self.atoms.set_cell(arrays["cell"])
        self.atoms.positions[:] = arrays["positions"]
        self.atoms.set_momenta(arrays["momenta"], apply_constraint=False)
        self._refresh_calculator()

    def _integrate(self, progress: bool | None) -> None:
        state, settings = self.state, self.settings
        with SoftStop() as stop, Progress(settings, state.step, progress) as bar:
            while state.step < settings.steps and state.failure is None and not stop.at_once:
                self._advance()
                if state.failure is None and state.step % settings.interval == 0:
                    self.take_frame()
                    bar.update(state.step, self.atoms, self.temperature)
                if state.failure is None and state.step % settings.restart_every == 0:
                    self.restart_point()
                    if stop.signal:
                        break
                elif stop.news():
                    every = settings.restart_every
                    bar.say(f"Stopping at the next restart point (every {every} steps); again: at once.")
            self.judge_end()
            if state.step < settings.steps and state.failure is None:
                state.signal = stop.signal

    def _advance(self) -> None:
        """One step. A calculator may refuse a broken geometry: then the monitor says what is wrong with it.

        A committee that is to stop where its members disagree ends the run as the monitor does.
        """
        self.state.step += 1
        self.integrator.begin_step(self.state.step)
        if self.integrator.target_K is not None:
            self.monitor.temperature_K = self.integrator.target_K
        try:
            self.integrator.step()
        except CommitteeDisagreement as error:
            self._unsure(error)
        except Exception:
            if not self.refused():
                raise

    def _judge(self) -> tuple[Failure | None, float, np.ndarray]:
        energy = float(self.atoms.get_potential_energy())
        forces = self.atoms.get_forces(apply_constraint=False)
        failure = self.monitor.check(self.atoms, energy=energy, forces=forces, temperature=self.temperature)
        return failure, energy, forces

    def _broken(self, failure: Failure, energy: float, forces: np.ndarray) -> None:
        self.state.failure, self.state.failure_step = failure, self.state.step
        self.files.write_frame(self._frame(energy, forces), names.UNSTABLE)

    def _unsure(self, error: CommitteeDisagreement) -> None:
        name = atom_name(self.atoms, error.atom)
        failure = Failure(UNCERTAIN, str(error), (error.atom,), error.spread, error.threshold, name)
        energy, forces = np.nan, np.full((len(self.atoms), 3), np.nan)
        # A sum of calculators, of which the committee is one, has none.
        if not self.atoms.calc.calculation_required(self.atoms, ["energy", "forces"]):
            energy, forces = (self.atoms.calc.results[name] for name in ("energy", "forces"))
        self._broken(failure, energy, forces)

    def _frame(self, energy: float, forces: np.ndarray) -> Atoms:
        return frame(self.atoms, energy, forces, step=self.state.step, time_ps=self._time_ps())

    def _molecule(self) -> np.ndarray:
        """Positions of a molecule that a periodic box may have cut, Å."""
        bonds = self.reference.bonds if isinstance(self.reference, MoleculeReference) else np.zeros((0, 2), dtype=int)
        return whole(self.atoms.positions, bonds, self.atoms)

    def _time_ps(self) -> float:
        return self.state.step * self.settings.timestep_fs * 1e-3

    def _refresh_calculator(self) -> None:
        if hasattr(self.atoms.calc, "reset"):
            self.atoms.calc.reset()

    def _tick(self) -> None:
        self.state.wall_s = self._wall_before + time.perf_counter() - self._begun


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def _new_integrator(atoms: Atoms, settings: MDSettings) -> Integrator:
    ENSEMBLES[settings.ensemble].check_atoms(atoms)
    check_structure(atoms.positions, atoms.cell.array, atoms.pbc, 0.0)  # before anything is computed of them
    refuse_masses(atoms)
    rng = np.random.default_rng(settings.seed)
    maxwell_boltzmann(atoms, settings.temperature_K, rng)
    return make_integrator(atoms, settings, rng)


def _usual(reference: Reference | None, start: Atoms) -> Reference | None:
    return start_bonds(start) if reference is None else reference
