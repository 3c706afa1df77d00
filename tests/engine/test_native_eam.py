"""The native EAM against autograd: structures, cores, densities, numbers of exponentials, and who runs what."""

import pytest
import torch
from ase import Atoms

from asecalc_mlip.engine import EagerEngine, NativeEngine, make_engine
from asecalc_mlip.engine.summed import SumEngine
from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import batch_graphs, graph_from_atoms
from asecalc_mlip.kernels import native_library
from asecalc_mlip.models import add_potentials, core_potential
from tests.cases import E0, STRUCTURES, make_potential, make_structure
from tests.engine.test_native import assert_same_on_any_number_of_threads

pytestmark = pytest.mark.skipif(native_library() is None, reason="the native library was not built")
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}


def compare(potential, graph, *, stress):
    ours, reference = (E(potential)(graph, stress=stress) for E in (NativeEngine, EagerEngine))
    tolerance = TOLERANCE[potential.dtype]
    scale = max(1.0, reference.forces.abs().max().item())
    assert (ours.energies - reference.energies).abs().max() <= tolerance * scale
    assert (ours.forces - reference.forces).abs().max() <= tolerance * scale
    if stress:
        assert torch.allclose(ours.stress, reference.stress, atol=tolerance * scale, rtol=tolerance, equal_nan=True)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("core", [None, "zbl"])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_structures(structure, core, dtype):
    atoms = make_structure(structure)
    # Close enough for the core, which ends at 0.8 of the sum of two covalent radii.
    for share in (1.0, 0.6):
        atoms.set_cell(atoms.cell * share, scale_atoms=False)
        atoms.positions *= share
        compare(
            make_potential("eam", dtype=dtype, core=core),
            graph_from_atoms(atoms, 4.0),
            stress=bool(atoms.pbc.all()),
        )


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("options", [{"n_exponentials": n} for n in (1, 8, 17, 40)] + [{"density": False}])
def test_densities(options, dtype):
    graph = graph_from_atoms(make_structure("crystal"), 4.0)
    compare(make_potential("eam", dtype=dtype, **options), graph, stress=True)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_batches_pairs_and_lone_atoms(dtype):
    structures = [make_structure(name, seed=k) for k, name in enumerate(STRUCTURES)] + [Atoms("Si"), Atoms("H")]
    for distance in (0.15, 0.5, 1.2, 2.64, 3.999, 4.0, 4.1):
        structures.append(Atoms("CO", [[0, 0, 0], [0, 0.6 * distance, 0.8 * distance]]))
    graph = batch_graphs([graph_from_atoms(atoms, 4.0) for atoms in structures])
    potential = make_potential("eam", dtype=dtype, core="zbl")
    compare(potential, graph, stress=True)
    alone = NativeEngine(potential)(graph_from_atoms(Atoms("Si"), 4.0))
    assert alone.energy.item() == -7000.0 and not alone.forces.any()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_core_alone(structure, dtype):
    atoms = make_structure(structure)
    for share in (1.0, 0.6):
        atoms.set_cell(atoms.cell * share, scale_atoms=False)
        atoms.positions *= share
        potential = core_potential(E0).to(dtype)
        # Edges beyond its own cutoff, as a sum gives it, change nothing.
        compare(potential, graph_from_atoms(atoms, potential.cutoff + 1.0), stress=bool(atoms.pbc.all()))
    assert NativeEngine(potential)(graph_from_atoms(atoms, potential.cutoff)).energy.item() > 1.0


def test_threads_change_nothing():
    graph = graph_from_atoms(make_structure("crystal") * (6, 6, 6), 4.0)
    assert graph.n_edges > 10_000
    assert_same_on_any_number_of_threads(NativeEngine(make_potential("eam", core="zbl")), graph)


def test_who_runs_what():
    eam, painn = make_potential("eam", core="zbl"), make_potential("painn")
    assert type(make_engine(eam)) is NativeEngine
    both = make_engine(add_potentials([painn, eam], reference_energies=E0))
    assert type(both) is SumEngine and [type(engine) for engine in both.engines] == [NativeEngine, NativeEngine]
    cored = make_engine(add_potentials([painn, core_potential(E0)], reference_energies=E0))
    assert [type(engine) for engine in cored.engines] == [NativeEngine, NativeEngine]


def test_elements_without_parameters():
    # Reference energies may name more than the parameters do: refused by name, as autograd does.
    with pytest.raises(InputError, match="no parameters for C, H"):
        NativeEngine(make_potential("eam", elements=["Si", "O"]))
    # Calculators look first; who calls an engine itself gets NaN, not numbers.
    engine = NativeEngine(make_potential("eam"))
    found = engine(graph_from_atoms(Atoms("CNO", [[0, 0, 0], [1.2, 0, 0], [0, 1.2, 0]]), 4.0))
    assert torch.isnan(found.energy).all() and torch.isnan(found.forces).any()
