"""What a run shows on the terminal, and how it is stopped from there."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from ase import Atoms
from tqdm import tqdm

from asecalc_mlip.md.settings import MDSettings


class Progress:
    """Progress bar with temperature and energy.

    `show`: True: always; None: only if stderr is a terminal; False: never.
    """

    def __init__(self, settings: MDSettings, step: int, show: bool | None) -> None:
        name = settings.ensemble.upper()
        self._bar = tqdm(
            total=settings.steps,
            initial=step,
            desc=f"{name} {settings.temperature_K:g} K",
            unit="step",
            disable=None if show is None else not show,
            dynamic_ncols=True,
            file=sys.stderr,
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception) -> None:
        self._bar.close()

    def update(self, step: int, atoms: Atoms, temperature: float) -> None:
        """Show `step` with temperature (K), potential energy (eV) and the hit rate of the neighbour list."""
        if self._bar.disable:
            return
        values = {"T": f"{temperature:.0f} K", "Epot": f"{atoms.get_potential_energy():.3f} eV"}
        values.update(rates(calculator_stats(atoms.calc)))
        self._bar.set_postfix(values, refresh=False)
        self._bar.update(step - self._bar.n)

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        tqdm.write(message, file=sys.stderr)


class Interrupt:
    """Turns SIGINT and SIGTERM into a wish to stop: the first at the next restart point, the second at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._count = self._seen = 0
        self._old: dict = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._old = {s: signal.signal(s, self._receive) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    @property
    def at_once(self) -> bool:
        """Whether the second signal has come."""
        return self._count > 1

    def news(self) -> bool:
        """True once after each signal."""
        news, self._seen = self._count > self._seen, self._count
        return news

    def _receive(self, number: int, _frame) -> None:
        self.signal = number
        self._count += 1


def program() -> str | None:
    """How a script was called, for its usage: "asecalc relax"; None leaves that to argparse."""
    return f"asecalc {sys.argv[1]}" if Path(sys.argv[0]).stem == "asecalc" and len(sys.argv) > 1 else None


def calculator_stats(calculator) -> dict:
    """What the calculator says about itself, an empty dict if it says nothing."""
    stats = calculator.stats() if callable(getattr(calculator, "stats", None)) else {}
    return stats if isinstance(stats, dict) else {}


def rates(stats: dict) -> dict[str, str]:
    """Rates (numbers between 0 and 1, such as the hit rate of the neighbour list) among the stats, as percentages."""
    wanted = {k: v for k, v in stats.items() if k.endswith("rate") and isinstance(v, (int, float))}
    return {k.replace("_", " "): f"{100 * v:.0f} %" for k, v in wanted.items()}


def time_shares(stats: dict, wall_s: float) -> dict[str, float]:
    """Share of the wall time of each `seconds_…` among the stats, and of everything else (integrator, files)."""
    shares = {k.removeprefix("seconds_"): v / wall_s for k, v in stats.items() if k.startswith("seconds_")}
    return {**shares, "rest": 1.0 - sum(shares.values())} if shares else {}
