"""Structures that no data cover, made from those of the data: the sources of far-field training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from asecalc_mlip.errors import InputError
from asecalc_mlip.neighbors.lists import neighbor_list
from asecalc_mlip.probes.fragments import far_side
from asecalc_mlip.teachers import Teacher
from asecalc_mlip.teachers.bare import bare
from asecalc_mlip.teachers.structures import NEAREST, isolated_dimers
from training.settings import FarConfig
from training.structures.hot_runs import FRAMES, hot_run
from training.structures.two_step import two_step

__all__ = ["SOURCES", "make_structures"]

# Å beyond the covalent radii up to which two atoms count as bonded; of the pairs that are torn and squeezed.
BONDED = 0.3

Source = Callable[[Sequence[Atoms], FarConfig, float, Teacher], Iterator[Atoms]]


def make_structures(frames: Sequence[Atoms], settings: FarConfig, cutoff: float, teacher: Teacher) -> list[Atoms]:
    """Make the structures of all sources, each with its source as `config_type`.

    Parameters
    ----------
    frames : sequence of Atoms
        Of the data; their labels are not used.
    settings : FarConfig
    cutoff : float
        Å; longest distance of dimers and of torn bonds.
    teacher : Teacher
        Drives the dynamics.
    """
    made = []
    for name in settings.sources:
        for atoms in SOURCES[name](frames, settings, cutoff, teacher):
            atoms.info["config_type"] = f"far_{name}"
            made.append(atoms)
    return made


def _dimers(frames: Sequence[Atoms], settings: FarConfig, cutoff: float, teacher: Teacher) -> Iterator[Atoms]:
    yield from isolated_dimers({int(z) for atoms in frames for z in atoms.numbers}, settings.dimers, cutoff)


def _bonds(frames: Sequence[Atoms], settings: FarConfig, cutoff: float, teacher: Teacher) -> Iterator[Atoms]:
    """Yield copies with a bond torn or squeezed, from 0.2 of the radii to the cutoff, and what hangs on its end."""
    rng = np.random.default_rng([settings.seed, 1])
    several = [atoms for atoms in frames if len(atoms) > 1]
    for _ in range(settings.n if several else 0):
        atoms = bare(several[int(rng.integers(len(several)))])
        i, j, vector = _a_bond(atoms, rng)
        radii = float(covalent_radii[atoms.numbers[[i, j]]].sum())
        distance = float(np.linalg.norm(vector))
        # As often squeezed as torn, whatever the room for each.
        lowest, highest = (NEAREST * radii, distance) if rng.random() < 0.5 else (distance, max(cutoff, distance))
        moved = [j] if atoms.pbc.any() else far_side(atoms, i, j)
        atoms.positions[moved] += (rng.uniform(lowest, highest) / distance - 1.0) * vector
        yield atoms


def _two_step(frames: Sequence[Atoms], settings: FarConfig, cutoff: float, teacher: Teacher) -> Iterator[Atoms]:
    rng = np.random.default_rng([settings.seed, 2])
    several = [atoms for atoms in frames if len(atoms) > 1]
    for _ in range(settings.n if several else 0):
        strength = rng.uniform(0.2, 1.0) * settings.strength
        yield two_step(several[int(rng.integers(len(several)))], strength, strength, rng=rng)


def _dynamics(frames: Sequence[Atoms], settings: FarConfig, cutoff: float, teacher: Teacher) -> Iterator[Atoms]:
    rng = np.random.default_rng([settings.seed, 3])
    for _ in range(max(1, settings.n // FRAMES)):
        start = frames[int(rng.integers(len(frames)))]
        for atoms, _ in hot_run(start, teacher, settings.temperature, rng):
            yield atoms


SOURCES: dict[str, Source] = {"dimers": _dimers, "bonds": _bonds, "two_step": _two_step, "dynamics": _dynamics}


def _a_bond(atoms: Atoms, rng: np.random.Generator) -> tuple[int, int, np.ndarray]:
    """Return a bond drawn at random: its atoms, and the vector from the first to the (image of the) second."""
    radii = covalent_radii[atoms.numbers]
    i, j, shifts = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, 2.0 * float(radii.max()) + BONDED)
    vectors = atoms.positions[j] - atoms.positions[i]
    if shifts is not None:
        vectors = vectors + shifts @ np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)
    bonded = np.flatnonzero((np.linalg.norm(vectors, axis=1) < radii[i] + radii[j] + BONDED) & (i != j))
    if not len(bonded):
        raise InputError(
            f"{atoms.get_chemical_formula()} has no bond to tear; leave bonds out of far.sources, or that frame out"
        )
    k = int(bonded[rng.integers(len(bonded))])
    return int(i[k]), int(j[k]), vectors[k]
