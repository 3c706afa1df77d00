"""Memory at a million atoms, from the sizes of the arrays that are alive when the model runs."""

import pytest
import torch

from asecalc_mlip.bench.structures import quartz
from asecalc_mlip.engine import NativeEngine
from asecalc_mlip.kernels import native_library
from asecalc_mlip.neighbors.verlet import NeighborCache
from tests.cases import make_potential

pytestmark = pytest.mark.skipif(native_library() is None, reason="the native library was not built")


def test_painn_takes_18_kb_per_atom():
    engine = NativeEngine(make_potential("painn", dtype=torch.float32, n_features=64, n_interactions=3, n_rbf=20))
    assert engine.bytes_needed(10**6, 45 * 10**6) / 10**6 < 15_000


def test_a_kept_list_takes_19_bytes_per_edge():
    atoms = quartz() * 2
    cache = NeighborCache(5.0, 0.5)
    cache.graph(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
    graph = cache._reference.graph
    edges = (graph.centers, graph.neighbors, graph.shifts)
    assert sum(t.numel() * t.element_size() for t in edges) == 19 * graph.n_edges


def test_a_buffer_of_many_atoms_is_hardly_larger_than_needed():
    engine = NativeEngine(make_potential("painn", dtype=torch.float32, n_features=64, n_interactions=3, n_rbf=20))
    atoms = quartz() * 8
    graph = NeighborCache(5.0, 0.5).graph(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
    engine(graph)
    needed = engine.bytes_needed(len(atoms), 0)
    assert needed <= 4 * engine._buffer.numel() <= needed + 2**22
