"""Time of a step as in dynamics: every atom moves a little, then forces are asked for.

The walk goes to and fro along one random direction of all coordinates, 20 steps each way of 0.006 Å (standard
deviation). That is what aspirin does in 0.5 fs at 500 K, and a neighbour list with a skin is made anew as often as
there, about every 12 steps.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms

__all__ = ["Times", "Walk", "is_busy", "load_now", "machine", "race"]

_STEP = 0.006  # Å
_ONE_WAY = 20  # steps
_ROUNDS = 5
_MOST_STEPS = 100


@dataclass
class Times:
    """Milliseconds of single steps.

    Attributes
    ----------
    total_ms : list of float
        Whole calls, neighbour list included.
    list_ms : list of float
        The part of each spent on the neighbour list; empty where the calculator does not tell.
    """

    total_ms: list[float] = field(default_factory=list)
    list_ms: list[float] = field(default_factory=list)

    def __iadd__(self, other: Times) -> Times:
        self.total_ms += other.total_ms
        self.list_ms += other.list_ms
        return self

    def without_list(self) -> float | None:
        """Return the median of the steps less their lists."""
        return float(np.median(np.subtract(self.total_ms, self.list_ms))) if self.list_ms else None

    def list_alone(self) -> float | None:
        """Return the mean over the steps, because a list that is kept costs much once and little in between."""
        return float(np.mean(self.list_ms)) if self.list_ms else None

    def step(self) -> float:
        """Estimate the cost of a step in the long run: the median without the list, and the list's mean."""
        if not self.list_ms:
            return float(np.median(self.total_ms))
        return (self.without_list() or 0.0) + (self.list_alone() or 0.0)

    def to_dict(self, prefix: str = "") -> dict[str, Any]:
        """Return `ms`, `list_ms`, `without_list_ms`, `steps`; the two in the middle only where they are known."""
        parts = {"ms": self.step(), "list_ms": self.list_alone(), "without_list_ms": self.without_list()}
        known = {f"{prefix}{name}": round(value, 4) for name, value in parts.items() if value is not None}
        return {**known, f"{prefix}steps": len(self.total_ms)}


class Walk:
    """A structure on its walk, with the calculator that is timed on it.

    Parameters
    ----------
    calculator : ase.calculators.calculator.Calculator
    atoms : Atoms
        Copied.
    list_seconds : callable or None
        Seconds that the calculator has spent on neighbour lists so far.
    clock : callable
        Seconds; `time.process_time` where the processor has other work, with one thread.
    """

    def __init__(
        self,
        calculator: Any,
        atoms: Atoms,
        list_seconds: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.atoms = atoms.copy()
        self.atoms.calc = calculator
        self._start = atoms.positions.copy()
        self._direction = np.random.default_rng(0).normal(0.0, _STEP, atoms.positions.shape)
        self._list_seconds, self._clock = list_seconds, clock
        self._steps = 0

    def __call__(self, steps: int) -> Times:
        """Go on for some steps and time each."""
        times = Times()
        for _ in range(steps):
            self._move()
            lists_before = self._list_seconds() if self._list_seconds else 0.0
            start = self._clock()
            self.atoms.get_forces()
            times.total_ms.append(1000 * (self._clock() - start))
            if self._list_seconds:
                times.list_ms.append(1000 * (self._list_seconds() - lists_before))
        return times

    def _move(self) -> None:
        self._steps += 1
        # A triangle wave between −½ and ½ of the way.
        distance = abs((self._steps + _ONE_WAY // 2) % (2 * _ONE_WAY) - _ONE_WAY) - _ONE_WAY / 2
        self.atoms.positions = self._start + distance * self._direction


def race(
    walks: Mapping[str, Callable[[int], Times]], *, steps: int | None = None, seconds: float = 5.0
) -> dict[str, Times]:
    """Time several walks in turns, so that whatever else the machine does hurts them alike.

    Parameters
    ----------
    walks : mapping
        Name → `Walk`, or anything that makes some steps and returns their `Times`.
    steps : int or None
        Timed steps of each; None takes what `seconds` allow, 3 to 100.
    seconds : float
        For each walk. Two or three more steps come before that are not counted: first calls allocate and compile.
    """
    affordable = {name: _affordable(walk, seconds) for name, walk in walks.items()}
    counts = {name: steps or affordable[name] for name in walks}
    times = {name: Times() for name in walks}
    for k in range(_ROUNDS):
        for name, walk in walks.items():
            block = counts[name] * (k + 1) // _ROUNDS - counts[name] * k // _ROUNDS
            times[name] += walk(block)
    return times


def load_now() -> float:
    """Return how many programs have wanted a core in the last minute; 0 where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def is_busy(load: float, cores: int | None) -> bool:
    """Tell whether other programs take so much of a machine that wall times are too long."""
    return load > 0.75 * (cores or 1)


def machine() -> dict[str, Any]:
    """Return the processor, cores, and versions, for the record."""
    import torch

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _affordable(walk: Callable[[int], Times], seconds: float) -> int:
    last = walk(2).total_ms[-1]
    if last < 1000:  # compilers that watch the first calls are a small part of a longer step
        last = walk(1).total_ms[-1]
    return int(np.clip(1000 * seconds / last, 3, _MOST_STEPS))


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
