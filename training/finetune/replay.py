r"""Structures of an older level of theory in a fine-tuning: some to replay, some held back to see what is forgotten.

Both levels have energies of their own zero. A replayed structure S gets the energy

    E'(S) = E_old(S) + Σ_i Δ(Z_i)

with Δ by least squares, so that it is what the model would have said of it before its first step, with the E0 of the
new level. A model that reproduces the old level but for its zero has therefore nothing to unlearn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from asecalc_mlip.calculators.piwsl import PIWSLCalculator
from asecalc_mlip.data.census import census, has_label
from asecalc_mlip.data.errors import Errors, evaluate_frames
from asecalc_mlip.data.labels import is_isolated_atom, without_open_stress
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.data.structure_checks import CLOSE, closest_contact
from asecalc_mlip.errors import InputError
from asecalc_mlip.logs import LOGGER
from asecalc_mlip.units import LABELS
from asecalc_mlip.zoo import find
from training.config import TrainConfig, label_weights
from training.data.digests import fingerprint
from training.data.split import Split, spread
from training.pretrain.labels import LABELLED, large_labels
from training.start.initial import Start, shift_text, without_energies_of
from training.start.reference_energies import reference_energies

__all__ = ["OldLevel", "find_old_data", "make_old_level"]

# Frames that the energies of the two levels are compared on; more say nothing new.
COMPARED = 200


@dataclass
class OldLevel:
    """Structures with labels of an older level.

    Attributes
    ----------
    name : str
        Their file.
    replay : list of Atoms
        To train on, with energies on the new level; empty where nothing is replayed.
    held : list of Atoms
        Held back, with the energies of the old level.
    shift : dict
        Atomic number → Δ in eV.
    """

    name: str
    replay: list[Atoms]
    held: list[Atoms]
    shift: dict[int, float]

    def errors(self, model: str | Path, *, of_new_level: bool, device: str = "cpu") -> Errors:
        """Return the errors of a model file on the held-back structures, with energies on the level of the model."""
        frames = _moved(self.held, self.shift) if of_new_level else self.held
        return evaluate_frames(PIWSLCalculator.load(model, device=device), frames, name=f"{self.name}, held back")


def find_old_data(config: TrainConfig) -> Path | None:
    """Find the file of old structures: the one that is named, or the one that a pretraining left beside its base."""
    settings = config.finetune
    if settings.old_data is not None:
        return Path(settings.old_data)
    beside = None if settings.base is None else find(settings.base).parent / LABELLED
    return beside if beside is not None and beside.is_file() else None


def make_old_level(config: TrainConfig, start: Start) -> OldLevel | None:
    """Read the structures of the old level, if there are any.

    Raises
    ------
    InputError
        Where there are none to replay, or they have elements that the model does not know. Isolated atoms are none.
    """
    settings, path = config.finetune, find_old_data(config)
    if path is None:
        if settings.replay > 0:
            raise InputError(
                f"finetune.replay is {settings.replay}, but there is nothing to replay; name the labelled structures "
                "of the old level, finetune.old_data=labelled.xyz, or set finetune.replay=0"
            )
        return None
    frames = read_frames(path)
    structures = [atoms for atoms in frames if not is_isolated_atom(atoms)]
    if not structures:
        raise InputError(f"every frame of {path} is one isolated atom, whose energy is an E0; name structures")
    _check(config, structures, path, start)
    pool, held = _divided(config, frames)
    if held:  # what would be told after the training
        census(without_open_stress(held)).refuse(LABELS, allow_implausible=True)
    if settings.replay > 0 and not pool:
        raise InputError(f"all {len(frames)} frames of {path} are held back; lower finetune.n_old")
    shift = _shift(start, structures, config.run.device)
    LOGGER.info(
        f"old level {path}: {len(held)} held back, {len(pool) if settings.replay > 0 else 0} to replay; E0 shift to "
        f"the new level: {shift_text(shift)}"
    )
    return OldLevel(path.name, _moved(pool, shift) if settings.replay > 0 else [], held, shift)


def _check(config: TrainConfig, frames: Sequence[Atoms], path: Path, start: Start) -> None:
    if config.finetune.replay > 0:
        census(frames).require(
            label_weights(config.loss), allow_implausible=config.data.trust or large_labels(path, frames)
        )
    known = start.potential.elements
    if absent := sorted({chemical_symbols[z] for atoms in frames for z in atoms.numbers if int(z) not in known}):
        allowed = ", ".join(chemical_symbols[z] for z in known)
        raise InputError(
            f"{path} has {', '.join(absent)}, but the model knows {allowed}; leave those structures out, or start "
            "from a base that knows them"
        )


def _divided(config: TrainConfig, frames: Sequence[Atoms]) -> tuple[list[Atoms], list[Atoms]]:
    """Return the structures to replay and those to hold back: of the validation of the base, if its split is there."""
    n, split = config.finetune.n_old, _split_of_base(config, frames)
    rng = np.random.default_rng(config.data.split_seed)
    places = [i for i, atoms in enumerate(frames) if not is_isolated_atom(atoms)]
    if split is not None:
        train, val = ([i for i in part if not is_isolated_atom(frames[i])] for part in (split.train, split.val))
        held = sorted(rng.permutation(val)[:n].tolist())
        return [frames[i] for i in train], [frames[i] for i in held]
    order = rng.permutation(places).tolist()
    return [frames[i] for i in sorted(order[n:])], [frames[i] for i in sorted(order[:n])]


def _split_of_base(config: TrainConfig, frames: Sequence[Atoms]) -> Split | None:
    if config.finetune.base is None:
        return None
    file = find(config.finetune.base).parent / "split.json"
    try:
        split = Split.load(file, len(frames))
    except InputError:
        return None
    return split if split.data_sha256 == fingerprint(frames) else None


def _shift(start: Start, frames: Sequence[Atoms], device: str) -> dict[int, float]:
    """Return Δ by element, from what the model says of the old structures before its first step."""
    labelled = [atoms for atoms in frames if has_label(atoms, "energy")]
    # What a base says of atoms that overlap can be anything, and would decide about all the others.
    apart = [atoms for atoms in labelled if closest_contact(atoms) >= CLOSE]
    known = {z for atoms in apart for z in atoms.numbers.tolist()}
    labelled = apart + [atoms for atoms in labelled if not known.issuperset(atoms.numbers.tolist())]
    elements = sorted({int(z) for atoms in frames for z in atoms.numbers})
    if not labelled:
        return dict.fromkeys(elements, 0.0)
    labelled = [labelled[i] for i in spread(labelled, COMPARED)]
    left = []
    for atoms in without_energies_of(start.known, labelled, device):
        copy = Atoms(atoms.numbers)
        copy.info["energy"] = start.e0.total(atoms.numbers) - atoms.info["energy"]
        left.append(copy)
    found = reference_energies(left, "fit").values
    return {z: found.get(z, 0.0) for z in elements}


def _moved(frames: Sequence[Atoms], shift: dict[int, Any]) -> list[Atoms]:
    moved = []
    for atoms in frames:
        copy = atoms.copy()
        if has_label(copy, "energy"):
            copy.info["energy"] = copy.info["energy"] + float(sum(shift[int(z)] for z in copy.numbers))
        moved.append(copy)
    return moved
