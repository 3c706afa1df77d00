"""Neighbour lists of many structures at once where their positions are: a cell list in plain torch.

Space is cut into bins of at least the reach, and atoms are sorted by their bin. Partners of atom i in bin b are the
atoms of the bins b + o, |o_d| ≤ k_d; a bin beyond the cell is one inside it, an image away:

    n_d = max(1, ⌊h_d / R⌋)     bins along lattice direction d, of thickness h_d, for the reach R
    k_d = ⌈R n_d / h_d⌉         bins to look into on each side: 1, and more where the cell is thinner than the reach
    S   = ⌊(b + o) / n⌋ + J_i − J_j        lattice vectors to add to atom j; J_i wraps atom i into the cell

A direction that is not periodic is as long as its atoms reach, and bins beyond its ends are empty. So one rule serves
molecules (one bin), cells below the reach and large cells, on any device and for a batch of all of them. The result is
that of `asecalc_mlip.neighbors.neighbor_list` for each structure, in its order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from asecalc_mlip.errors import InputError
from asecalc_mlip.neighbors.lists import FARTHEST, MOST_IMAGES, check_structure, complete_box

__all__ = ["cell_lists", "sort_pairs"]

# Candidates at once: about 100 bytes each.
_ON_CPU, _ON_GPU = 2**19, 2**24
# Bins per atom at most, where atoms are far apart.
_BINS_PER_ATOM = 2.0


def cell_lists(
    positions: Tensor, cell: Tensor, pbc: Tensor, batch: Tensor, reach: float
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Find all directed pairs shorter than `reach`, periodic images included, sorted by centre, neighbour and shift.

    The host waits a few times for sizes; all else happens on the device of the positions.

    Parameters
    ----------
    positions : (N, 3) float64
        Å; atoms may lie outside their cells.
    cell : (B, 3, 3) float64
        Rows are lattice vectors in Å; rows of directions that are not periodic are not used.
    pbc : (B, 3) bool
    batch : (N,) int64
        Structure of each atom, ascending; each has one atom or more.
    reach : float
        Å.

    Returns
    -------
    centers, neighbors : (E,) int64
    shifts : (E, 3) int8, or wider where that does not hold them, or None
        Lattice vectors to add to the neighbour; None when no direction of any structure is periodic.

    Raises
    ------
    InputError
        As `neighbor_list`, naming the structure where there are several.
    """
    grid = _Grid.make(positions, cell, pbc, batch, reach)
    found = [_pairs(grid, positions, cell, reach, piece) for piece in grid.pieces()]
    i, j, shifts = (torch.cat(parts) for parts in zip(*found, strict=True))
    i, j, shifts = sort_pairs(i, j, shifts, len(positions))
    return i, j, shifts if bool(pbc.any()) else None


def sort_pairs(i: Tensor, j: Tensor, shifts: Tensor, n_atoms: int) -> tuple[Tensor, Tensor, Tensor]:
    """Order by centre, neighbour and shift, with shifts in the smallest integers that hold them."""
    most = int(shifts.abs().max()) if len(i) else 0
    span = 2 * most + 1
    key = ((shifts[:, 0] + most) * span + shifts[:, 1] + most) * span + shifts[:, 2] + most
    if n_atoms**2 * span**3 < 2**63:
        order = torch.argsort((i * n_atoms + j) * span**3 + key)
    else:
        order = torch.argsort(key)
        order = order[torch.argsort((i * n_atoms + j).index_select(0, order), stable=True)]
    kind = next(kind for kind in (torch.int8, torch.int16, torch.int32, torch.int64) if span <= torch.iinfo(kind).max)
    return i.index_select(0, order), j.index_select(0, order), shifts.index_select(0, order).to(kind)


@dataclass
class _Grid:
    """Atoms in bins; N atoms, B structures."""

    bins: Tensor
    """(N, 3) bin of each atom in its structure."""
    jumps: Tensor
    """(N, 3) lattice vectors by which it was wrapped."""
    counts: Tensor
    """Atoms in each bin of all structures."""
    starts: Tensor
    """First of them in `order`."""
    order: Tensor
    """(N,) atoms sorted by bin."""
    batch: Tensor
    first: Tensor
    """(B,) number of the first bin of each structure."""
    n: Tensor
    """(B, 3) bins along each direction."""
    k: Tensor
    """(B, 3) bins to look into on each side."""
    periodic: Tensor
    """(B, 3)"""
    looks: np.ndarray
    """(B,) bins that each atom looks into, on the host."""
    sizes: np.ndarray
    """(B,) atoms, on the host."""

    @classmethod
    def make(cls, positions: Tensor, cell: Tensor, pbc: Tensor, batch: Tensor, reach: float) -> _Grid:
        device = positions.device
        lattice, periodic = cell.cpu().numpy(), pbc.cpu().numpy()
        inverse = _inverses(positions, lattice, periodic, batch, reach)
        heights = 1.0 / np.linalg.norm(inverse, axis=1)
        fractions = torch.einsum("ni,nij->nj", positions, torch.from_numpy(inverse).to(device).index_select(0, batch))
        jumps = torch.where(pbc.index_select(0, batch), fractions.floor(), 0.0)
        fractions = fractions - jumps
        low, high, lost, sizes = _extents(fractions, positions, batch, len(cell))
        for structure in np.flatnonzero(lost | (sizes == 0)):
            _say_what_is_wrong(positions, lattice, periodic, batch, reach, int(structure))
        span = np.where(periodic, 1.0, high - low)
        n = _numbers_of_bins(heights * span, reach, sizes)
        # By the 1e-9 rounding takes no pair out of the bins that are looked into.
        images = np.ceil((1 + 1e-9) * reach * n / heights)
        k = np.where(periodic, images, np.minimum(n - 1, 1)).astype(np.int64)
        first = np.cumsum(n.prod(axis=1)) - n.prod(axis=1)
        origin, per = np.where(periodic, 0.0, low), n / np.where(span > 0, span, 1.0)
        tensors = [torch.from_numpy(array).to(device) for array in (n, k, first, origin, per)]
        n_here, origin_here, per_here = (tensors[which].index_select(0, batch) for which in (0, 3, 4))
        bins = torch.minimum(((fractions - origin_here) * per_here).long().clamp(min=0), n_here - 1)
        index = tensors[2].index_select(0, batch) + _flat(bins, n_here)
        counts = torch.bincount(index, minlength=int(n.prod(axis=1).sum()))
        return cls(
            bins=bins,
            jumps=jumps.long(),
            counts=counts,
            starts=counts.cumsum(0) - counts,
            order=torch.argsort(index, stable=True),
            batch=batch,
            first=tensors[2],
            n=tensors[0],
            k=tensors[1],
            periodic=pbc,
            looks=(2 * k + 1).prod(axis=1),
            sizes=sizes,
        )

    def pieces(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, int]]:
        """Yield atoms, bins to look into, their image and number of atoms, and the sum of these; a part at a time."""
        most = _ON_GPU if self.bins.is_cuda else _ON_CPU
        looks = np.repeat(self.looks, self.sizes)
        for start, end in _ranges(looks, most):
            atoms, targets, images, counts = self._looked_into(start, end, int(looks[start:end].sum()))
            # Where atoms crowd, a part has many more candidates than bins.
            ends = counts.cumsum(0).cpu().numpy()
            for first, last in _ranges(np.diff(ends, prepend=0), most):
                part = slice(first, last)
                total = int(ends[last - 1] - (ends[first - 1] if first else 0))
                yield atoms[part], targets[part], images[part], counts[part], total

    def _looked_into(self, start: int, end: int, total: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rows of (atom, bin) for a range of atoms."""
        device = self.bins.device
        mine = self.batch[start:end]
        width = 2 * self.k.index_select(0, mine) + 1
        looks = width.prod(dim=1)
        local = torch.repeat_interleave(torch.arange(end - start, device=device), looks, output_size=total)
        rank = torch.arange(total, device=device) - (looks.cumsum(0) - looks).index_select(0, local)
        atoms, structure = local + start, mine.index_select(0, local)
        n, k, wide = (tensor.index_select(0, structure) for tensor in (self.n, self.k, 2 * self.k + 1))
        offset = torch.stack([rank // (wide[:, 1] * wide[:, 2]), rank // wide[:, 2] % wide[:, 1], rank % wide[:, 2]], 1)
        wanted = self.bins.index_select(0, atoms) + offset - k
        images = torch.div(wanted, n, rounding_mode="floor")
        inside = (self.periodic.index_select(0, structure) | (images == 0)).all(dim=1)
        targets = self.first.index_select(0, structure) + _flat(wanted - images * n, n)
        return atoms, targets, images, torch.where(inside, self.counts.index_select(0, targets), 0)


def _pairs(
    grid: _Grid, positions: Tensor, cell: Tensor, reach: float, piece: tuple[Tensor, Tensor, Tensor, Tensor, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of one part that are close enough."""
    atoms, targets, images, counts, total = piece
    row = torch.repeat_interleave(torch.arange(len(atoms), device=atoms.device), counts, output_size=total)
    rank = torch.arange(total, device=atoms.device) - (counts.cumsum(0) - counts).index_select(0, row)
    i = atoms.index_select(0, row)
    j = grid.order.index_select(0, grid.starts.index_select(0, targets).index_select(0, row) + rank)
    shifts = images.index_select(0, row) + grid.jumps.index_select(0, i) - grid.jumps.index_select(0, j)
    lattice = torch.where(grid.periodic[:, :, None], cell, 0.0)
    vectors = positions.index_select(0, j) - positions.index_select(0, i)
    if len(cell) == 1:
        vectors = vectors + shifts.to(vectors.dtype) @ lattice[0]
    else:
        cells = lattice.index_select(0, grid.batch.index_select(0, i))
        vectors = vectors + torch.einsum("ei,eij->ej", shifts.to(vectors.dtype), cells)
    near = (vectors.square().sum(-1) < reach * reach) & ((i != j) | (shifts != 0).any(dim=1))
    keep = near.nonzero().squeeze(-1)
    return i.index_select(0, keep), j.index_select(0, keep), shifts.index_select(0, keep)


def _flat(bins: Tensor, n: Tensor) -> Tensor:
    """Return the number of a bin within its structure."""
    return (bins[:, 0] * n[:, 1] + bins[:, 1]) * n[:, 2] + bins[:, 2]


def _ranges(costs: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    """Part a sequence of costs into ranges of no more than `most` each, one element at least."""
    ends, start = np.cumsum(costs), 0
    while start < len(costs):
        before = ends[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield start, end
        start = end


def _inverses(positions: Tensor, lattice: np.ndarray, periodic: np.ndarray, batch: Tensor, reach: float) -> np.ndarray:
    """Inverse boxes (B, 3, 3), after a look at the cells; replicas of one structure have one cell."""
    both = np.concatenate([lattice.reshape(-1, 9), periodic], axis=1)
    _, first, kind = np.unique(both, axis=0, return_index=True, return_inverse=True)
    return np.stack([_inverse(positions, lattice, periodic, batch, reach, int(k)) for k in first])[kind.reshape(-1)]


def _inverse(
    positions: Tensor, lattice: np.ndarray, periodic: np.ndarray, batch: Tensor, reach: float, structure: int
) -> np.ndarray:
    cell, pbc = lattice[structure], periodic[structure]
    if not pbc.any():
        return np.eye(3)
    if np.isfinite(cell).all():
        inverse = np.linalg.pinv(complete_box(cell, pbc))
        thin = np.linalg.norm(cell, axis=1) * np.linalg.norm(inverse, axis=0)
        images = 2.0 * reach * np.linalg.norm(inverse, axis=0) + 1.0
        if (thin[pbc] >= 0.99).all() and (thin[pbc] < 1e3).all() and images[pbc].prod() <= MOST_IMAGES:
            return inverse
    # Far from usual: the check for one structure knows what is allowed.
    _say_what_is_wrong(positions, lattice, periodic, batch, reach, structure)
    return np.linalg.inv(complete_box(cell, pbc))


def _extents(
    fractions: Tensor, positions: Tensor, batch: Tensor, n_structures: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Lowest and highest fractions (B, 3), whether an atom is lost (B,), and numbers of atoms (B,), in one copy."""
    owner = batch[:, None].expand_as(fractions)
    empty = fractions.new_zeros(n_structures, 3)
    low = empty.scatter_reduce(0, owner, fractions, "amin", include_self=False)
    high = empty.scatter_reduce(0, owner, fractions, "amax", include_self=False)
    # Written so that NaN counts as far away.
    lost = empty.index_add(0, batch, (~(positions.abs() <= FARTHEST)).to(empty.dtype))
    sizes = torch.bincount(batch, minlength=n_structures).to(low.dtype)
    found = torch.cat([low, high, lost, sizes[:, None]], dim=1).cpu().numpy()
    return found[:, :3], found[:, 3:6], np.asarray(found[:, 6:9].any(axis=1)), found[:, 9].astype(np.int64)


def _say_what_is_wrong(
    positions: Tensor, lattice: np.ndarray, periodic: np.ndarray, batch: Tensor, reach: float, structure: int
) -> None:
    mine = positions[batch == structure].cpu().numpy()
    try:
        check_structure(mine, lattice[structure], periodic[structure], reach)
    except InputError as error:
        where = f"structure {structure} of {len(lattice)}: " if len(lattice) > 1 else ""
        raise InputError(f"{where}{error}") from None


def _numbers_of_bins(lengths: np.ndarray, reach: float, sizes: np.ndarray) -> np.ndarray:
    """Bins along each direction (B, 3) for boxes of these lengths, not many more than atoms."""
    n = np.maximum(np.floor(lengths / (reach * (1 + 1e-9))), 1.0)
    most = np.maximum(_BINS_PER_ATOM * sizes, 8.0)
    for _ in range(3):
        # A direction of one bin gives nothing to the others.
        excess = n.prod(axis=1) / most
        free = np.maximum((n > 1).sum(axis=1), 1)
        n = np.maximum(np.floor(n / np.maximum(excess ** (1.0 / free), 1.0)[:, None]), 1.0)
    return n.astype(np.int64)
