"""Progress of a run in the terminal, and the statistics of its calculator."""

from __future__ import annotations

import logging
import os
import sys
import time

from ase import Atoms
from tqdm import tqdm

from asecalc_mlip.md.settings import MDSettings
from asecalc_mlip.md.spread import spread_of

__all__ = ["Progress", "calculator_stats", "rates", "time_shares"]

NAMES = {"neighbor_hit_rate": "calls that reuse the neighbour list"}

LOG = logging.getLogger("asecalc_mlip")
# Of the lines that stand in for a bar.
LINES, SECONDS_BETWEEN_LINES = 20, 10.0


class Progress:
    """Progress bar with temperature, energy and speed; where a terminal has no room for one, a line now and then.

    Parameters
    ----------
    settings : MDSettings
    step : int
        Number of steps made before.
    show : bool or None
        True: always; None: if stderr is a terminal, else as lines; False: never.
    """

    def __init__(self, settings: MDSettings, step: int, show: bool | None) -> None:
        self._settings, self._first, self._begun = settings, step, time.perf_counter()
        room = show or _columns() > 0
        self._lines = show is None and not room
        self._told, self._told_at = step, self._begun
        self._bar = tqdm(
            total=settings.steps,
            initial=step,
            desc=f"{settings.ensemble.upper()} {settings.temperature_K:g} K",
            unit="step",
            disable=show is False or not room,
            dynamic_ncols=True,
            file=sys.stderr,
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def update(self, step: int, atoms: Atoms, temperature: float) -> None:
        """Show `step` with temperature (K), potential energy (eV), spread of a committee (eV/Å) and speed (ns/day)."""
        if self._bar.disable and not self._due(step):
            return
        values = {"T": f"{temperature:.0f} K", "Epot": f"{atoms.get_potential_energy():.3f} eV"}
        spread = spread_of(atoms.calc)
        if spread is not None:
            values["spread"] = f"{spread:.3g} eV/Å"
        seconds = time.perf_counter() - self._begun
        if step > self._first:
            nanoseconds = (step - self._first) * self._settings.timestep_fs * 1e-6
            values["speed"] = f"{nanoseconds * 86400 / seconds:.3g} ns/day"
        if not self._bar.disable:
            self._bar.set_postfix(values, refresh=False)
            self._bar.update(step - self._bar.n)
            return
        self._told, self._told_at = step, time.perf_counter()
        told = ", ".join(f"{name} {value}" for name, value in values.items())
        LOG.info("step %d of %d, %s", step, self._settings.steps, told)

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        tqdm.write(message, file=sys.stderr)

    def _due(self, step: int) -> bool:
        """Whether a line is due: not more than LINES in a run, and not often."""
        far = step - self._told >= self._settings.steps / LINES
        return self._lines and far and time.perf_counter() - self._told_at >= SECONDS_BETWEEN_LINES


def _columns() -> int:
    """Width of the terminal that standard error is; 0 if it is none."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError, AttributeError):
        return 0


def calculator_stats(calculator) -> dict:
    """Return what the calculator says about itself, an empty dict if it says nothing."""
    stats = calculator.stats() if callable(getattr(calculator, "stats", None)) else {}
    return stats if isinstance(stats, dict) else {}


def rates(stats: dict) -> dict[str, str]:
    """Return the rates among the stats (between 0 and 1, as the hit rate of the neighbour list), as percentages."""
    wanted = {k: v for k, v in stats.items() if k.endswith("rate") and isinstance(v, (int, float))}
    return {NAMES.get(k, k.replace("_", " ")): f"{100 * v:.0f} %" for k, v in wanted.items()}


def time_shares(stats: dict, wall_s: float) -> dict[str, float]:
    """Return the share of wall time of each `seconds_…` among the stats, and of everything else (integrator, files)."""
    shares = {k.removeprefix("seconds_"): v / wall_s for k, v in stats.items() if k.startswith("seconds_")}
    return {**shares, "rest": 1.0 - sum(shares.values())} if shares else {}
