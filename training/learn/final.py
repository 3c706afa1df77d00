"""The final model: trained anew on all labels, run under the target conditions; its card says how it was made."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from asecalc_mlip.analysis.fixed import fixed_atoms
from asecalc_mlip.calculators.piwsl import PIWSLCalculator
from asecalc_mlip.checkpoint import load
from asecalc_mlip.data.errors import evaluate_frames
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.files import read_json, read_structure, write_bytes, write_json
from asecalc_mlip.plots.diatomic import diatomic_figure
from asecalc_mlip.probes.diatomic import all_pairs
from asecalc_mlip.probes.diatomic_report import diatomic_report
from asecalc_mlip.teachers import Teacher
from asecalc_mlip.workers import Pool
from training.data.split import Split
from training.learn.committee import STEPS_PER_EPOCH, configured, quietly, training_settings
from training.learn.dynamics import run_all
from training.learn.settings import LearnSettings
from training.learn.state import Folder, Round, seed_of, write_frames
from training.results.card import rewrite
from training.train import Stopped

__all__ = ["final_model", "train_final"]

# Of the random numbers of its runs: beyond any round.
PLACE = 1_000_000
MOST_PAIRS = 8


def final_model(
    folder: Folder,
    last: Round,
    settings: LearnSettings,
    starts: Sequence[Atoms],
    teacher: Teacher,
    stop: Callable[[], bool],
    live: Callable[[str], None],
    pool: Pool | None = None,
) -> dict[str, Any]:
    """Train on all labels, run the replicas, write model.pt; what is there already is taken.

    Returns
    -------
    dict
        `stable_ps` and `broken` of the replicas, `reasons`, `errors` on the held-out labels.

    Raises
    ------
    Stopped
        After a signal.
    """
    # Steps are not compared when a learning goes on, so another number is another training.
    place = folder.path / f"final{last.number:02d}-{settings.steps_last}"
    if (place / "final.json").is_file():
        _hand_over(place, folder, starts)  # a final model of other steps may be there
        return read_json(place / "final.json")
    live(f"training the final model, {settings.steps_last} steps")
    model = train_final(folder, last, settings, teacher.name, place)
    live("dynamics of the final model")
    with folder.timed("dynamics"):
        runs = run_all(place / "runs", settings, starts, [model], math.inf, PLACE, stop, pool=pool)
    done = [run for run in runs if run is not None]
    if len(done) < len(runs):
        raise Stopped(place, 2)
    frames = read_frames(last.file("data.xyz"))
    held = Split.load(last.file("split.json"), len(frames)).val
    errors = evaluate_frames(PIWSLCalculator.load(model, device="cpu"), [frames[k] for k in held], name="held out")
    found = {
        "stable_ps": [run["stable_ps"] for run in done],
        "broken": [run["failure"] is not None for run in done],
        "reasons": [None if run["failure"] is None else run["failure"]["brief"] for run in done],
        "errors": errors.mae,
        "held_out": len(held),
        "dimers": f"{place.name}/dimers.png",
    }
    rewrite(model, {**load(model).card, "learning": _card(folder, settings, teacher, found)})
    _draw_dimers(model, place / "dimers.png")
    _hand_over(place, folder, starts)
    write_json(place / "final.json", found)
    return found


def train_final(folder: Folder, last: Round, settings: LearnSettings, level: str, place: Path) -> Path:
    """Train on all labels of a round, with new weights; return the model file, which may be there already."""
    place.mkdir(exist_ok=True)
    model = place / "training" / "model.pt"
    if not (model.parent / "summary.json").is_file():
        given = {
            **training_settings(last, settings, level),
            "run.output": str(model.parent),
            "run.name": "model",
            "run.seed": seed_of(settings, PLACE, 1),
            "run.max_epochs": max(1, round(settings.steps_last / STEPS_PER_EPOCH)),
            "optimizer.warmup_steps": min(500, settings.steps_last // 10),
            "optimizer.ema_decay": 0.99,
        }
        quietly(folder, place / "training.log", configured(given, settings))
    return model


def _hand_over(place: Path, folder: Folder, starts: Sequence[Atoms]) -> None:
    """Write the model and its start structure, which has the fixed atoms of the learning, where the user looks."""
    write_bytes(folder.path / "model.pt", (place / "training" / "model.pt").read_bytes())
    atoms = read_structure(place / "training" / "model.xyz")
    for start in starts:
        fixed, same = fixed_atoms(start)[0], np.array_equal(start.numbers, atoms.numbers)
        if same and np.allclose(start.positions[fixed], atoms.positions[fixed], rtol=0.0, atol=1e-4):
            atoms.set_constraint(start.constraints)
            break
    write_frames(folder.path / "model.xyz", [atoms])


def _draw_dimers(model: Path, path: Path) -> None:
    """Draw the curves of isolated pairs: how the model is where no label is."""
    calc = PIWSLCalculator.load(model, device="cpu")
    pairs = all_pairs(calc)[:MOST_PAIRS]
    diatomic_figure([diatomic_report(calc, pairs, name="model.pt")], path=path)


def _card(folder: Folder, settings: LearnSettings, teacher: Teacher, found: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of the card about the learning: what made the labels, under which conditions, to which end."""
    rounds = folder.rounds()
    conditions = settings.dynamics("", 0)
    return {
        "labels": teacher.recipe(),
        "structures": rounds[-1]["labels"],
        "failed": rounds[-1]["failed"],
        "rounds": len(rounds),
        "ensemble": conditions.ensemble,
        "temperature_K": settings.temperature_K,
        **({} if settings.pressure_GPa is None else {"pressure_GPa": settings.pressure_GPa}),
        **({} if settings.temperature_end_K is None else {"temperature_end_K": settings.temperature_end_K}),
        "until": str(settings.until),
        "stable_replicas": len(found["broken"]) - sum(found["broken"]),
        "threshold_eV_A": round(rounds[-1]["threshold"], 4),
    }
