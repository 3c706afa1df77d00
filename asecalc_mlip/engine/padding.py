"""Graphs of a fixed size, which captured and compiled programs need: padding that contributes exactly nothing."""

from __future__ import annotations

from dataclasses import replace

import torch

from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import AtomGraph

__all__ = ["bucket", "pad_graph"]


def pad_graph(graph: AtomGraph, n_atoms: int, n_edges: int, *, far: float) -> AtomGraph:
    """Return the same graph with more atoms and edges, which form one structure more at the end.

    Padding atoms have edges only among themselves and of the length `far`, beyond the cutoff, where filters and their
    derivatives are exactly zero. Energies, forces and stress of the first atoms, edges and structures therefore stay
    what they are.

    Parameters
    ----------
    graph : AtomGraph
    n_atoms, n_edges : int
        Sizes of the result, at least those of `graph`; at least two atoms are padding.
    far : float
        Å; more than the cutoff.

    Raises
    ------
    InputError
        For a size that is too small.
    """
    atoms, edges = n_atoms - graph.n_atoms, n_edges - graph.n_edges
    if atoms < 2 or edges < 0:
        raise InputError(
            f"a graph of {graph.n_atoms} atoms and {graph.n_edges} edges cannot be padded to {n_atoms} and {n_edges}; "
            f"the least is {graph.n_atoms + 2} and {graph.n_edges}"
        )
    # Any element that the model knows will do.
    numbers = graph.numbers[:1].expand(atoms)
    positions = graph.positions.new_zeros(atoms, 3)
    positions[1::2, 0] = far
    # Spread over the padding atoms, as a GPU is slow at adding many numbers to one; each with the next, sorted.
    centers = (torch.arange(edges, device=graph.centers.device) * atoms) // max(edges, 1)
    neighbors = torch.where((centers % 2 == 0) & (centers + 1 < atoms), centers + 1, centers - 1)
    return replace(
        graph,
        numbers=torch.cat([graph.numbers, numbers]),
        positions=torch.cat([graph.positions, positions]),
        batch=torch.cat([graph.batch, graph.batch.new_full((atoms,), graph.n_structures)]),
        centers=torch.cat([graph.centers, centers + graph.n_atoms]),
        neighbors=torch.cat([graph.neighbors, neighbors + graph.n_atoms]),
        cell=torch.cat([graph.cell, graph.cell.new_zeros(1, 3, 3)]),
        shifts=None if graph.shifts is None else torch.cat([graph.shifts, graph.shifts.new_zeros(edges, 3)]),
    )


def bucket(size: int, least: int) -> int:
    """Return the next larger of a few sizes, 1/8 of a power of two apart, so that many sizes share one program."""
    step = max(least, 1 << max(0, (size - 1).bit_length() - 4))
    return -(-size // step) * step
