"""The model file of a run: best averaged weights, card, reference energies, and how the training data look."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ase.io
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from asecalc_mlip.analysis.frames import stated_temperatures
from asecalc_mlip.calculators.states import state_of_all
from asecalc_mlip.checkpoint import LoadedModel, load, save
from asecalc_mlip.data.census import has_label
from asecalc_mlip.files import replacing
from asecalc_mlip.models.cohesion import Cohesion
from training.config import WeakConfig
from training.losses.methods import method_of, settled
from training.pretrain.labels import LABELLED
from training.run.callbacks import AveragedWeights
from training.run.log import epochs_trained
from training.start.base_model import pretraining_of
from training.start.reference_energies import ReferenceEnergies

if TYPE_CHECKING:
    from training.prepare import Run

__all__ = ["conditions_of", "make_card", "rewrite", "save_model"]


# What the card keeps of that of the base.
_KEPT = ("name", "delta", "training_data", "level_of_theory", "source", "pretraining", "date", "licence")


def save_model(run: Run, average: AveragedWeights, card: dict[str, Any] | None = None) -> None:
    """Write the potential of a run as it is now, and beside it a start structure for dynamics if there is none."""
    card = make_card(run, average) if card is None else card
    save(run.model, run.potential, card=card, reference_energies=run.e0.to_dict(), reference=run.reference)
    start = run.model.with_suffix(".xyz")
    if not start.exists():
        with replacing(start) as temporary:
            ase.io.write(temporary, _start_structure(run.training), format="extxyz")


def rewrite(path: Path, card: dict[str, Any], *, e0: ReferenceEnergies | None = None) -> None:
    """Write a model file again with another card and, if given, other reference energies.

    It is read back rather than kept: the calculator has cast and frozen its own copy, not that of the run.
    """
    model = load(path)
    for z, energy in (e0.values if e0 is not None else {}).items():
        model.potential.e0[z] = energy
    energies = model.reference_energies if e0 is None else e0.to_dict()
    save(path, model.potential, card=card, reference_energies=energies, reference=model.reference)


def _start_structure(frames: Sequence[Atoms]) -> Atoms:
    """Return the frame of the lowest energy per atom, or the first, without its labels."""
    labelled = [atoms for atoms in frames if has_label(atoms, "energy") and len(atoms) > 1]
    same = len({atoms.get_chemical_formula() for atoms in labelled}) == 1
    chosen = min(labelled, key=lambda atoms: atoms.info["energy"]) if labelled and same else frames[0]
    return Atoms(chosen.numbers, chosen.positions, cell=chosen.cell, pbc=chosen.pbc)


def make_card(run: Run, average: AveragedWeights) -> dict[str, Any]:
    """Return the card of a model: its data, losses and training, and what dynamics are warned by."""
    config, optimizer = run.config, run.config.optimizer
    by_teacher = run.pretraining is not None
    level = f"teacher {run.pretraining['teacher']}" if run.pretraining else config.data.level_of_theory
    source = Path(config.data.train).name
    return {
        "name": config.run.name,
        "training_data": {
            "file": LABELLED if config.pretrain.teacher is not None else source,
            **({"made_from": source} if config.pretrain.teacher is not None else {}),
            "train": len(run.split.train),
            "validation": len(run.split.val),
        },
        # Perturbed copies have neither the temperature nor the forces of the dynamics they were taken from.
        **({} if by_teacher else run.conditions),
        "level_of_theory": level,
        "source": config.data.source,
        "losses": {k: v for k, v in dataclasses.asdict(config.loss).items() if v not in (0.0, False)},
        **_weak(settled(config.weak, config.loss), None if run.curvature is None else run.curvature.teacher),
        **start_card(run),
        "training": {
            "epochs": epochs_trained(run.folder / "log.csv") or average.best_epoch + 1,
            **({"time": config.run.time} if config.run.time is not None else {}),
            "best_epoch": average.best_epoch + 1,
            "steps": average.steps,
            "batch_size": config.run.batch_size,
            "lr": optimizer.lr,
            "schedule": optimizer.schedule,
            "ema_decay": optimizer.ema_decay,
            "seed": config.run.seed,
        },
        "date": datetime.date.today().isoformat(),
        "licence": config.run.licence,
    }


def start_card(run: Run) -> dict[str, Any]:
    """Return the entries of the card about the labels and the start of a run; none for plain training."""
    settings, base = run.config.finetune, run.start.base
    card: dict[str, Any] = {} if run.pretraining is None else {"pretraining": run.pretraining}
    if run.start.prior:
        card["prior"] = run.start.prior_text
    for network in run.potential.network.modules():
        if isinstance(network, Cohesion):
            card["cohesion_eV"] = {chemical_symbols[z]: float(network.table[z, 0]) for z in network.numbers}
    if settings.delta is not None:
        card["delta"] = {"added_to": Path(settings.delta).name, "frozen": settings.delta_frozen}
    if base is not None:
        card["finetuning"] = {
            "base": base.path.name,
            "base_card": {name: base.card[name] for name in _KEPT if name in base.card},
            "layer_decay": settings.layer_decay,
            "e0_shift_eV": _by_symbol(run.start.shift),
        }
        card |= _inherited(base)
    if run.far is not None:
        card["far"] = run.far.card
    if run.old is not None and run.old.replay:
        card["replay"] = {
            "share": settings.replay,
            "file": run.old.name,
            "structures": len(run.old.replay),
            "e0_shift_eV": _by_symbol(run.old.shift),
        }
    return card


def conditions_of(frames: Sequence[Atoms]) -> dict[str, Any]:
    """Return what dynamics are warned by: temperatures, charge and spin that frames state, and the size of forces."""
    stated = stated_temperatures(frames)
    forces = [np.linalg.norm(atoms.arrays["forces"], axis=1) for atoms in frames if has_label(atoms, "forces")]
    sizes = np.concatenate(forces) if forces else np.zeros(0)
    return {
        **({"temperatures_K": list(stated)} if stated else {}),
        **({"electronic_state": state} if (state := state_of_all(frames)) else {}),
        **({"training_forces": {"mean": float(sizes.mean()), "std": float(sizes.std())}} if len(sizes) else {}),
    }


def _weak(weak: WeakConfig, teacher: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the entry of the card about weak supervision: the settings that the method reads, and its teacher."""
    method = method_of(weak)
    read = {name: getattr(weak, name) for name in method.on_card}
    if teacher is not None:
        read["teacher"] = dict(teacher)
    return {"weak": {"method": method.name, **read}} if read else {}


def _inherited(base: LoadedModel) -> dict[str, Any]:
    """Return the pretraining of a base, which is that of the model, too."""
    found = pretraining_of(base)
    return {} if found is None else {"pretraining": found}


def _by_symbol(shift: dict[int, float]) -> dict[str, float]:
    return {chemical_symbols[z]: round(value, 6) for z, value in sorted(shift.items())}
