"""Where neighbour lists are made: on the CPU by vesin, on a GPU by vesin's CUDA kernels or by the cell list in torch.

vesin makes the list of one structure at a time. Batches, and whatever it cannot do, go to `cell_lists`, which runs on
any device. Both were preferred to nvalchemi-toolkit-ops: that makes lists of batches, but needs warp-lang (150 MB) and
compiles its kernels at first use, and its lists were wrong for molecules that carry a cell (its issue 104).
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
import vesin
from torch import Tensor

from asecalc_mlip.errors import InputError
from asecalc_mlip.neighbors.cells import cell_lists, sort_pairs
from asecalc_mlip.neighbors.lists import LONG, check_structure

__all__ = ["DeviceLists", "made_on", "vesin_list"]


def made_on(device: torch.device) -> bool:
    """Whether lists of structures on a device are made there, instead of on the CPU."""
    return device.type == "cuda"


class DeviceLists:
    """Makes lists on the device of the positions; the same arguments, result and errors as `cell_lists`.

    The first list by vesin is compared with that of `cell_lists`, and where they differ, or vesin fails, one warning
    says so and `cell_lists` makes them all: vesin's CUDA kernels have missed pairs before (its issues 153 and 157).
    """

    def __init__(self) -> None:
        self._trusts_vesin: bool | None = None

    def __call__(
        self, positions: Tensor, cell: Tensor, pbc: Tensor, batch: Tensor, reach: float
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return centres, neighbours and shifts."""
        if len(cell) > 1 or self._trusts_vesin is False:
            return cell_lists(positions, cell, pbc, batch, reach)
        found = self._by_vesin(positions, cell[0], pbc[0], reach)
        if found is not None and self._trusts_vesin:
            return found
        right = cell_lists(positions, cell, pbc, batch, reach)
        if found is not None:
            self._trusts_vesin = _same(found, right)
            if not self._trusts_vesin:
                _warn(f"its list has {len(found[0])} pairs instead of {len(right[0])}, or others")
        return right

    def _by_vesin(
        self, positions: Tensor, cell: Tensor, pbc: Tensor, reach: float
    ) -> tuple[Tensor, Tensor, Tensor | None] | None:
        try:
            return vesin_list(positions, cell, pbc, reach)
        except (InputError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a compiler and a driver have many ways to fail
            self._trusts_vesin = False
            _warn((str(error).splitlines() or [type(error).__name__])[0])
        return None


def vesin_list(
    positions: Tensor, cell: Tensor, pbc: Tensor, reach: float
) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """List of one structure by vesin where its positions are, as `cell_lists` gives it; None for one of huge extent.

    Parameters
    ----------
    positions : (N, 3) float64
        Å.
    cell : (3, 3) float64
        Å.
    pbc : (3,) bool
    reach : float
        Å.
    """
    lowest, highest = positions.amin(0), positions.amax(0)
    # One copy to the host, which looks at the extremes instead of at all positions.
    numbers = torch.cat([lowest, highest, cell.reshape(-1), pbc.to(cell.dtype)]).cpu().numpy()
    extremes, lattice, periodic = numbers[:6].reshape(2, 3), numbers[6:15].reshape(3, 3), numbers[15:] > 0
    if not np.isfinite(extremes).all():
        return None
    box = check_structure(extremes, lattice, periodic, reach)
    if max(np.ptp(extremes, axis=0).max(), np.linalg.norm(box, axis=1).max()) > LONG * reach:
        return None
    given = box if periodic.any() else np.zeros((3, 3))
    pairs, shifts = vesin.NeighborList(cutoff=reach, full_list=True, n_threads=1).compute(
        points=positions.contiguous(), box=torch.from_numpy(given).to(positions.device), periodic=pbc, quantities="PS"
    )
    pairs = pairs.view(torch.int64)
    i, j, wide = sort_pairs(pairs[:, 0], pairs[:, 1], shifts.long(), len(positions))
    return i, j, wide if periodic.any() else None


def _same(one: tuple[Tensor, Tensor, Tensor | None], other: tuple[Tensor, Tensor, Tensor | None]) -> bool:
    return all(
        a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in zip(one, other, strict=True)
    )


def _warn(reason: str) -> None:
    warnings.warn(f"vesin makes no neighbour list on the GPU ({reason}); the cell list in torch does", stacklevel=5)
