"""One run of molecular dynamics: the loop, frames, restart points, stop signals. NVE, NVT, NPT and anneal share it.

A run is a pure function of its settings, start structure and model, also when it is cut into pieces. For that
  - everything the next step depends on goes into the restart file as exact floats (positions, momenta, cell,
    thermostat, random numbers, monitor);
  - at every restart point the calculator forgets its neighbour list, in the run that goes on as well as in the one that
    is restarted, so both sum the same neighbours in the same order;
  - restart points lie on a fixed grid of steps, whenever and however the run was stopped.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms, units

from asecalc_mlip.analysis.distances import DistanceHistogram, bin_edges, count_distances
from asecalc_mlip.analysis.periodic import PeriodicReference
from asecalc_mlip.analysis.reference import MoleculeReference
from asecalc_mlip.analysis.references import Reference
from asecalc_mlip.card import force_statistics
from asecalc_mlip.errors import InputError
from asecalc_mlip.md import files as names
from asecalc_mlip.md.barostats import GPA
from asecalc_mlip.md.files import RunFiles, extra_arrays, frame
from asecalc_mlip.md.monitor import Failure, StabilityMonitor
from asecalc_mlip.md.progress import Progress
from asecalc_mlip.md.settings import MDSettings
from asecalc_mlip.md.summary import write_report
from asecalc_mlip.md.thermostats import degrees_of_freedom, make_integrator
from asecalc_mlip.stopping import SoftStop


@dataclass
class RunState:
    """How far a run has come."""

    step: int = 0
    stable_step: int = 0
    """Last step whose frame was found stable."""
    frames: int = 0
    """Stable frames in the trajectory."""
    wall_s: float = 0.0
    restarts: int = 0
    failure: Failure | None = None
    failure_step: int | None = None
    signal: int | None = None
    """The signal that stopped the run, if one did."""


class MDRun:
    """One run: owns the integrator, the monitor and the files. Made by `start_run` and `continue_run`."""

    def __init__(
        self,
        atoms: Atoms,
        settings: MDSettings,
        run_files: RunFiles,
        reference: Reference | None,
        identity: dict,
        rng: np.random.Generator,
        start: Atoms,
    ) -> None:
        self.atoms, self.settings, self.files = atoms, settings, run_files
        self.reference, self.identity, self.start = reference, identity, start
        self.ndof = degrees_of_freedom(start, settings.thermostat)
        self.integrator = make_integrator(atoms, settings, rng)
        self.monitor = StabilityMonitor(
            start,
            temperature_K=settings.temperature_K,
            ndof=self.ndof,
            reference=reference if self._rule() else None,
            frame_fs=settings.interval * settings.timestep_fs,
            force_limit=force_limit(atoms.calc, reference),
        )
        self.edges = reference.histogram.edges if isinstance(reference, MoleculeReference) else bin_edges()
        self.counts = np.zeros(len(self.edges) - 1, dtype=np.int64)
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

    def check_start(self) -> None:
        """Refuse a start structure that counts as broken."""
        fresh, window = self.monitor.get_state(), self.monitor.get_window()
        failure, *_ = self._judge()
        if failure is not None:
            raise InputError(f"The start structure is broken already: {failure.message}. Relax or repair it first.")
        self.monitor.set_state(fresh, window)  # frame 0 is judged once more, and counts once

    def begin(self) -> None:
        """Write the reference, frame 0 and the first restart point."""
        if self.reference is not None:
            self.files.write_json(names.REFERENCE, self.reference.to_dict())
        self.take_frame()
        self.restart_point()

    def run(self, progress: bool | None) -> dict:
        """Integrate to the last step, the first broken frame or a stop signal; returns the summary."""
        state, settings = self.state, self.settings
        with SoftStop() as interrupt, Progress(settings, state.step, progress) as bar:
            while state.step < settings.steps and state.failure is None and not interrupt.at_once:
                self._advance()
                if state.failure is None and state.step % settings.interval == 0:
                    self.take_frame()
                    bar.update(state.step, self.atoms, self.temperature)
                if state.failure is None and state.step % settings.restart_every == 0:
                    self.restart_point()
                    if interrupt.signal:
                        break
                elif interrupt.news():
                    bar.say(
                        f"Stopping at the next restart point (every {settings.restart_every} steps); again: at once."
                    )
            if state.step < settings.steps and state.failure is None:
                state.signal = interrupt.signal
        self._tick()
        return write_report(self)

    def restore(self, arrays: dict[str, np.ndarray], meta: dict) -> None:
        """Set everything to the restart point and cut the files back to it."""
        self.files.cut_back(meta["sizes"])
        self.integrator.set_state(meta["integrator"])
        self.monitor.set_state(meta["monitor"], arrays.get("monitor_window", ()))
        self.monitor.temperature_K = self.settings.target_K(meta["step"])
        self.counts[:] = arrays["counts"]
        for name in ("step", "stable_step", "frames", "restarts"):
            setattr(self.state, name, meta[name])
        self.state.restarts += 1
        self.first_step = self.state.step
        self._wall_before = meta["wall_s"]

    def _rule(self) -> bool:
        """Whether the reference is a rule for the run, or only for comparison."""
        return self.settings.bond_rule if isinstance(self.reference, MoleculeReference) else self.settings.rdf_rule

    def _advance(self) -> None:
        """One step. A calculator may refuse a broken geometry: then the monitor says what is wrong with it."""
        self.state.step += 1
        if self.settings.ensemble == "anneal":
            self.monitor.temperature_K = self.settings.target_K(self.state.step)
            integrator: Any = self.integrator  # a thermostat; MDSettings has seen to that
            integrator.set_target(self.monitor.temperature_K)
        try:
            self.integrator.step()
        except Exception:
            if not self.refused():
                raise

    def refused(self) -> bool:
        """End a run whose geometry the calculator refuses, if the monitor finds it broken too; whether it does."""
        failure = self.monitor.check(self.atoms)
        if failure is not None:
            self._broken(failure, np.nan, np.full((len(self.atoms), 3), np.nan))
        return failure is not None

    def take_frame(self) -> None:
        """Log and judge the frame; keep it in the trajectory if it is stable."""
        failure, energy, forces = self._judge()
        kinetic = self.atoms.get_kinetic_energy()
        time_ps = self.state.step * self.settings.timestep_fs * 1e-3
        values = (time_ps, self.temperature, energy, kinetic, energy + kinetic, self.integrator.conserved())
        self.files.append_row((self.state.step, *map(float, (*values, *self._extra_values()))))
        if failure is not None:
            self._broken(failure, energy, forces)
            return
        self.files.append_frame(self._frame(energy, forces))
        self.state.stable_step = self.state.step
        self.state.frames += 1
        if not self.atoms.pbc.any():
            self.counts += count_distances(self.atoms.positions, self.edges)

    def _extra_values(self) -> tuple[float, ...]:
        """What the log of NPT and anneal has besides, see EXTRA_COLUMNS."""
        if self.settings.ensemble == "anneal":
            return (self.settings.target_K(self.state.step),)
        if self.settings.ensemble == "npt":
            try:
                stress = self.atoms.get_stress(include_ideal_gas=True)
            except InputError:  # a broken geometry, which the monitor names
                stress = np.full(6, np.nan)
            return self.atoms.get_volume(), -float(np.mean(stress[:3])) / GPA
        return ()

    def _judge(self) -> tuple[Failure | None, float, np.ndarray]:
        energy = float(self.atoms.get_potential_energy())
        forces = self.atoms.get_forces(apply_constraint=False)
        failure = self.monitor.check(self.atoms, energy=energy, forces=forces, temperature=self.temperature)
        return failure, energy, forces

    def _broken(self, failure: Failure, energy: float, forces: np.ndarray) -> None:
        self.state.failure, self.state.failure_step = failure, self.state.step
        self.files.write_frame(self._frame(energy, forces), names.UNSTABLE)

    def _frame(self, energy: float, forces: np.ndarray) -> Atoms:
        step = self.state.step
        return frame(self.atoms, energy, forces, step=step, time_ps=step * self.settings.timestep_fs * 1e-3)

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
        if hasattr(self.atoms.calc, "reset"):
            self.atoms.calc.reset()

    def _tick(self) -> None:
        self.state.wall_s = self._wall_before + time.perf_counter() - self._begun


def log_columns(settings: MDSettings) -> tuple[str, ...]:
    """Columns of the log of a run."""
    return (*names.LOG_COLUMNS, *names.EXTRA_COLUMNS.get(settings.ensemble, ()))


def force_limit(calculator, reference: Reference | None) -> float | None:
    """Mean + 5 std of |F| in eV/Å over the training data, from the model's card or the reference; None: not known."""
    known = force_statistics(getattr(calculator, "card", None))
    if known is not None:
        return known[0] + 5.0 * known[1]
    return reference.force_limit if isinstance(reference, PeriodicReference) else None
