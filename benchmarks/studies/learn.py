"""What `asecalc learn` needs, and what its parts are worth.

    python benchmarks/studies/learn.py [ROW...] [--folder runs/learn] [--size small|full]

Rows, each of which goes on where it was and is kept in benchmarks/results/learn.json:

    dft         ethanol, PBE/def2-SVP by PySCF, 500 K: labels, seconds, survival, error on rmd17_ethanol_test.xyz
    xtb         the same by GFN2-xTB, three seeds
    random      as many frames as each seed of `xtb` has, at random from GFN2-xTB dynamics: survival and error beside it
    crystal     α-quartz, labelled by silica_eam.pt, at 600 and 1200 K: survival against labels
    kill        killed by SIGKILL at random moments: the same labels and the same model as without
    committee   rank correlation of spread and error, and cost, for two to four members and for heads on one backbone

`small` is what fits into half an hour on one core; `full` is 8 x 50 ps with the default trainings.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from ase import Atoms
from ase.build import molecule

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from asecalc_mlip import zoo  # noqa: E402
from asecalc_mlip.calculators.piwsl import PIWSLCalculator  # noqa: E402
from asecalc_mlip.data.errors import evaluate_frames  # noqa: E402
from asecalc_mlip.data.readers import read_frames  # noqa: E402
from asecalc_mlip.data.xtb import XtbSettings, make_dataset  # noqa: E402
from asecalc_mlip.files import read_json, write_json  # noqa: E402
from training.config import load_config  # noqa: E402
from training.learn import LearnSettings, Until, learn  # noqa: E402
from training.learn.committee import calibration, load_committee  # noqa: E402
from training.learn.dynamics import run_all  # noqa: E402
from training.train import train  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "learn.json"
DATA = Path(os.environ.get("ASECALC_DATA", ROOT.parent / "shared" / "data"))
ONE_THREAD = ("run.threads=1", "run.device=cpu")
SIZES: dict[str, dict[str, Any]] = {
    "small": {"until": Until(4, 5.0), "budget": 60, "steps_first": 600, "steps": 250, "steps_last": 2000},
    "full": {"until": Until(8, 50.0), "budget": 200},
}
SEEDS = (0, 1, 2)
KEPT = ("labels", "force_mae_meV_A", "threshold", "rank_correlation", "stable_ps", "unphysical")


@click.command()
@click.argument("rows", nargs=-1)
@click.option("--folder", default="runs/learn", show_default=True)
@click.option("--size", type=click.Choice(list(SIZES)), default="small", show_default=True)
def main(rows: tuple[str, ...], folder: str, size: str) -> None:
    """Make rows, all by default."""
    torch.set_num_threads(1)
    for name in rows or tuple(ROWS):
        place = Path(folder) / size
        place.mkdir(parents=True, exist_ok=True)
        row = ROWS[name](place, size)
        known = read_json(RESULTS) if RESULTS.is_file() else {}
        write_json(RESULTS, {**known, f"{name}, {size}": row})
        print(name, json.dumps(row, indent=1))


def dft(place: Path, size: str) -> dict[str, Any]:
    """Ethanol from one geometry by density functional theory."""
    settings = _ethanol("pyscf:PBE/def2-SVP", size)
    row = _learned(settings, [molecule("CH3CH2OH")], place / "dft")
    test = DATA / "rmd17_ethanol_test.xyz"
    return {**row, "rmd17_test": _errors(place / "dft" / "model.pt", test)} if test.is_file() else row


def xtb(place: Path, size: str) -> list[dict[str, Any]]:
    """Ethanol by GFN2-xTB, and the errors on frames of its own dynamics."""
    rows = []
    for seed in SEEDS:
        row = _learned(_ethanol("xtb", size, seed=seed), [molecule("CH3CH2OH")], place / f"xtb{seed}")
        rows.append({"seed": seed, **row, "xtb_test": _errors(place / f"xtb{seed}" / "model.pt", _test(place))})
    return rows


def random(place: Path, size: str) -> list[dict[str, Any]]:
    """As many labels at random, the same training, the same replicas."""
    rows = []
    for seed in SEEDS:
        settings = _ethanol("xtb", size, seed=seed)
        labels = read_json(place / f"xtb{seed}" / "result.json")["labels"]
        frames = place / f"random{seed}.xyz"
        _dynamics(frames, labels, seed + 10)
        out = place / f"random{seed}"
        model = _trained(frames, out, settings.steps_last, seed)
        runs = run_all(out / "runs", settings, [molecule("CH3CH2OH")], [model], np.inf, 1)
        done = [run for run in runs if run is not None]
        rows.append(
            {
                "seed": seed,
                "labels": labels,
                "stable": sum(run["failure"] is None for run in done),
                "stable_ps": [run["stable_ps"] for run in done],
                "xtb_test": _errors(model, _test(place)),
            }
        )
    return rows


def crystal(place: Path, size: str) -> list[dict[str, Any]]:
    """Quartz by an embedded-atom potential, to twice the first temperature."""
    start = zoo.structure("silica")
    rows = []
    for kelvin in (600.0, 1200.0):
        given = {**SIZES[size], "until": Until(2, 2.0 if size == "small" else 20.0)}
        settings = LearnSettings("silica_eam.pt", temperature_K=kelvin, timestep_fs=1.0, training=ONE_THREAD, **given)
        rows.append({"temperature_K": kelvin, **_learned(settings, [start], place / f"quartz{kelvin:g}")})
    return rows


KILLED = """
import sys
from ase.build import molecule
import torch
torch.set_num_threads(1)
from training.learn import LearnSettings, Until, learn
settings = LearnSettings("xtb", temperature_K=500.0, until=Until(2, 0.3), budget=16, members=2, initial=8, per_round=4,
    steps_first=100, steps=50, steps_last=100, training=("run.threads=1", "run.device=cpu"))
print(learn(settings, [molecule("H2O")], sys.argv[1]).status)
"""


def kill(place: Path, size: str) -> dict[str, Any]:
    """SIGKILL at random moments, ten (three of the small size), against an uninterrupted run."""
    whole, parts, rng = place / "kill-whole", place / "kill-parts", np.random.default_rng(0)
    seconds = _run_killed(whole, None)
    moments = [float(t) for t in rng.uniform(0.1, 0.9, 10 if size == "full" else 3) * seconds / 2]
    alive = [moment for moment in moments if _run_killed(parts, moment) >= 0]
    _run_killed(parts, None)
    names = sorted(str(p.relative_to(whole)) for p in whole.glob("round*/labels.xyz"))
    same = {name: (whole / name).read_bytes() == (parts / name).read_bytes() for name in names}
    atoms = molecule("H2O")
    energies = [PIWSLCalculator.load(p / "model.pt").get_potential_energy(atoms) for p in (whole, parts)]
    return {"kills_after_s": alive, "same_labels": same, "energies_eV": energies, "same_model": len(set(energies)) == 1}


def _run_killed(folder: Path, after: float | None) -> float:
    """Run to the end, or kill after so many seconds; return the seconds, -1 where it had ended before."""
    begun = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], env=environment)
    try:
        code = process.wait(after)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return time.monotonic() - begun
    if code:
        raise RuntimeError(f"it ended with {code}")
    return time.monotonic() - begun if after is None else -1.0


def committee(place: Path, size: str) -> list[dict[str, Any]]:
    """Members from random weights, and members that share a backbone, on 40 frames and 100 others."""
    frames, test = place / "committee.xyz", _test(place)
    _dynamics(frames, 40, 5)
    steps = 1000 if size == "small" else 3000
    own, own_s = _members([None] * 4, frames, place / "own", steps)
    # A layer decay of 1e-4 leaves all but the head as it is.
    heads, heads_s = _members([own[0]] * 4, frames, place / "heads", steps // 3, "finetune.layer_decay=0.0001")
    truth = read_frames(test)
    rows = []
    for kind, members, seconds in (("own weights", own, own_s), ("heads on one backbone", heads, heads_s)):
        for number in (2, 3, 4):
            found = [calibration(load_committee(part), truth) for part in combinations(members, number)]
            rows.append(
                {
                    "members": number,
                    "kind": kind,
                    "rank_correlation": float(np.mean([one["rank_correlation"] for one in found])),
                    "ratio": float(np.mean([one["ratio"] for one in found])),
                    "force_mae_meV_A": float(np.mean([one["force_mae_meV_A"] for one in found])),
                    "training_s": seconds * number / 4 + (own_s / 4 if kind != "own weights" else 0.0),
                }
            )
    return rows


def _members(bases: list[Path | None], frames: Path, out: Path, steps: int, *more: str) -> tuple[list[Path], float]:
    begun = time.perf_counter()
    return [_trained(frames, out / str(k), steps, k, base, *more) for k, base in enumerate(bases)], (
        time.perf_counter() - begun
    )


def _trained(frames: Path, out: Path, steps: int, seed: int, base: Path | None = None, *more: str) -> Path:
    """Train as the loop trains; a model that is there already is taken."""
    given = [f"data.train={frames}", f"run.output={out}", "run.name=model", f"run.seed={seed}",
             "run.steps_per_epoch=50", f"run.max_epochs={steps // 50}", "run.progress=false",
             "optimizer.warmup_steps=50", "optimizer.ema_decay=0.98", "optimizer.lr=0.002",
             *ONE_THREAD, *more]  # fmt: skip
    small = ["model.hyperparameters.n_features=32", "model.hyperparameters.n_interactions=2"]
    given += [f"finetune.base={base}"] if base else small
    if not (out / "summary.json").is_file():
        train(load_config([], given))
    return out / "model.pt"


def _ethanol(labels: str, size: str, **given: Any) -> LearnSettings:
    return LearnSettings(labels, temperature_K=500.0, training=ONE_THREAD, **{**SIZES[size], **given})


def _learned(settings: LearnSettings, starts: list[Atoms], folder: Path) -> dict[str, Any]:
    result = learn(settings, starts, folder, tell=print)
    by_round = [{key: r[key] for key in KEPT} for r in result.rounds]
    row = {key: getattr(result, key) for key in ("status", "labels", "failed", "final", "seconds")}
    return {**row, "until": str(settings.until), "rounds": by_round}


def _errors(model: Path, data: Path) -> dict[str, float]:
    """Mean absolute errors on frames; of energies without their mean error, as another program has other zeros."""
    found = evaluate_frames(PIWSLCalculator.load(model, device="cpu"), read_frames(data), name=data.name)
    shifted = found.predictions["energy"] - found.labels["energy"]
    return {
        "forces_meV_A": found.mae["forces"],
        "energy_without_shift_meV": 1e3 * float(np.abs(shifted - np.median(shifted)).mean()),
        "structures": found.n_structures,
    }


def _test(place: Path) -> Path:
    path = place / "xtb_test.xyz"
    _dynamics(path, 100, 99)
    return path


def _dynamics(path: Path, frames: int, seed: int) -> None:
    """Make frames of GFN2-xTB dynamics at 500 K, far apart."""
    settings = XtbSettings(temperature_K=500.0, spacing_fs=50.0, seed=seed)
    make_dataset(molecule("CH3CH2OH"), path, n_frames=frames, settings=settings, progress=False)


ROWS: dict[str, Callable[[Path, str], Any]] = {
    "dft": dft, "xtb": xtb, "random": random, "crystal": crystal, "kill": kill, "committee": committee,
}  # fmt: skip

if __name__ == "__main__":
    main()
