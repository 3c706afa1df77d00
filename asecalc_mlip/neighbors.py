"""Neighbour lists and the Verlet skin."""

from __future__ import annotations

import numpy as np
import vesin

from asecalc_mlip.errors import InputError

__all__ = ["neighbor_list"]


def neighbor_list(
    positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """All directed pairs shorter than `cutoff`, sorted by centre, then neighbour, then shift."""
    calculator = vesin.NeighborList(cutoff=cutoff, full_list=True)
    i, j, S = calculator.compute(points=positions, box=cell, periodic=pbc, quantities="ijS")
    return i.astype(np.int64), j.astype(np.int64), S.astype(np.float64) if pbc.any() else None
