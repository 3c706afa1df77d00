"""Curvature labels of a run: a teacher labels displaced pairs of each training structure, in the folder of the run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from asecalc_mlip.data.labels import is_isolated_atom
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.errors import DataError, InputError
from asecalc_mlip.logs import LOGGER
from asecalc_mlip.neighbors.lists import neighbor_list
from asecalc_mlip.teachers import open_teacher
from asecalc_mlip.teachers.bare import bare
from asecalc_mlip.teachers.labelling import failures_of, label_structures
from asecalc_mlip.zoo import find
from training.config import TrainConfig
from training.data.digests import structures_word
from training.losses.curvature_label import CHANGES, CURVATURE_LABEL, DIRECTIONS
from training.perturb import LARGEST_SHARE
from training.settings import BASE, WeakConfig

__all__ = ["LABELLED_CURVATURE", "CurvatureLabels", "check_curvature", "make_curvature_labels"]

LABELLED_CURVATURE = "curvature.xyz"
"""Name of the file with the displaced structures and their labels, in the folder of the run."""


@dataclass
class CurvatureLabels:
    """Displacements of the training structures and how the forces of the teacher change along them.

    Attributes
    ----------
    pairs : dict
        Place of a frame → d in Å and ½ [F_T(r−d) − F_T(r+d)] in eV/Å, (N, 3) each, for each direction.
    directions : int
        Most of them for one frame.
    teacher : dict
        Its recipe, for the card.
    """

    pairs: dict[int, list[tuple[np.ndarray, np.ndarray]]]
    directions: int
    teacher: dict[str, Any]

    def of(self, index: int, atoms: Atoms) -> dict[str, Tensor]:
        """Return the entries of a sample; of frames without such labels they are zeros, which no loss sees."""
        shape = (len(atoms), self.directions, 3)
        d, changes = np.zeros(shape), np.zeros(shape)
        found = self.pairs.get(index, [])
        for k in range(self.directions if found else 0):
            # Where the teacher failed for some directions, others come again in their place.
            d[:, k], changes[:, k] = found[k % len(found)]
        return {DIRECTIONS: torch.from_numpy(d), CHANGES: torch.from_numpy(changes)}


def check_curvature(config: TrainConfig) -> None:
    """Refuse a run whose teacher has no name, or is a base that it lacks.

    Raises
    ------
    InputError
    """
    weak = config.weak
    if weak.method != CURVATURE_LABEL:
        return
    if weak.teacher is None:
        raise InputError(
            f"weak.method {CURVATURE_LABEL} takes the curvature of a teacher, and there is none; name weak.teacher, "
            "for example xtb"
        )
    if weak.teacher == BASE and config.finetune.base is None:
        raise InputError("weak.teacher is base, but the run has none; name finetune.base, or another teacher")


def make_curvature_labels(
    config: TrainConfig, frames: Sequence[Atoms], places: Sequence[int], folder: Path
) -> CurvatureLabels | None:
    """Label the curvature at the training structures of a run, or go on with such a file; None where it has no use.

    Parameters
    ----------
    config : TrainConfig
    frames : sequence of Atoms
        All of the data.
    places : sequence of int
        Those to train on; isolated atoms among them have no curvature.
    folder : Path
        Of the run.

    Raises
    ------
    InputError, DataError
        As `check_curvature`, and where the teacher can label no pair.
    """
    check_curvature(config)
    weak = config.weak
    if weak.method != CURVATURE_LABEL:
        return None
    assert weak.teacher is not None
    name = str(find(config.finetune.base or "")) if weak.teacher == BASE else weak.teacher
    teacher = open_teacher(name, device=config.run.device)
    places = [k for k in places if not is_isolated_atom(frames[k])]
    structures = [bare(frames[k]) for k in places]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LABELLED_CURVATURE
    recipe = {"source_sha256": structures_word(structures), "epsilon": weak.epsilon, "directions": weak.directions}
    recipe["seed"] = config.run.seed
    copies = Displaced(structures, weak, config.run.seed)
    label_structures(copies, teacher, path, recipe=recipe, progress=config.run.progress, again=True)
    pairs = _pairs(read_frames(path) if path.is_file() else [], structures, places)
    failed = failures_of(path)
    why = f", the first failure: {failed[0]['reason'][:200]}" if failed else ""
    if not pairs:
        raise DataError(f"{teacher.name} could label the curvature of no structure{why}; name another weak.teacher")
    if failed:
        LOGGER.warning(f"{teacher.name} could not label {len(failed)} of {len(copies)} displaced structures{why}")
    n = sum(map(len, pairs.values()))
    LOGGER.info(f"curvature along {n} directions of {len(pairs)} structures by {teacher.name}: {path}")
    return CurvatureLabels(pairs, weak.directions, teacher.recipe())


class Displaced(Sequence[Atoms]):
    """The two structures r + d and r − d of each direction of each structure; each is made when it is asked for."""

    def __init__(self, structures: Sequence[Atoms], weak: WeakConfig, seed: int):
        self.structures, self.weak, self.seed = structures, weak, seed

    def __len__(self) -> int:
        return 2 * self.weak.directions * len(self.structures)

    def __getitem__(self, place: Any) -> Any:
        """Make one structure, or a list of some."""
        if isinstance(place, slice):
            return [self[k] for k in range(*place.indices(len(self)))]
        if not 0 <= place < len(self):
            raise IndexError(f"there are {len(self)} displaced structures, and none {place}")
        rest, minus = divmod(place, 2)
        index, direction = divmod(rest, self.weak.directions)
        atoms = self.structures[index].copy()
        rng = np.random.default_rng([self.seed, index, direction])
        atoms.positions += (1 - 2 * minus) * _displacement(atoms, self.weak.epsilon, rng)
        atoms.info.update(structure=index, direction=direction, sign=1 - 2 * minus)
        return atoms


def _displacement(atoms: Atoms, epsilon: float, rng: np.random.Generator) -> np.ndarray:
    """Return d (N, 3) in Å: each component uniform in (−ε, ε), and no atom further than 30 % of the shortest bond."""
    d = rng.uniform(-epsilon, epsilon, (len(atoms), 3))
    longest = float(np.linalg.norm(d, axis=1).max())
    near = longest / LARGEST_SHARE  # bonds that are longer hold nothing back
    centers, neighbors, shifts = neighbor_list(atoms.positions, np.array(atoms.cell), atoms.pbc, near)
    if not len(centers):
        return d
    vectors = atoms.positions[neighbors] - atoms.positions[centers]
    vectors += 0.0 if shifts is None else shifts @ np.array(atoms.cell)
    return d * (np.linalg.norm(vectors, axis=1).min() / near)


def _pairs(
    labelled: Sequence[Atoms], structures: Sequence[Atoms], places: Sequence[int]
) -> dict[int, list[tuple[np.ndarray, np.ndarray]]]:
    """Return d and the change of the forces, of directions that the teacher labelled on both sides."""
    sides: dict[tuple[int, int], dict[int, Atoms]] = defaultdict(dict)
    for atoms in labelled:
        sides[int(atoms.info["structure"]), int(atoms.info["direction"])][int(atoms.info["sign"])] = atoms
    pairs: dict[int, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    for (index, _), side in sorted(sides.items()):
        if len(side) == 2:
            d = side[1].positions - structures[index].positions
            change = 0.5 * (side[-1].arrays["forces"] - side[1].arrays["forces"])
            if np.isfinite(change).all():
                pairs[places[index]].append((d, change))
    return dict(pairs)
