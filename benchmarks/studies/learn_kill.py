"""Kills of a learning at random moments: does it come to the same labels and the same model as without?"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asecalc_mlip.checkpoint import load
from training.learn.state import Folder

__all__ = ["killed_at_random"]

ROOT = Path(__file__).resolve().parents[2]
WATER = """
import sys
from ase.build import molecule
import torch
torch.set_num_threads(1)
from training.learn import LearnSettings, Until, learn
settings = LearnSettings("xtb", temperature_K=800.0, until=Until(2, 0.3), tolerance=0.05, budget=16, members=2,
    initial=6, per_round=3, steps_first=50, steps=50, steps_last=50, training=("run.threads=1", "run.device=cpu"))
print(learn(settings, [molecule("H2O")], sys.argv[1]).status)
"""


def killed_at_random(place: Path, kills: int) -> dict[str, Any]:
    """Run once without a kill, then kill again and again, in a new folder after each end; compare all folders.

    Returns
    -------
    dict
        `kills`: seconds after the start, and the stage that was in progress; `compared`: for each folder, which files
        of labels are the same bytes and whether all weights of the final model are the same numbers.
    """
    for old in place.glob("kill-*"):
        shutil.rmtree(old)
    whole, rng = place / "kill-whole", np.random.default_rng(0)
    seconds = _run(whole, None)
    assert seconds is not None  # nothing kills it
    found: list[dict[str, Any]] = []
    compared: list[dict[str, Any]] = []
    while len(found) < kills:
        parts = place / f"kill-parts{len(compared)}"
        while len(found) < kills:
            after = float(rng.uniform(0.2, 0.7) * seconds)
            if _run(parts, after) is not None:
                break
            found.append({"after_s": round(after, 1), "folder": len(compared), "stage": _stage(parts)})
            print(found[-1], flush=True)
        _run(parts, None)
        compared.append(_compared(whole, parts))
        print(compared[-1], flush=True)
    return {"uninterrupted_s": round(seconds, 1), "kills": found, "compared": compared}


def _run(folder: Path, after: float | None) -> float | None:
    """Run to the end and return the seconds; None where SIGKILL came before, after so many seconds."""
    begun = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", WATER, str(folder)], env=environment)
    try:
        code = process.wait(after)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return None
    if code:
        raise RuntimeError(f"the learning ended with {code}")
    return time.monotonic() - begun


def _stage(folder: Path) -> str:
    """Return what was in progress: the first thing that is not on disk."""
    if not (folder / "learn.json").is_file():
        return "before the first label"
    state = Folder(folder)
    if any(folder.glob("final*")):
        return "final model"
    now = state.round(len(state.rounds()))
    if not now.file("split.json").is_file():
        return f"round {now.number}, labels"
    if not now.file("committee.json").is_file():
        return f"round {now.number}, training"
    return f"round {now.number}, dynamics"


def _compared(whole: Path, parts: Path) -> dict[str, Any]:
    names = sorted({str(path.relative_to(f)) for f in (whole, parts) for path in f.glob("round*/labels.xyz")})
    one, two = (load(folder / "model.pt").potential.state_dict() for folder in (whole, parts))
    return {
        "labels": {name: _content(whole / name) == _content(parts / name) for name in names},
        "weights": len(one),
        "same_weights": one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one),
    }


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
