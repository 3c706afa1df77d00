"""Options of a report with their defaults, checked before anything is computed."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asecalc_mlip import quantities
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import with_index
from asecalc_mlip.units import DTYPES, Dtype

__all__ = ["ReportSettings"]

# Normal and quick. The first takes one to two minutes for 21 atoms on one core, the second some ten seconds.
STEPS = (10_000, 600)
N_SEEDS = (3, 2)
FRAMES = (1000, 50)
BENCH_STEPS = (100, 20)
MOST_SEEDS = 64
QUANTITIES = {
    "temperature_K": quantities.TEMPERATURE,
    "timestep_fs": quantities.TIMESTEP,
    "steps": quantities.count(1e8, 200),
    "frames": quantities.FRAMES,
}


@dataclass(frozen=True)
class ReportSettings:
    """Options of a report; None means that the model, its reference or the kind of system decides.

    Attributes
    ----------
    model : str
        Path of a .pt file, or name of a shipped model.
    data : str or None
        Labelled structures for parity plots, or None.
    output : str or None
        Folder of the page, the figure and the pieces; None: MODEL-report.
    structure : str or None
        Start of the dynamics; None: the structure that lies beside the model, else the first one of `data`.
    reference : str or None
        Reference file (JSON) of h(r) or g(r); None: the one beside the model, else made of `data`.
    temperature_K : float or None
        Of the dynamics.
    timestep_fs : float or None
        Of the dynamics.
    steps : int or None
        Of each run at constant temperature; the runs at constant energy have half as many.
    seeds : tuple of int or None
        One run at constant temperature and one at constant energy each.
    frames : int or None
        Most structures of `data` that are compared, evenly spread.
    quick : bool
        Smaller defaults, for a first look.
    device, dtype : str, Dtype
        As for `PIWSLCalculator.load`; diatomic curves are in float64 either way.
    """

    model: str
    data: str | None = None
    output: str | None = None
    structure: str | None = None
    reference: str | None = None
    temperature_K: float | None = None
    timestep_fs: float | None = None
    steps: int | None = None
    seeds: tuple[int, ...] | None = None
    frames: int | None = None
    quick: bool = False
    device: str = "auto"
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        for name, quantity in QUANTITIES.items():
            if (value := getattr(self, name)) is not None:
                quantity.check(value, name)
        if self.dtype not in DTYPES:
            raise InputError(f"dtype is {self.dtype!r}; allowed: {', '.join(DTYPES)}")
        for name in ("data", "structure", "reference"):
            path = getattr(self, name)
            file = Path(path or "") if name != "structure" else with_index(path or "")[0]
            if path is not None and not file.is_file():
                raise InputError(f"--{name} {path}: no such file in {Path.cwd()}; {_ADVICE[name]}")

        if self.frames is not None and self.data is None:
            raise InputError("--frames counts structures of --data, which is not given: give it too, or leave it out")

    @property
    def folder(self) -> Path:
        """Where everything is written."""
        return Path(self.output) if self.output else Path(f"{Path(self.model).stem}-report")

    def command(self) -> str:
        """Return the command line that makes the same report again."""
        wanted = self.wanted()
        given = {
            "--data": self.data,
            "--structure": self.structure,
            "--reference": self.reference,
            "--temperature": self.temperature_K,
            "--timestep": self.timestep_fs,
            "--steps": wanted["steps"],
            "--seeds": ",".join(map(str, wanted["seeds"])) + ("," if len(wanted["seeds"]) == 1 else ""),
            "--frames": wanted["frames"] if self.data else None,
            "--dtype": None if self.dtype == "float32" else self.dtype,
            "--output": self.output,
        }
        words = ["asecalc", "report", self.model, *(["--quick"] if self.quick else [])]
        words += [word for name, value in given.items() if value is not None for word in (name, str(value))]
        return shlex.join(words)

    def wanted(self) -> dict[str, Any]:
        """Return steps, seeds, frames and timed steps: as given, else by default."""
        k = int(self.quick)
        return {
            "steps": self.steps or STEPS[k],
            "seeds": self.seeds or tuple(range(N_SEEDS[k])),
            "frames": self.frames or FRAMES[k],
            "bench_steps": BENCH_STEPS[k],
        }


_ADVICE = {
    "data": "give labelled structures (extended XYZ, .db, .npz), or leave --data out: the rest needs none",
    "structure": "give any file that ASE reads, or leave --structure out to take the one beside the model",
    "reference": "give one that asecalc reference made, or leave it out",
}
