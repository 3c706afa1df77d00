"""The native TensorNet where atoms are too many to keep all that the way back needs."""

import pytest
import torch

from asecalc_mlip.engine import NativeEngine
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.kernels import native_library
from asecalc_mlip.models import tensornet_native
from tests.cases import make_potential, make_structure

pytestmark = pytest.mark.skipif(native_library() is None, reason="the native library was not built")


@pytest.mark.parametrize("messages", ["neighbor", "own"])
@pytest.mark.parametrize("n_interactions", [1, 2, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-13)])
def test_little_room_changes_nothing(monkeypatch, dtype, tolerance, n_interactions, messages):
    sizes = {"n_interactions": n_interactions, "n_features": 32, "messages": messages}
    potential = make_potential("tensornet", dtype=dtype, **sizes)
    graph = graph_from_atoms(make_structure("crystal") * (3, 2, 2), 4.0)
    roomy = NativeEngine(potential)
    monkeypatch.setattr(tensornet_native, "_ROOM", 0)
    little = NativeEngine(potential)
    ours, theirs = (engine(graph, stress=True) for engine in (little, roomy))
    scale = max(1.0, theirs.forces.abs().max().item())
    assert (ours.energies - theirs.energies).abs().max() <= tolerance * theirs.energies.abs().max()
    assert (ours.forces - theirs.forces).abs().max() <= tolerance * scale
    assert (ours.stress - theirs.stress).abs().max() <= tolerance * scale
    if n_interactions == 2:
        edges = 45_000
        kept, needed = (engine.bytes_needed(1000, edges) - 150 * edges for engine in (roomy, little))
        # X_0, Y, both M and the gradient by X of each atom, and a slope of each edge.
        assert needed < dtype.itemsize * (1000 * (5 * 9 * 32 + 5) + edges)
        assert kept > 2.4 * needed
