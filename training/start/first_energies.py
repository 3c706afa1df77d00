r"""Weights of the last layer with which a random network begins at the mean energy of the data.

With E0 of isolated atoms a network has to learn the binding energy, some −5 eV per atom, of which it begins with none.
A constant is no way: the output of an atom alone is subtracted, so that a bias has no effect. The energy of a frame k,

    E_k / N_k = s · w · m_k,        m_k = mean over atoms of (h_i − h of the atom alone)

is linear in the weights w of the last layer, with h the features before it. w is moved by the smallest change along
the directions in which the m_k are large, so that the energies of the frames come out right; directions in which they
hardly differ, by which a few frames could be told apart, are left alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms
from torch import Tensor, nn

from asecalc_mlip.data.census import has_label
from asecalc_mlip.data.plausibility import far_energies
from asecalc_mlip.data.sampling import evenly
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.logs import LOGGER
from asecalc_mlip.models import Potential

__all__ = ["begin_at_mean_energy"]

# Atoms of the frames that are looked at; more say nothing new about a mean.
MOST_ATOMS = 2000
# eV per atom; a smaller mean is learned at once.
LEAST = 0.1
# Share of the largest singular value below which a direction is left alone.
KEPT = 0.2


def begin_at_mean_energy(potential: Potential, frames: Sequence[Atoms]) -> bool:
    """Set the last layer of a random network such that mean energies are those of the frames.

    Parameters
    ----------
    potential : Potential
        A single network with its E0, changed in place.
    frames : sequence of Atoms
        With what it is to learn as ``info["energy"]``, eV, E0 included.

    Returns
    -------
    bool
        Whether there was something to do, and a layer in which the energies are linear.
    """
    labelled = [atoms for atoms in frames if has_label(atoms, "energy")]
    odd = set(far_energies(labelled))
    some = _some([atoms for k, atoms in enumerate(labelled) if k not in odd])
    if not some:
        return False
    e0 = potential.reference_energies
    wanted = np.array([(a.info["energy"] - sum(e0[int(z)] for z in a.numbers)) / len(a) for a in some])
    if abs(wanted.mean()) < LEAST or (layer := _last_layer(potential, some[0])) is None:
        return False
    now, means = zip(*(_linear(potential, layer, atoms) for atoms in some), strict=True)
    change = _smallest(np.array(means), wanted - np.array(now))
    with torch.no_grad():
        layer.weight += torch.from_numpy(change).to(layer.weight).view_as(layer.weight)
    # What was derived from the old weights is dropped.
    potential.train(potential.training)
    LOGGER.info(f"the last layer begins at the mean energy of {len(some)} frames, {wanted.mean():+z.3f} eV/atom")
    return True


def _some(frames: Sequence[Atoms]) -> list[Atoms]:
    """Return frames spread evenly, of not too many atoms in all."""
    if not frames:
        return []
    n = max(1, min(len(frames), MOST_ATOMS // max(1, int(np.mean([len(atoms) for atoms in frames])))))
    return [frames[i] for i in evenly(len(frames), n)]


def _last_layer(potential: Potential, atoms: Atoms) -> nn.Linear | None:
    """Find a layer of one output in whose weights the energy is linear; of a gated readout, that of the values."""
    for layer in potential.network.modules():
        if not (isinstance(layer, nn.Linear) and layer.out_features == 1):
            continue
        energy, slope = _linear(potential, layer, atoms)
        weight = layer.weight.detach().clone()
        with torch.no_grad():
            layer.weight *= 3.0
        potential.train(potential.training)
        tripled, _ = _linear(potential, layer, atoms)
        with torch.no_grad():
            layer.weight.copy_(weight)
        potential.train(potential.training)
        more = 2.0 * float(slope @ weight.double().numpy().ravel())
        if abs(more) > 0 and abs(tripled - energy - more) < 1e-3 * abs(more):
            return layer
    return None


def _linear(potential: Potential, layer: nn.Linear, atoms: Atoms) -> tuple[float, np.ndarray]:
    """Return the interaction energy per atom in eV and its derivative by the weights of a layer."""
    graph = graph_from_atoms(atoms, potential.cutoff)
    was = potential.training
    potential.train()  # the features of atoms alone have a gradient, too
    with torch.enable_grad():
        energies: Tensor = potential(graph) - potential.e0.index_select(0, graph.numbers)
        mean = energies.mean()
        (slope,) = torch.autograd.grad(mean, layer.weight, allow_unused=True)
    potential.train(was)
    found = torch.zeros_like(layer.weight) if slope is None else slope
    return float(mean.detach()), found.detach().double().numpy().ravel()


def _smallest(means: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the smallest x with means · x = wanted, by squares, in the directions in which the means are large."""
    left, sizes, right = np.linalg.svd(means, full_matrices=False)
    kept = sizes > KEPT * sizes[0]
    return right[kept].T @ ((left[:, kept].T @ wanted) / sizes[kept])
