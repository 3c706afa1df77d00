"""What `asecalc learn` needs, and what its parts are worth.

    python benchmarks/studies/learn.py [ROW...] [--folder runs/learn] [--size small|full]

Rows, each of which goes on where it was and is kept in benchmarks/results/learn.json:

    dft         ethanol, PBE/def2-SVP by PySCF, 500 K: labels, seconds, survival, error on rmd17_ethanol_test.xyz
    xtb         the same by GFN2-xTB, three seeds
    random      as many frames as each seed of `xtb` has, at random from GFN2-xTB dynamics: survival and error beside it
    crystal     α-quartz, labelled by silica_eam.pt, learned at 600 K: survival at 1200 K against labels
    kill        killed by SIGKILL at random moments: the same labels and the same model as without
    committee   rank correlation of spread and error, and cost, for two to four members and for heads on one backbone

`small` is what fits into half an hour on one core; `full` is 8 x 50 ps with the default trainings.
"""

from __future__ import annotations

import dataclasses
import json
import os
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
from asecalc_mlip.files import read_json, read_structures, write_json  # noqa: E402
from asecalc_mlip.md.files import TRAJECTORY  # noqa: E402
from asecalc_mlip.teachers import Teacher, TeacherOptions, open_teacher  # noqa: E402
from asecalc_mlip.teachers.base import Failed  # noqa: E402
from benchmarks.studies.learn_kill import killed_at_random  # noqa: E402
from training.config import load_config  # noqa: E402
from training.learn import LearnSettings, Until, learn  # noqa: E402
from training.learn.committee import calibration, load_committee, write_data  # noqa: E402
from training.learn.dynamics import run_all  # noqa: E402
from training.learn.final import train_final  # noqa: E402
from training.learn.state import Folder, Round  # noqa: E402
from training.train import train  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "learn.json"
DATA = Path(os.environ.get("ASECALC_DATA", ROOT.parent / "shared" / "data"))
ONE_THREAD = ("run.threads=1", "run.device=cpu")
SIZES: dict[str, dict[str, Any]] = {
    "small": {"until": Until(4, 5.0), "budget": 60, "steps_first": 600, "steps": 250, "steps_last": 2000},
    "full": {"until": Until(8, 50.0), "budget": 200},
}
SEEDS = (0, 1, 2)
OWN = 100  # frames of its own dynamics on which a model is judged
KEPT = ("labels", "force_mae_meV_A", "threshold", "rank_correlation", "stable_ps", "broken", "unphysical")


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
    """Ethanol by GFN2-xTB, and what its frames are worth to a model that is trained on them anew."""
    return [learned_of_seed(place, size, seed) for seed in SEEDS]


def learned_of_seed(place: Path, size: str, seed: int) -> dict[str, Any]:
    """One seed of `xtb`."""
    folder, settings = Folder(place / f"xtb{seed}"), _ethanol("xtb", size, seed=seed, final=False)
    row = _learned(settings, [molecule("CH3CH2OH")], folder.path)
    now = folder.round(len(row["rounds"]) - 1)
    return {"seed": seed, **row, **_judged(_anew(folder, now, settings), place, settings, folder.path)}


def random(place: Path, size: str) -> list[dict[str, Any]]:
    """As many labels at random, the same training, the same replicas."""
    return [random_of_seed(place, size, seed) for seed in SEEDS]


def random_of_seed(place: Path, size: str, seed: int) -> dict[str, Any]:
    """One seed of `random`."""
    folder, settings = Folder(place / f"random{seed}"), _ethanol("xtb", size, seed=seed)
    folder.path.mkdir(exist_ok=True)
    labels, now = read_json(place / f"xtb{seed}" / "result.json")["labels"], folder.round(0)
    _dynamics(now.labels, labels, seed + 10)
    write_data(folder, now)
    return {"seed": seed, "labels": labels, **_judged(_anew(folder, now, settings), place, settings, folder.path)}


def crystal(place: Path, size: str) -> dict[str, Any]:
    """Quartz by an embedded-atom potential at 600 K; the model of each round, and the final one, at 1200 K."""
    start, folder = zoo.structure("silica"), place / "quartz"
    until = Until(4, 5.0) if size == "small" else Until(4, 20.0)
    given = {**SIZES[size], "until": until, "timestep_fs": 1.0, "training": ONE_THREAD}
    if size == "small":  # four times the atoms of ethanol: a final model as small as the members
        given |= {"training": (*ONE_THREAD, "model.hyperparameters.n_features=32"), "steps_last": 1000}
    settings = LearnSettings("silica_eam.pt", temperature_K=600.0, **given)
    row = _learned(settings, [start], folder)
    hot = dataclasses.replace(settings, temperature_K=1200.0)
    models = [(r["labels"], Folder(folder).round(k).member(0)) for k, r in enumerate(row["rounds"])]
    models.append((row["labels"], folder / "model.pt"))
    teacher = open_teacher("silica_eam.pt", TeacherOptions())
    row["at_1200_K"] = [
        {"labels": labels, "model": model.name, **_survived(model, hot, [start], folder / f"hot{k}", teacher)}
        for k, (labels, model) in enumerate(models)
    ]
    return row


def kill(place: Path, size: str) -> dict[str, Any]:
    """SIGKILL at random moments, ten (three of the small size), against an uninterrupted run."""
    return killed_at_random(place, 10 if size == "full" else 3)


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


def _judged(model: Path, place: Path, settings: LearnSettings, folder: Path) -> dict[str, Any]:
    """Errors on frames at random, and survival and errors in dynamics of its own at twice the temperature and below."""
    teacher, starts = open_teacher("xtb", TeacherOptions()), [molecule("CH3CH2OH")]
    found: dict[str, Any] = {"xtb_test": _errors(model, _test(place))}
    for kelvin in (settings.temperature_K, 2 * settings.temperature_K):
        conditions = dataclasses.replace(settings, temperature_K=kelvin)
        found[f"{kelvin:g} K"] = _survived(model, conditions, starts, folder / f"judged{kelvin:g}", teacher)
    return found


def _anew(folder: Folder, now: Round, settings: LearnSettings) -> Path:
    """Train a model as small as the members on the labels of a folder, with new weights."""
    small = dataclasses.replace(settings, training=(*settings.training, "model.hyperparameters.n_features=32"))
    return train_final(folder, now, small, "GFN2-xTB", folder.path / "anew")


def _survived(
    model: Path, settings: LearnSettings, starts: list[Atoms], folder: Path, teacher: Teacher
) -> dict[str, Any]:
    """Run the replicas under the monitor alone, and label frames of them to compare."""
    done = [run for run in run_all(folder, settings, starts, [model], np.inf, 1) if run is not None]
    paths = [folder / f"replica{k:03d}" / TRAJECTORY for k in range(len(done))]
    frames = [frame for path in paths for frame in read_structures(path)]
    chosen = [frames[k] for k in np.linspace(0, len(frames) - 1, min(OWN, len(frames))).astype(int)]
    pairs = [
        (a, truth) for a, truth in zip(chosen, teacher.label(chosen), strict=True) if not isinstance(truth, Failed)
    ]
    guesses = PIWSLCalculator.load(model, device="cpu").evaluate([a for a, _ in pairs])
    wrong = [guess["forces"] - truth.forces for guess, (_, truth) in zip(guesses, pairs, strict=True)]
    largest = np.array([np.linalg.norm(one, axis=1).max() for one in wrong])
    return {
        "stable": sum(run["failure"] is None for run in done),
        "of": len(done),
        "ps": settings.until.ps,
        "stable_ps": [run["stable_ps"] for run in done],
        "reasons": [run["failure"] and run["failure"]["brief"] for run in done],
        "own_frames": len(chosen),
        "own_frames_without_label": len(chosen) - len(pairs),
        "own_force_mae_meV_A": 1e3 * float(np.mean([np.abs(one).mean() for one in wrong])),
        "own_frames_above_tolerance": float((largest > settings.tolerance).mean()),
        "own_largest_error_eV_A": float(largest.max()),
    }


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
    result = learn(settings, starts, folder, tell=lambda text: print(text, flush=True))
    if result.status == "interrupted":
        raise SystemExit(130)
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
