r"""The committee: K small models trained one after another from their last weights, and what their spread is worth.

    ε_i = sqrt( (1/K) Σ_k |F_i^k − F̄_i|² )       spread of the force on atom i, eV/Å
    c   = median_i |F̄_i − F_i^ref| / median_i ε_i   on held-out labels, between 1 and 10
    θ   = tolerance / c                           a frame is taken when max_i ε_i ≥ θ

Dynamics run on the first member; the others look at every n-th step, which makes K members hardly dearer than one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from scipy.stats import spearmanr

from asecalc_mlip.calculators.committee import CommitteeCalculator
from asecalc_mlip.checkpoint import load
from asecalc_mlip.data.labels import is_isolated_atom
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import write_bytes, write_json
from asecalc_mlip.logs import into
from asecalc_mlip.models import parts_of
from asecalc_mlip.teachers.labelling import failures_of
from training.config import TrainConfig, load_config
from training.data.split import Split
from training.learn.settings import RESERVED, LearnSettings
from training.learn.state import Folder, Round, seed_of
from training.run.continuing import changed_settings
from training.run.useless import without_useless
from training.train import train

__all__ = [
    "calibration",
    "configured",
    "judge_committee",
    "load_committee",
    "member_config",
    "quietly",
    "train_committee",
    "training_settings",
    "write_data",
]

HELD_OUT = 5
"""Every fifth label is held out from all members, for the calibration and the choice of the best weights: the third of
five, as the first labels go from weakly to strongly rattled, and what is held out should lie between those in training.
"""
FOR_TEACHER = "far_structures.xyz"
"""Name of the file of unphysical frames of all rounds before, which a far-field teacher labels."""
BATCH, STEPS_PER_EPOCH = 5, 50
LEAST_RATIO, LARGEST_RATIO = 1.0, 10.0


def write_data(folder: Folder, now: Round) -> int:
    """Write all labels so far into one file, with the split; return their number.

    Frames of the rounds before that were for no labeller go into a file for the far-field teacher, if there is one.
    """
    files = [folder.path / "given.xyz", *(folder.round(k).labels for k in range(now.number + 1))]
    text = b"".join(path.read_bytes() for path in files if path.is_file())
    path = now.file("data.xyz")
    if not path.is_file() or path.read_bytes() != text:
        write_bytes(path, text)
    unphysical = [folder.round(k).file("unphysical.xyz") for k in range(now.number)]
    broken = b"".join(path.read_bytes() for path in unphysical if path.is_file())
    if broken and not now.file(FOR_TEACHER).is_file():
        write_bytes(now.file(FOR_TEACHER), broken)
    frames = read_frames(path) if text else []
    # Isolated atoms among given frames are E0s.
    places = [k for k, atoms in enumerate(frames) if not is_isolated_atom(atoms)]
    if len(places) < 2:
        failed = failures_of(now.labels)
        why = f"; the first that failed: {failed[0]['reason'][:200]}" if failed else ""
        raise InputError(
            f"{len(places)} of the structures to start from could be labelled, and a training needs two; see "
            f"{now.file('labels.failed.jsonl')}{why}"
        )
    held = places[HELD_OUT // 2 :: HELD_OUT] or places[-1:]
    Split([k for k in range(len(frames)) if k not in held], held, []).save(now.file("split.json"))
    return len(frames)


def train_committee(
    folder: Folder, now: Round, settings: LearnSettings, level: str, live: Callable[[str], None] = lambda text: None
) -> list[Path]:
    """Train all members of a round, those that are not there yet; return their files.

    Raises
    ------
    Stopped
        After a signal, with a checkpoint.
    """
    members = []
    for number in range(settings.members):
        path = now.member(number)
        if not (path.parent / "summary.json").is_file():
            live(f"training member {number + 1} of {settings.members}")
            quietly(folder, now.file("training.log"), member_config(folder, now, settings, number, level))
        members.append(path)
    return members


def quietly(folder: Folder, log: Path, config: TrainConfig) -> None:
    """Train a model, with what it tells in a file and its seconds on the clock.

    One that an older version began with settings which the loop makes itself is begun anew.
    """
    place = Path(config.run.output)
    if (place / "config.yaml").is_file() and RESERVED.intersection(changed_settings(config, place / "config.yaml")[1]):
        shutil.rmtree(place)
    with open(log, "a", encoding="utf-8") as stream, into(stream), folder.timed("training"):
        train(config)


def member_config(folder: Folder, now: Round, settings: LearnSettings, number: int, level: str) -> TrainConfig:
    """Return the settings of the training of a member in a round."""
    base = folder.round(now.number - 1).member(number) if now.number else settings.model
    steps = settings.steps if now.number else settings.steps_first
    given = {
        **training_settings(now, settings, level),
        "run.output": str(now.member(number).parent),
        "run.name": "member",
        "run.seed": seed_of(settings, now.number, number, 1),
        "run.max_epochs": max(1, round(steps / STEPS_PER_EPOCH)),
        "optimizer.lr": 2e-3 if base is None else 1e-3,
        "optimizer.warmup_steps": min(50, steps // 5),
        "optimizer.ema_decay": 0.98,
    }
    if base is None:
        given |= {f"model.hyperparameters.{name}": value for name, value in settings.small.items()}
    else:
        given["finetune.base"] = str(base)
    return configured(given, settings, base is not None, adds=now.number == 0 and base is not None and _is_alone(base))


def training_settings(now: Round, settings: LearnSettings, level: str) -> dict[str, Any]:
    """Return what the trainings of members and of the final model have in common."""
    # A barostat goes by the stress.
    stress = {} if settings.pressure_GPa is None else {"loss.stress_weight": 100.0}
    far = now.file(FOR_TEACHER)
    return {
        **({"far.structures": str(far)} if settings.has_far_teacher and far.is_file() else {}),
        # The labels are what the teacher says, also where a frame is far from equilibrium.
        "data.trust": True,
        **stress,
        "data.train": str(now.file("data.xyz")),
        "data.split_file": str(now.file("split.json")),
        "data.level_of_theory": level,
        "data.source": "frames and labels by asecalc learn",
        "run.batch_size": BATCH,
        "run.steps_per_epoch": STEPS_PER_EPOCH,
        "run.progress": False,
    }


def _is_alone(model: str | Path) -> bool:
    """Return whether a model is added to no fitted potential yet."""
    return {part.architecture for part in parts_of(load(model).potential)[1:]} <= {"zbl", "cohesion"}


def configured(
    given: dict[str, Any], settings: LearnSettings, has_base: bool = False, *, adds: bool = False
) -> TrainConfig:
    """Return a configuration of settings and of those that the user gives for all trainings.

    A base has its architecture, and what it was added to; one of the user's is still to be added (`adds`).
    """
    of_base = ("model.",) if adds else ("model.", "finetune.delta=")
    own = [text for text in settings.training if not (has_base and text.startswith(of_base))]
    if not has_base:
        given = {**given, "model.architecture": settings.architecture}
    texts = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in given.items()]
    return without_useless(load_config([], [*texts, *own]))


def load_committee(members: Sequence[Path], device: str = "cpu") -> CommitteeCalculator:
    """Load the models of a committee, on a device as for `PIWSLCalculator.load`."""
    return CommitteeCalculator.load(members, device=device)


def calibration(committee: CommitteeCalculator, frames: Sequence[Atoms]) -> dict[str, Any]:
    """Compare spread with true error on labelled frames.

    Parameters
    ----------
    committee : CommitteeCalculator
    frames : sequence of Atoms
        With forces, as `read_frames` gives them.

    Returns
    -------
    dict
        `ratio` of the median error to the median spread; `rank_correlation` of the two by atom; `spread` and `error`
        by atom, eV/Å;
        `force_mae_meV_A` of the components of the mean force.
    """
    results = committee.evaluate(list(frames))
    difference = np.concatenate([r["forces"] - a.arrays["forces"] for r, a in zip(results, frames, strict=True)])
    spread = np.concatenate([r["forces_std"] for r in results])
    error = np.linalg.norm(difference, axis=1)
    # Not of root mean squares: one strained frame has errors that no committee foresees. It would lower the threshold
    # so far that every later replica stops at once.
    ratio = float(np.median(error) / max(np.median(spread), 1e-6))
    varied = len(error) > 2 and np.ptp(error) > 0 and np.ptp(spread) > 0
    return {
        "frames": len(frames),
        "ratio": ratio,
        "rank_correlation": float(spearmanr(spread, error).statistic) if varied else None,
        "force_mae_meV_A": 1e3 * float(np.abs(difference).mean()),
        "spread": np.round(spread, 5).tolist(),
        "error": np.round(error, 5).tolist(),
    }


def judge_committee(now: Round, settings: LearnSettings, members: Sequence[Path], raised: float) -> dict[str, Any]:
    """Calibrate the threshold on held-out labels, and write committee.json.

    Parameters
    ----------
    now : Round
    settings : LearnSettings
    members : sequence of Path
    raised : float
        Factor on the threshold, above 1 where rounds before found nothing but copies of labelled frames.
    """
    frames = read_frames(now.file("data.xyz"))
    held = Split.load(now.file("split.json"), len(frames)).val
    found = calibration(load_committee(members), [frames[k] for k in held])
    ratio = min(max(found["ratio"], LEAST_RATIO), LARGEST_RATIO)
    threshold = settings.threshold or settings.tolerance / ratio
    found = {"threshold": raised * threshold, "raised": raised, **found}
    write_json(now.file("committee.json"), found, indent=None)
    return found
