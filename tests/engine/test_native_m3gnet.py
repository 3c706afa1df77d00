"""The native M3GNet: angles of any order, little room, and its own sizes."""

import pytest
import torch

from asecalc_mlip.engine import EagerEngine, NativeEngine, make_engine
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.kernels import native_library
from asecalc_mlip.models import m3gnet_native
from tests.cases import make_potential, make_structure

pytestmark = pytest.mark.skipif(native_library() is None, reason="the native library was not built")


def relative(ours, theirs):
    """Largest differences of energies, forces and stress, relative to the largest of each."""
    pairs = [(ours.energies, theirs.energies), (ours.forces, theirs.forces), (ours.stress, theirs.stress)]
    return [((a - b).abs().max() / b.abs().max()).item() for a, b in pairs]


@pytest.mark.parametrize(
    "sizes",
    [
        {"n_angular": 1, "n_rbf": 2, "n_interactions": 1},
        {"n_angular": 5, "n_rbf": 3},
        {"n_angular": 2, "radial_basis": "spherical_bessel"},
        # Hidden layers that do not fill registers, no edge with angles, and none without.
        {"n_hidden": 40, "n_interactions": 3, "three_body_cutoff": 4.0},
        {"n_hidden": 33, "three_body_cutoff": 1.0},
    ],
)
def test_as_autograd_in_float64(sizes):
    potential = make_potential("m3gnet", **{"three_body_cutoff": 3.3, "n_rbf": 4, **sizes})
    assert isinstance(make_engine(potential), NativeEngine)
    graph = graph_from_atoms(make_structure("crystal") * (2, 1, 1), 4.0)
    ours, theirs = (engine(potential)(graph, stress=True) for engine in (NativeEngine, EagerEngine))
    assert max(relative(ours, theirs)) < 1e-10


def test_forces_are_differences_of_energies():
    engine = NativeEngine(make_potential("m3gnet", three_body_cutoff=3.5))
    atoms = make_structure("slab")
    forces, step = engine(graph_from_atoms(atoms, 4.0)).forces, 1e-3
    for atom, axis in ((0, 0), (3, 1), (5, 2)):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * step
            energies.append(engine(graph_from_atoms(moved, 4.0), forces=False).energy.item())
        assert (energies[1] - energies[0]) / (2 * step) == pytest.approx(forces[atom, axis].item(), rel=1e-4, abs=1e-6)


def test_angles_matter():
    """Without the term of three bodies other forces come out, so the comparisons above see it."""
    potential = make_potential("m3gnet", three_body_cutoff=3.5)
    graph = graph_from_atoms(make_structure("crystal"), 4.0)
    full = NativeEngine(potential)(graph, stress=True)
    for block in potential.network.blocks:
        block.three_body.value.weight.zero_()
    assert max(relative(NativeEngine(potential)(graph, stress=True), full)[1:]) > 1e-2


@pytest.mark.parametrize("n_interactions", [1, 2, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-13)])
def test_little_room_changes_nothing(monkeypatch, dtype, tolerance, n_interactions):
    potential = make_potential("m3gnet", dtype=dtype, n_interactions=n_interactions, n_features=32, n_hidden=32)
    graph = graph_from_atoms(make_structure("crystal") * (3, 2, 2), 4.0)
    roomy = NativeEngine(potential)
    monkeypatch.setattr(m3gnet_native, "_ROOM", 0)
    little = NativeEngine(potential)
    assert max(relative(*(engine(graph, stress=True) for engine in (little, roomy)))) < 10 * tolerance
    if n_interactions == 3:
        edges = 45_000
        kept, needed = (engine.bytes_needed(1000, edges) - 64 * edges for engine in (roomy, little))
        # Of each edge its features twice, their gradient and four numbers; of each atom what it tells its pairs.
        assert needed < dtype.itemsize * (edges * (3 * 32 + 5) + 1000 * (3 * (8 * 32 + 160) + 18 * (4 * 32 + 80) + 350))
        assert kept > 5 * needed


def test_functions_with_a_slope_at_the_cutoff_need_no_finer_tables():
    network = make_potential("m3gnet", radial_basis="spherical_bessel", n_angular=2, n_rbf=3).network
    assert network.packed().weights.nodes < 2000
