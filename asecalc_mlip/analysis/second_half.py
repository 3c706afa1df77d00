"""g(r) of the second half of a run, which has forgotten its start."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.geometry import minkowski_reduce
from ase.io import iread

from asecalc_mlip.analysis.periodic_reference import PeriodicReference
from asecalc_mlip.analysis.rdf import RDF, partial_rdfs
from asecalc_mlip.errors import InputError

__all__ = ["rdfs_of_second_half"]

FRAMES = 100  # a mean over more is no better
R_MAX, BINS = 10.0, 200  # Å, without a reference that has its own


def rdfs_of_second_half(
    trajectory: str | os.PathLike, frames: int, atoms: Atoms, reference: object = None
) -> dict[str, RDF]:
    """Take total and partial g(r) over up to 100 frames of the second half of a run.

    Parameters
    ----------
    trajectory : path
        Extended XYZ.
    frames : int
        Number of its frames that count, from the first on.
    atoms : Atoms
        The system, for its cell.
    reference : Reference, optional
        If it has g(r), the bins are its own; else they end below the first lattice translation, because an atom's own
        images are spikes that hide the structure.

    Returns
    -------
    dict of RDF
        By name as from `partial_rdfs`; {} for what has no density (a molecule, a slab, a wire) or no frame.
    """
    if not atoms.pbc.all() or frames == 0:
        return {}
    first = frames // 2
    stride = max(1, (frames - first) // FRAMES)
    if isinstance(reference, PeriodicReference):
        r_max, bins = float(reference.edges[-1]), len(reference.edges) - 1
    else:
        # Of a skewed cell a sum of lattice vectors may be shorter than each of them.
        shortest = float(np.linalg.norm(minkowski_reduce(atoms.cell.array)[0], axis=1).min())
        r_max, bins = min(R_MAX, 0.99 * shortest), BINS
    try:
        found = iread(Path(trajectory), index=f"{first}::{stride}", format="extxyz")
        return partial_rdfs(found, r_max=r_max, bins=bins)
    except InputError:  # frames that lost their cell
        return {}
