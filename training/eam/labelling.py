"""Perturb structures and label them with a fitted EAM: the data that a model is pretrained on.

Random numbers come from the seed, the structure and the round, so a file that was interrupted goes on to the same bytes
as if it had not been. Every frame carries the recipe.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from tqdm import tqdm

from asecalc_mlip.calculators.piwsl import PIWSLCalculator
from asecalc_mlip.data.label_files import open_label_file
from asecalc_mlip.digests import word_of
from asecalc_mlip.errors import InputError
from training.data.digests import fingerprint, weights_digest
from training.eam.worker import Recipe, begin, labelled, labelled_here
from training.structures.two_step import round_strengths

__all__ = ["Recipe", "label", "isolated_dimers"]

# Å, of isolated dimers; diatomic curves begin at 0.3.
NEAREST = 0.25
# Structures that are labelled, and written, at a time: what is lost when a run is killed.
CHUNK = 50


def label(
    structures: Sequence[Atoms],
    calculator: PIWSLCalculator,
    output: str | Path,
    *,
    rounds: int = 5,
    strength: float = 0.5,
    n_pairs: int = 4,
    max_atoms: int = 5,
    seed: int = 0,
    dimers: int = 0,
    workers: int = 1,
    progress: bool = True,
) -> Path:
    """Write perturbed copies of structures with energies, forces and stress of an EAM, or continue such a file.

    Parameters
    ----------
    structures : sequence of Atoms
        Their own labels are not used.
    calculator : EAMCalculator
        Or any other calculator of a model file.
    output : path
        ``.xyz`` or ``.extxyz``, or ``.db`` for an ASE database; REF_energy (eV), REF_forces (eV/Å), and REF_stress
        (3×3, eV/Å³) of structures that are periodic in three directions.
    rounds, strength, n_pairs, max_atoms, seed, dimers
        See `Recipe`.
    workers : int
        Processes.

    Returns
    -------
    Path
        The file, which has `rounds` frames for each structure, in order, and then the isolated dimers.

    Raises
    ------
    InputError
        For structures of one atom or with elements that the EAM does not know, by number; for a file of another
        recipe; and when the disk is full: the frames before are kept.
    """
    if workers < 1:
        raise InputError(f"workers is {workers}; expected 1 or more")
    _check(structures, calculator)
    recipe = Recipe(
        rounds=rounds if rounds == 0 and dimers > 0 else len(round_strengths(rounds, strength)),
        strength=float(strength),
        n_pairs=n_pairs,
        max_atoms=max_atoms,
        seed=seed,
        model=calculator.model.path.name,
        model_sha256=word_of(weights_digest(calculator.model.potential)),
        source_sha256=word_of(fingerprint([_bare(atoms) for atoms in structures])),
        dimers=dimers,
    )
    path = Path(output)
    file = open_label_file(path, recipe.to_dict())
    every = [(k, number, atoms) for k, atoms in enumerate(map(_bare, structures)) for number in range(rounds)]
    pairs = isolated_dimers({int(z) for atoms in structures for z in atoms.numbers}, dimers, calculator.cutoff)
    every += [(len(structures) + k, 0, pair) for k, pair in enumerate(pairs)]
    total, done = len(every), file.count()
    # Whole chunks, of which what is there is left out: in a batch of others the last digit may be another.
    begun = done - done % CHUNK
    chunks = [every[k : k + CHUNK] for k in range(begun, total, CHUNK)] if done < total else []
    with tqdm(total=total, initial=min(done, total), unit="structure", disable=None if progress else True) as bar:
        with _labeller(calculator, recipe, min(workers, len(chunks))) as labelled:
            for k, frames in enumerate(labelled(chunks)):
                new = frames[done - begun :] if k == 0 else frames
                file.append(new)
                bar.update(len(new))
    return path


def isolated_dimers(numbers: Collection[int], n: int, cutoff: float) -> list[Atoms]:
    """Return two atoms alone, `n` distances of each two elements.

    They are evenly spaced from 0.25 Å to the cutoff (Å): what perturbed crystals do not reach, and where a network that
    has seen nothing says anything.
    """
    if n < 0:
        raise InputError(f"dimers is {n}; expected 0 or more")
    pairs = list(combinations_with_replacement(sorted(numbers), 2))
    return [Atoms(pair, [[0, 0, 0], [0, 0, d]]) for pair in pairs for d in np.linspace(NEAREST, cutoff, n)]


def _check(structures: Sequence[Atoms], calculator: PIWSLCalculator) -> None:
    if not structures:
        raise InputError("there are no structures to label")
    for index, atoms in enumerate(structures):
        if len(atoms) < 2:
            raise InputError(f"structure {index} has {len(atoms)} atom(s), and so no pair to pull; leave it out")
        try:
            calculator.check_elements(atoms.numbers)
        except InputError as error:
            raise InputError(f"structure {index}: {error}") from None


def _bare(atoms: Atoms) -> Atoms:
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


@contextmanager
def _labeller(calculator: PIWSLCalculator, recipe: Recipe, workers: int) -> Iterator[Any]:
    """Hand out a map from chunks of tasks to labelled frames, in order, in this process or in several."""
    if workers <= 1:
        yield partial(map, partial(labelled, calculator, recipe))
        return
    path = calculator.model.path
    if not path.is_file():
        raise InputError(f"workers is {workers}, but the model is in no file that they could load; save it first")
    start = (str(path), calculator.dtype, recipe)
    with multiprocessing.get_context("spawn").Pool(workers, initializer=begin, initargs=start) as pool:
        yield partial(pool.imap, labelled_here)
