"""What a run shows on the terminal, and how it is stopped from there."""

from __future__ import annotations

import sys
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
