"""CGCNN and TorchMD-ET where no native engine serves: files, engines, memory and gradients for training."""

import pytest
import torch

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.checkpoint import load
from asecalc_mlip.engine import CudaGraphEngine, EagerEngine, NativeEngine, make_engine
from asecalc_mlip.engine.chunked import ChunkedEngine
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.models import ARCHITECTURES, build_potential, predict
from tests.cases import E0, STRUCTURES, make_potential, make_structure, model_file

pytestmark = pytest.mark.parametrize("architecture", ["cgcnn", "torchmd_et"])


def graph_of(*structures):
    return graph_from_atoms([make_structure(name) for name in structures], 4.0)


def test_file_and_calculator(architecture, tmp_path):
    path = model_file(tmp_path, architecture)
    graph, potential = graph_of("crystal"), make_potential(architecture, dtype=torch.float32)
    assert torch.equal(predict(load(path).potential, graph).forces, predict(potential, graph).forces)
    atoms = make_structure("crystal")
    for dtype in ("float32", "float64"):
        atoms.calc = PIWSLCalculator.load(path, dtype=dtype, device="cpu")
        assert isinstance(atoms.calc.engine.engine, EagerEngine)
        assert atoms.get_potential_energy() == pytest.approx(predict(potential, graph).energy.item(), abs=1e-4)
        assert abs(atoms.get_stress()).max() > 0
    assert "no kernel" in NativeEngine.why_not(potential)


@pytest.mark.parametrize("engine", ["chunked", "padded"])
def test_other_engines_say_the_same(architecture, engine):
    potential = make_potential(architecture)
    if engine == "chunked":
        other = ChunkedEngine(potential, edges_per_piece=37)
    else:
        other = CudaGraphEngine(potential, capture=False)
    for graph in (graph_of(*STRUCTURES), graph_of("molecule")):
        expected, found = make_engine(potential, "eager")(graph, stress=True), other(graph, stress=True)
        for name in ("energies", "forces", "stress"):
            one, two = getattr(expected, name), getattr(found, name)
            assert torch.allclose(one, two, atol=1e-9, rtol=1e-13, equal_nan=True), name


def test_can_be_traced_with_any_sizes(architecture):
    from asecalc_mlip.engine.compiled import _exported

    potential = make_potential(architecture, n_interactions=2)
    program = _exported(potential).module()
    weights = [tensor.detach() for tensor in potential.network.state_dict().values()]
    graph = graph_of("slab")
    energies, _ = program(graph.numbers, graph.vectors(), graph.centers, graph.neighbors, weights)
    assert torch.allclose(energies, potential.network(graph), atol=1e-12)


def test_force_gradients_in_the_weights_are_exact(architecture):
    potential, graph = make_potential(architecture, trainable=True), graph_of("crystal", "molecule")
    parameters = list(potential.parameters())

    def loss(create_graph=False):
        return predict(potential, graph, create_graph=create_graph).forces.square().sum()

    gradients = torch.autograd.grad(loss(True), parameters, allow_unused=True)
    directions, h, values = [torch.randn_like(p) for p in parameters], 1e-5, []
    expected = sum((g * d).sum().item() for g, d in zip(gradients, directions, strict=True) if g is not None)
    for step in (h, -h):
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter += step * direction
            values.append(loss().item())
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter -= step * direction
    assert expected == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-6)
    unused = [name for (name, _), g in zip(potential.named_parameters(), gradients, strict=True) if g is None]
    # The vectors are zero before the first layer; TorchMD-NET has these weights too.
    assert unused == {"cgcnn": ["network.readout.2.bias"]}.get(
        architecture, ["network.layers.0.channels.weight", "network.readout.2.bias"]
    )


def test_memory_is_estimated_with_the_defaults_of_the_architecture(architecture):
    cls = ARCHITECTURES[architecture]
    defaults = {**cls.__init__.__kwdefaults__, "n_features": cls().embedding.embedding_dim}
    given, silent = (
        build_potential(architecture, sizes, reference_energies=E0) for sizes in ({**defaults, "cutoff": 5.0}, {})
    )
    needed = EagerEngine(silent).bytes_needed(1000, 40_000)
    assert needed == EagerEngine(given).bytes_needed(1000, 40_000)
    words = 4 * defaults["n_features"] * defaults["n_interactions"] * 40_000
    assert 10 * words < needed < 30 * words
