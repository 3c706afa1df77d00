r"""Energies, forces and stress of an EAM for fitting, where atoms stay and parameters move.

Distances never change in a fit, so they are made once, each pair of atoms once. With φ the pair energy, F the embedding
and ρ' the derivative of the density, all of them by distance,

    ∂E/∂r_ij = φ'(r_ij) + (F'(ρ_i) + F'(ρ_j)) ρ'(r_ij)

needs no backward pass: derivatives by distance come by forward differentiation of the same `EAM.pair_terms` that serves
the calculator, and one backward pass then gives those by the parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from asecalc_mlip.calculators.checks import check_distances
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.models.eam import EAM

__all__ = ["FitBatch", "collate", "energies_forces_stress", "fit_batch"]


@dataclass(frozen=True)
class FitBatch:
    """Structures with labels; B structures, N atoms, P pairs of atoms within the cutoff, each once.

    Attributes
    ----------
    species : (N,) int64, batch : (N,) int64
        Species as the network counts them, and the structure of each atom.
    first, second, pairs : (P,) int64
        The two atoms, and the row of the parameters of their elements.
    distances : (P,) Å, directions : (P, 3)
        From first to second.
    core, core_slope : (P,) eV and eV/Å
        ZBL energy and its derivative; zero without a core.
    volume : (B,) Å³
        Infinite for structures that are not periodic in three directions: they have no stress.
    energy : (B,) eV, float64, forces : (N, 3) eV/Å, stress : (B, 3, 3) eV/Å³
        Labels, NaN where a structure has none.
    """

    species: Tensor
    batch: Tensor
    first: Tensor
    second: Tensor
    pairs: Tensor
    distances: Tensor
    directions: Tensor
    core: Tensor
    core_slope: Tensor
    volume: Tensor
    energy: Tensor
    forces: Tensor
    stress: Tensor

    @property
    def counts(self) -> Tensor:
        """Number of atoms of each structure, (B,)."""
        return torch.bincount(self.batch, minlength=len(self.energy))


def fit_batch(network: EAM, atoms: Atoms) -> FitBatch:
    """Return one structure as a batch; labels as `asecalc_mlip.data.readers.read_frames` gives them.

    Raises
    ------
    InputError
        For elements without parameters, and atoms that overlap.
    """
    graph = graph_from_atoms(atoms, network.cutoff)
    check_distances(graph)
    dtype = network.bond.dtype
    keep = _once(graph.centers, graph.neighbors, graph.shifts)
    vectors = graph.vectors()[keep]
    first, second = graph.centers[keep], graph.neighbors[keep]
    distances = vectors.norm(dim=-1)
    species = network.species_of(graph.numbers)
    pairs = network.pairs[species[first] * len(network.numbers) + species[second]]
    core, slope = _core(network, graph.numbers[first], graph.numbers[second], distances)
    forces = torch.from_numpy(np.asarray(atoms.arrays.get("forces", np.full((len(atoms), 3), np.nan)), dtype=float))
    stress = torch.from_numpy(np.asarray(atoms.info.get("stress", np.full((3, 3), np.nan)), dtype=float))
    stress = stress if atoms.pbc.all() else torch.full((3, 3), torch.nan)
    volume = torch.tensor([atoms.get_volume() if atoms.pbc.all() else np.inf])
    return FitBatch(
        species=species,
        batch=graph.batch,
        first=first,
        second=second,
        pairs=pairs,
        distances=distances.to(dtype),
        directions=(vectors / distances[:, None]).to(dtype),
        core=core.to(dtype),
        core_slope=slope.to(dtype),
        volume=volume.to(dtype),
        energy=torch.tensor([atoms.info.get("energy", np.nan)], dtype=torch.float64),
        forces=forces.to(dtype),
        stress=stress.reshape(1, 3, 3).to(dtype),
    )


def collate(batches: Sequence[FitBatch]) -> FitBatch:
    """Return one batch of several."""
    ends = np.cumsum([0] + [len(b.species) for b in batches])
    moved = {"first": ends, "second": ends, "batch": np.cumsum([0] + [len(b.energy) for b in batches])}
    found = {}
    for name in (field.name for field in fields(FitBatch)):
        offsets = moved.get(name, np.zeros(len(batches) + 1, dtype=int))
        found[name] = torch.cat([getattr(b, name) + int(o) for b, o in zip(batches, offsets, strict=False)])
    return FitBatch(**found)


def energies_forces_stress(network: EAM, batch: FitBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Compute energy less that of the single atoms (B,) eV, forces (N, 3) eV/Å and stress (B, 3, 3) eV/Å³.

    The same as `predict` of the network gives, and differentiable by its parameters.
    """
    one = torch.ones_like(batch.distances)
    terms: Any = torch.func.jvp(lambda r: network.pair_terms(r, batch.pairs), (batch.distances,), (one,))
    (morse, density), (morse_slope, density_slope) = terms
    pair, slope = morse + batch.core, morse_slope + batch.core_slope
    n_structures, of_pair = len(batch.energy), batch.batch[batch.first]
    energy = pair.new_zeros(n_structures).index_add(0, of_pair, pair)
    if network.density:
        rho = density.new_zeros(len(batch.species))
        rho = rho.index_add(0, batch.first, density).index_add(0, batch.second, density)
        energy = energy.index_add(0, batch.batch, network.embedding_energy(rho, batch.species))
        response = network.embedding_slope(rho, batch.species)
        slope = slope + (response[batch.first] + response[batch.second]) * density_slope
    pull = slope[:, None] * batch.directions
    forces = torch.zeros_like(batch.forces).index_add(0, batch.first, pull).index_add(0, batch.second, -pull)
    virial = (batch.distances[:, None] * batch.directions)[:, :, None] * pull[:, None, :]
    stress = torch.zeros_like(batch.stress).index_add(0, of_pair, virial) / batch.volume[:, None, None]
    return energy, forces, stress


def _once(centers: Tensor, neighbors: Tensor, shifts: Tensor | None) -> Tensor:
    """Return which of the directed edges to keep so that each pair, images included, is there once."""
    if shifts is None:
        return centers < neighbors
    # Of an atom's two like images, the one whose first lattice vector that is not zero is positive.
    leading = (shifts.sign() * shifts.new_tensor([4.0, 2.0, 1.0])).sum(-1)
    return (centers < neighbors) | ((centers == neighbors) & (leading > 0))


def _core(network: EAM, a: Tensor, b: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    """Return the ZBL energy and its derivative for each pair; constant in a fit."""
    if network.zbl is None:
        return torch.zeros_like(distances), torch.zeros_like(distances)
    one = torch.ones_like(distances)
    zbl = network.zbl
    found: Any = torch.func.jvp(lambda r: zbl.pair_energy(a, b, r), (distances,), (one,))
    return found
