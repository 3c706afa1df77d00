"""Settings of an on-the-fly learning: conditions, budget, committee, and the settings of its trainings."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asecalc_mlip.errors import InputError
from asecalc_mlip.md.settings import MDSettings, make_settings
from asecalc_mlip.quantities import FORCE, FRAMES, HOURS, INTERVAL, MEMBERS, SEED, STEPS, Quantity, count, shortened
from asecalc_mlip.teachers import TeacherOptions
from asecalc_mlip.teachers.naming import KINDS
from training.config import load_config
from training.run.useless import useless_names

__all__ = ["FREE", "LearnSettings", "Until", "effective"]

UNITS_PS = {"fs": 1e-3, "ps": 1.0, "ns": 1e3}
# Of all models where the user names no other: of a few dozen frames it learns more than PaiNN, docs/studies/learn.md.
ARCHITECTURE = "tensornet"
# K members are trained again in every round; an architecture's defaults are for the one final model.
SMALL = {"n_features": 32, "n_interactions": 2}
# Others do not have these two hyperparameters, or were not tried at this size: their members have their defaults.
SMALL_ONES = ("tensornet", "painn")
_KEY, _FAR = "model.architecture", "far.teacher"
# Of all trainings, which the loop sets itself.
RESERVED = {
    *("data.train", "data.test", "data.split_file", "data.split_seed", "data.n_train", "data.n_val"),
    *("run.output", "run.name", "run.seed", "finetune.base"),
}
# What may change between two parts of one learning: the rest decides which frames are taken.
FREE = ("budget", "hours", "steps_last", "final")

BOUNDS: dict[str, Quantity] = {
    "budget": FRAMES,
    "hours": HOURS,
    "tolerance": FORCE,
    "threshold": FORCE,
    "members": MEMBERS,
    "initial": FRAMES,
    "per_round": FRAMES,
    "steps_first": count(STEPS.high),
    "steps": count(STEPS.high),
    "steps_last": count(STEPS.high),
    "interval": INTERVAL,
    "seed": SEED,
}


@dataclass(frozen=True)
class Until:
    """When the learning ends: so many replicas ran so long without a frame to label."""

    replicas: int = 8
    ps: float = 50.0

    @classmethod
    def read(cls, text: str) -> Until:
        """Read a text such as "8 x 50 ps".

        Raises
        ------
        InputError
            For a text of another form.
        """
        found = re.fullmatch(r"\s*([0-9]{1,4})\s*[x×*]\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(fs|ps|ns)\s*", text, re.ASCII)
        replicas, ps = (int(found[1]), float(found[2]) * UNITS_PS[found[3]]) if found else (0, 0.0)
        if not (replicas and 0 < ps <= 1e6):
            raise InputError(f"--until is {shortened(text)}; expected replicas and a time, such as '8 x 50 ps'")
        return cls(replicas, ps)

    def __str__(self) -> str:
        return f"{self.replicas} x {self.ps:g} ps"


@dataclass(frozen=True)
class LearnSettings:
    """Everything that decides which frames are labelled, apart from the start structures."""

    labels: str
    """Teacher of the labels, see `asecalc_mlip.teachers`: xtb, pyscf:PBE/def2-SVP, a model file, my_vasp.py:name."""
    charge: int = 0
    """Total charge, e; 0: that of the start structures."""
    multiplicity: int | None = None
    """2S+1; None: that of the start structures, else the lowest that the number of electrons allows."""
    temperature_K: float = 500.0
    """Temperature of the dynamics, K."""
    temperature_end_K: float | None = None
    """Temperature at the end of a ramp, K; None: no ramp."""
    pressure_GPa: float | None = None
    """Pressure of crystals and liquids, GPa; None: the cell is fixed."""
    timestep_fs: float = 0.5
    """Time step, fs."""
    until: Until = field(default_factory=Until)
    """Replicas and time that have to be quiet."""
    interval: int = 20
    """Steps between two looks of monitor and committee."""
    budget: int = 200
    """Most labels, those of the start among them."""
    hours: float | None = None
    """Most hours of labels, training and dynamics together before the final model; None: no limit."""
    members: int = 3
    """Members of the committee."""
    tolerance: float = 0.5
    """Error of the force on an atom from which on a frame is taken, eV/Å; the threshold of the spread is calibrated for
    it on held-out labels."""
    threshold: float | None = None
    """Threshold of the spread, eV/Å, in place of the calibrated one."""
    initial: int = 10
    """Frames at the start, rattled around the start structures."""
    per_round: int = 8
    """Most frames that are labelled in a round."""
    steps_first: int = 1500
    """Gradient steps of the first training of a member."""
    steps: int = 500
    """Gradient steps of a member in each later round, from its last weights."""
    steps_last: int = 10000
    """Gradient steps of the final model."""
    final: bool = True
    """Train the final model anew on all labels, and run it."""
    model: str | None = None
    """Model to start the committee from; None: random weights."""
    data: str | None = None
    """Labelled frames of the same level to start from; None: none."""
    training: tuple[str, ...] = ()
    """Settings of `asecalc train` for members and final model, as KEY=VALUE."""
    seed: int = 0
    """Of everything random."""

    def __post_init__(self) -> None:
        for name, quantity in BOUNDS.items():
            if (value := getattr(self, name)) is not None:
                quantity.check(value, f"--{name.replace('_', '-')}")
        if self.temperature_end_K is not None and self.pressure_GPa is not None:
            raise InputError("a ramp of the temperature has a fixed cell: leave --pressure or --temperature-end out")
        if taken := [text for text in self.training if text.partition("=")[0] in RESERVED]:
            raise InputError(f"{', '.join(taken)}: the loop sets it itself; leave it out")
        self.dynamics("", 0)  # values that no run can have are told now

    def dynamics(self, model: str | Path, seed: int) -> MDSettings:
        """Return the settings of a replica."""
        kind = "npt" if self.pressure_GPa is not None else "anneal" if self.temperature_end_K is not None else "nvt"
        given = {
            "model": str(model),
            "temperature_K": self.temperature_K,
            "temperature_end_K": self.temperature_end_K,
            "pressure_GPa": self.pressure_GPa,
            "timestep_fs": self.timestep_fs,
            "steps": self.replica_steps,
            "interval": self.interval,
            "seed": seed,
            # Of one molecule, Nosé-Hoover chains keep energy in single vibrations.
            "thermostat": "langevin" if kind == "nvt" else None,
        }
        return make_settings(kind, given)

    @property
    def labeller(self) -> TeacherOptions:
        """Electronic state of all structures."""
        return TeacherOptions(self.charge, self.multiplicity)

    @property
    def together(self) -> bool:
        """Whether replicas advance in one batch, which a cell or a temperature that changes does not allow."""
        return self.pressure_GPa is None and self.temperature_end_K is None

    @property
    def architecture(self) -> str:
        """Architecture of the models that begin with random weights."""
        return self._given(_KEY, ARCHITECTURE)

    @property
    def device(self) -> str:
        """Where trainings, dynamics and a model that labels run."""
        return self._given("run.device", "auto")

    @property
    def has_far_teacher(self) -> bool:
        """Whether the trainings have a teacher far from the data, by the settings that the user gives for them."""
        return self._given(_FAR, "") not in ("", "null", "None")

    @property
    def small(self) -> dict[str, int]:
        """Hyperparameters that make members of this architecture small."""
        return dict(SMALL) if self.architecture in SMALL_ONES else {}

    @property
    def replica_steps(self) -> int:
        """Steps of a replica, a whole number of intervals."""
        return self.interval * max(1, round(1e3 * self.until.ps / self.timestep_fs / self.interval))

    def _given(self, name: str, default: str) -> str:
        values = [value.strip() for key, _, value in (text.partition("=") for text in self.training) if key == name]
        return values[-1] if values else default

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**dataclasses.asdict(self), "until": str(self.until), "training": list(self.training)}


def effective(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain values of settings without those that others make useless.

    They are refused in new learnings; older ones may have been begun with them, and go on without.
    """
    own = [text for text in settings["training"] if text.partition("=")[0] not in RESERVED]
    names = tuple(useless_names(load_config([], own)))
    found = {**settings, "training": [text for text in own if not f"{text.partition('=')[0]}.".startswith(names)]}
    useless = {
        "initial": settings.get("data") is not None,
        "tolerance": settings.get("threshold") is not None,
        "charge": settings["labels"].partition(":")[0] not in KINDS,
        "multiplicity": settings["labels"].partition(":")[0] not in KINDS,
    }
    return {name: value for name, value in found.items() if not useless.get(name)}
