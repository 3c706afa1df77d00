"""The distribution h(r) of interatomic distances: how like the reference does a molecule move?

h(r) is the density of all distances |r_i − r_j|, i < j, over all frames, normalised to one on (0, r_max]
(Fu et al., Transactions on Machine Learning Research 2023). Two of them are compared by ∫|h − h_ref| dr,
which is 0 for equal distributions and 2 for distributions that do not overlap.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from asecalc_mlip.analysis.frames import as_list
from asecalc_mlip.errors import InputError

BINS = 500
R_MAX = 10.0  # Å
PIECE = 2**20  # pairs whose vectors are in memory at once


@dataclass(frozen=True, repr=False)
class DistanceHistogram:
    """Density of interatomic distances.

    Attributes
    ----------
    edges : (bins + 1,) array
        Å.
    counts : (bins,) array of int
        Number of distances in each bin.
    n_frames : int
        Number of frames that were counted.
    """

    edges: np.ndarray
    counts: np.ndarray
    n_frames: int

    @property
    def r(self) -> np.ndarray:
        """Bin centres in Å, shape (bins,)."""
        return 0.5 * (self.edges[1:] + self.edges[:-1])

    @property
    def density(self) -> np.ndarray:
        """h(r) in 1/Å, shape (bins,); its integral over the bins is one (zero if nothing was counted)."""
        total = self.counts.sum()
        return self.counts / (max(total, 1) * np.diff(self.edges))

    def error(self, reference: DistanceHistogram) -> float:
        """Return ∫|h − h_ref| dr, between 0 (equal) and 2 (no overlap)."""
        if self.edges.shape != reference.edges.shape or not np.allclose(self.edges, reference.edges):
            raise InputError(
                f"the two h(r) have different bins ({len(self.counts)} up to {self.edges[-1]:g} Å and "
                f"{len(reference.counts)} up to {reference.edges[-1]:g} Å): use the same bins and r_max for both"
            )
        return float(np.sum(np.abs(self.density - reference.density) * np.diff(self.edges)))

    def to_dict(self) -> dict:
        """Return plain lists and numbers, for JSON."""
        return {
            "r_max": float(self.edges[-1]),
            "bins": len(self.counts),
            "counts": self.counts.tolist(),
            "n_frames": self.n_frames,
        }

    @classmethod
    def from_dict(cls, data: dict) -> DistanceHistogram:
        """Invert `to_dict`."""
        counts = np.asarray(data["counts"], dtype=np.int64)
        return cls(bin_edges(len(counts), data["r_max"]), counts, int(data["n_frames"]))

    def __repr__(self) -> str:
        if self.counts.sum() == 0:
            return f"DistanceHistogram({self.n_frames} frames, no distance below {self.edges[-1]:g} Å)"
        peak = self.r[np.argmax(self.density)]
        return (
            f"DistanceHistogram({self.n_frames} frames, {self.counts.sum()} distances up to {self.edges[-1]:g} Å, "
            f"highest peak at {peak:.2f} Å; compare with .error(reference))"
        )


def bin_edges(bins: int = BINS, r_max: float = R_MAX) -> np.ndarray:
    """Return the edges of equal bins from 0 to `r_max` Å, shape (bins + 1,)."""
    if bins < 1 or not r_max > 0:
        raise InputError(f"a histogram needs at least one bin and r_max > 0, not bins={bins}, r_max={r_max}")
    return np.linspace(0.0, r_max, bins + 1)


def count_distances(positions: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Count all i < j distances of one frame.

    Parameters
    ----------
    positions : (n_atoms, 3) array
        Å.
    edges : (bins + 1,) array
        Of equal bins that start at 0, Å.

    Returns
    -------
    (bins,) int64 array. Distances beyond the last edge are left out.
    """
    bins, r_max = len(edges) - 1, edges[-1]
    counts = np.zeros(bins, dtype=np.int64)
    # A tree finds near pairs without a look at all others, of which a large cluster has too many. It rounds in its own
    # way, so a distance of exactly r_max is left to the comparison below.
    pairs = cKDTree(positions).query_pairs(r_max * (1.0 + 1e-9), output_type="ndarray")
    for k in range(0, len(pairs), PIECE):
        i, j = pairs[k : k + PIECE].T
        d = np.linalg.norm(positions[i] - positions[j], axis=1)
        index = np.ceil(d[d <= r_max] * (bins / r_max)).astype(np.int64) - 1
        counts += np.bincount(np.clip(index, 0, bins - 1), minlength=bins)
    return counts


def distance_histogram(
    positions_frames: np.ndarray | Iterable, bins: int = BINS, r_max: float = R_MAX
) -> DistanceHistogram:
    """Take h(r) of a molecule: the density of all i < j distances over all frames.

    Parameters
    ----------
    positions_frames : array or iterable
        (n_frames, n_atoms, 3) array in Å, or an iterable of such frames or of `ase.Atoms`. Frames are read one by one,
        so a generator over a long trajectory works. No periodic images: for a periodic system use `rdf`.
    bins, r_max : int, float
        Number of equal bins on (0, r_max]; r_max in Å.

    Returns
    -------
    DistanceHistogram with `r`, `density` (1/Å) and `error(reference)`.

    Raises
    ------
    InputError
        No frame, or a frame of the wrong shape or with NaN in it.

    Source: Fu et al., TMLR 2023 (https://arxiv.org/abs/2210.07237), distribution of interatomic distances.
    """
    edges = bin_edges(bins, r_max)
    counts, n_frames = np.zeros(bins, dtype=np.int64), 0
    for positions in as_positions(positions_frames):
        counts += count_distances(positions, edges)
        n_frames += 1
    if n_frames == 0:
        raise InputError("there is no frame to take distances from: give at least one")
    return DistanceHistogram(edges, counts, n_frames)


def as_positions(frames) -> Iterable[np.ndarray]:
    """Yield each frame as an (n_atoms, 3) array in Å, whether it came as an array or as `ase.Atoms`."""
    for number, frame in enumerate(as_list(frames)):
        positions = np.asarray(frame.positions if hasattr(frame, "get_positions") else frame, dtype=float)
        if positions.ndim != 2 or positions.shape[1] != 3:
            raise InputError(f"frame {number} has the shape {positions.shape}; (n_atoms, 3) is expected")
        if not np.isfinite(positions).all():
            raise InputError(f"frame {number} has positions that are NaN or infinite: leave it out")
        yield positions
