"""The native engine against autograd: energies, forces and stress of every kind of structure, width and basis."""

import copy

import numpy as np
import pytest
import torch
from ase import Atoms

from asecalc_mlip.engine import EagerEngine, NativeEngine, make_engine
from asecalc_mlip.graph import batch_graphs, graph_from_atoms
from asecalc_mlip.kernels import native_library
from asecalc_mlip.models import ARCHITECTURES, hyperparameters_of
from tests.cases import STRUCTURES, make_potential, make_structure

# Networks of message passing that say they have a kernel; the EAM has tests of its own.
SERVED = [
    (name, dtype)
    for name, cls in ARCHITECTURES.items()
    if cls.traits.native is not None and "n_features" in hyperparameters_of(name)
    for dtype in cls.traits.native.multiples
]
pytestmark = [
    pytest.mark.skipif(native_library() is None, reason="the native library was not built"),
    pytest.mark.parametrize(("architecture", "dtype"), SERVED),
]
# Relative to the largest force. In float32 PaiNN and SchNet are 3e-7 to 7e-7 from eager forces in float64 for
# structures and bases as below, SchNet with Gaussians 2.7e-7, where eager ones in float32 are 1.7e-7 to 1.6e-6: that is
# rounding, of which wide networks, close atoms and many blocks make more. Tables worse than 1e-5 would be seen here,
# better ones not.
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}
# M3GNet has functions of the distance of its own.
BASES = {"m3gnet": {"gaussian": "smooth_bessel", "bessel": "spherical_bessel"}}


def compare(potential, graph, stress, tolerance):
    if potential.architecture in ("tensornet", "m3gnet") and potential.dtype == torch.float64:
        tolerance *= 1000  # tabulated functions, whose slopes are good to 1e-10; SchNet has no kernel in float64
    assert NativeEngine.serves(potential)
    ours, reference = (E(potential)(graph, stress=stress) for E in (NativeEngine, EagerEngine))
    scale = max(1.0, reference.forces.abs().max().item())
    assert (ours.energies - reference.energies).abs().max() < tolerance * 10
    assert (ours.forces - reference.forces).abs().max() <= tolerance * scale
    if stress:
        both = ~reference.stress.isnan()
        assert torch.equal(both, ~ours.stress.isnan())
        assert (ours.stress - reference.stress)[both].abs().max() <= tolerance * reference.stress[both].abs().max()


def basis_of(architecture, name):
    return BASES.get(architecture, {}).get(name, name)


def number_of(architecture, n_rbf):
    """Fewer functions for M3GNet, which has them for each order of angles, in tables that take their time."""
    return min(n_rbf, 5) if architecture == "m3gnet" else n_rbf


def assert_same_on_any_number_of_threads(engine, graph):
    results = []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            results.append(engine(graph))
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(results[0].energies, r.energies) for r in results)
    assert all((results[0].forces - r.forces).abs().max() < 1e-12 for r in results)


@pytest.mark.parametrize("basis", ["gaussian", "bessel"])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_structures(architecture, dtype, structure, basis):
    sizes = {"n_features": 32, "radial_basis": basis_of(architecture, basis), "n_interactions": 3}
    potential = make_potential(architecture, dtype=dtype, **sizes)
    atoms = make_structure(structure)
    compare(potential, graph_from_atoms(atoms, 4.0), bool(atoms.pbc.all()), TOLERANCE[dtype])


@pytest.mark.parametrize("n_interactions", [1, 2, 5])
@pytest.mark.parametrize(("n_features", "n_rbf"), [(16, 2), (48, 33), (64, 20), (80, 7)])
def test_sizes(architecture, dtype, n_features, n_rbf, n_interactions):
    sizes = {"n_features": n_features, "n_rbf": number_of(architecture, n_rbf), "n_interactions": n_interactions}
    potential = make_potential(architecture, dtype=dtype, **sizes)
    compare(potential, graph_from_atoms(make_structure("crystal"), 4.0), True, 5 * TOLERANCE[dtype])


def test_batches_and_lone_atoms(architecture, dtype):
    structures = [make_structure(name, seed=k) for k, name in enumerate(STRUCTURES)] + [Atoms("Si"), Atoms("H")]
    graph = batch_graphs([graph_from_atoms(atoms, 4.0) for atoms in structures])
    compare(make_potential(architecture, dtype=dtype), graph, True, TOLERANCE[dtype])
    engine = NativeEngine(make_potential(architecture, dtype=dtype))
    alone = engine(graph_from_atoms(Atoms("Si"), 4.0))
    assert alone.energy.item() == -7000.0
    assert not alone.forces.any()


def test_threads_share_the_work_and_change_nothing(architecture, dtype):
    graph = graph_from_atoms(make_structure("crystal") * (6, 6, 6), 4.0)
    assert graph.n_edges > 10_000
    assert_same_on_any_number_of_threads(NativeEngine(make_potential(architecture, dtype=dtype)), graph)


def test_graphs_that_grow_and_shrink(architecture, dtype):
    engine, eager = (E(make_potential(architecture, dtype=dtype)) for E in (NativeEngine, EagerEngine))
    for repeat in (1, 3, 1, 2):
        graph = graph_from_atoms(make_structure("slab") * (repeat, 1, 1), 4.0)
        assert torch.allclose(engine(graph).forces, eager(graph).forces, atol=TOLERANCE[dtype] * 5)
        assert engine(graph, forces=False).forces is None


def test_atoms_with_one_neighbour_and_gaussians_far_away(architecture, dtype):
    potential = make_potential(architecture, dtype=dtype, n_rbf=number_of(architecture, 40))
    for distance in (0.15, 0.5, 3.999, 4.0, 4.1):
        graph = graph_from_atoms(Atoms("CO", [[0, 0, 0], [0, 0.6 * distance, 0.8 * distance]]), 4.0)
        compare(potential, graph, False, 10 * TOLERANCE[dtype])


def test_extreme_weights_stay_finite(architecture, dtype):
    potential = make_potential(architecture, dtype=dtype)
    for parameter in potential.parameters():
        parameter.mul_(30.0)
    graph = graph_from_atoms(make_structure("molecule"), 4.0)
    ours, reference = (E(potential)(graph) for E in (NativeEngine, EagerEngine))
    finite = torch.isfinite(reference.forces)
    assert torch.equal(finite, torch.isfinite(ours.forces))


def test_who_is_served(architecture, dtype):
    def engine(**options):
        return type(make_engine(make_potential(architecture, **{"dtype": dtype, **options})))

    assert engine() is NativeEngine
    assert engine(n_features=20) is EagerEngine
    # 24 numbers fill whole registers in float64 only.
    assert engine(n_features=24) is (NativeEngine if dtype == torch.float64 else EagerEngine)
    # A table good enough for float64 would take hundreds of megabytes.
    assert engine(dtype=torch.float64) is (EagerEngine if architecture == "schnet" else NativeEngine)


def test_copies_work_on_their_own(architecture, dtype):
    graph = graph_from_atoms(make_structure("molecule"), 4.0)
    engine = NativeEngine(make_potential(architecture, dtype=dtype))
    assert torch.equal(copy.deepcopy(engine)(graph).forces, engine(graph).forces)


def test_without_the_library(architecture, dtype, monkeypatch, tmp_path):
    from asecalc_mlip import PIWSLCalculator
    from asecalc_mlip.kernels import library
    from tests.cases import model_file

    path, atoms = model_file(tmp_path, architecture), make_structure("molecule")
    name = str(dtype).removeprefix("torch.")
    forces = PIWSLCalculator.load(path, dtype=name).get_forces(atoms)
    monkeypatch.setattr(library, "native_library", lambda: None)
    slow = PIWSLCalculator.load(path, dtype=name)
    assert "plain torch" in str(slow)
    assert np.allclose(slow.get_forces(atoms), forces, atol=1e-4)


def test_tables_add_nothing_to_the_rounding_of_float32(architecture, dtype):
    """Filters from tables: as far from float64 as autograd in float32 is, where filters are made on every edge."""
    if dtype != torch.float32:
        pytest.skip("nothing to compare float64 with")
    structures = [make_structure("crystal", seed=k) for k in range(3)]
    for atoms in structures:
        atoms.rattle(0.15, seed=1)
    graph = batch_graphs([graph_from_atoms(atoms, 4.0) for atoms in structures])
    for basis in ("gaussian", "bessel"):
        sizes = {"n_features": 64, "n_interactions": 3, "radial_basis": basis_of(architecture, basis)}
        potential = make_potential(architecture, dtype=dtype, **sizes)
        exact = EagerEngine(copy.deepcopy(potential).double())(graph).forces
        ours, rounded = ((E(potential)(graph).forces - exact).abs() for E in (NativeEngine, EagerEngine))
        assert ours.square().mean().sqrt() <= 3.0 * rounded.square().mean().sqrt()
        assert ours.max() <= 4.0 * rounded.max()
