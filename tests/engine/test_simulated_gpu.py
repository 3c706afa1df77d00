"""Every architecture on a simulated GPU: no tensor of the host meets those there, and the host does not wait."""

import copy

import pytest
import torch

from asecalc_mlip.engine import CudaGraphEngine, EagerEngine
from asecalc_mlip.graph import batch_graphs, graph_from_atoms
from asecalc_mlip.models import predict
from asecalc_mlip.neighbors.batched import BatchedNeighborCache
from tests.cases import DIRECTS, PHYSICAL, make_potential, make_structure
from tests.simulated_gpu import OnGPU, replayed, simulated_gpu

# Those whose energies and forces let the host wait at each call, and for what; they run eagerly, not as CUDA graphs.
WAITING = {"m3gnet": ["aten.nonzero.default"], "sum": ["aten.nonzero.default"] * 2}


def batch(potential):
    pair = [graph_from_atoms(make_structure(name), potential.cutoff) for name in ("crystal", "skewed")]
    return batch_graphs(pair)


def test_tensors_of_the_host_are_refused():
    with simulated_gpu() as waits:
        there = torch.ones(3, device="cuda")
        assert there.device.type == "cuda" and (2 * there + torch.tensor(1.0)).is_cuda and not waits
        for wrong in (
            lambda: there + torch.ones(3),
            lambda: there.index_select(0, torch.tensor([1])),
            lambda: torch.stack([there.sum(), torch.tensor(1.0)]),
            lambda: torch._foreach_lerp_([torch.ones(3)], [there], 0.5),
            lambda: torch.ones(3)[there.long()],
        ):
            with pytest.raises(RuntimeError, match="of the host"):
                wrong()
        with pytest.raises(TypeError):
            there.numpy()
        assert there.cpu().tolist() == [1.0, 1.0, 1.0] and float(there[0]) == 1.0 and len(waits) == 2


@pytest.mark.parametrize("architecture", [*PHYSICAL, *DIRECTS])
def test_energies_forces_and_stress(architecture):
    potential = make_potential(architecture, dtype=torch.float32)
    graph, stress = batch(potential), not potential.direct_forces
    expected = EagerEngine(potential)(graph, stress=stress)
    with simulated_gpu() as waits:
        there = copy.deepcopy(potential).to("cuda")
        assert there.lone_atoms().is_cuda
        engine, given = EagerEngine(there), graph.to(torch.device("cuda"))
        engine(given, stress=stress)
        waits.clear()
        found = engine(given, stress=stress)
        assert waits == WAITING.get(architecture, [])
        if architecture not in {*WAITING, *DIRECTS}:
            engine = CudaGraphEngine(there, capture=False)
            engine(given, stress=True)
            waits.clear()
            captured = engine(given, stress=True)
            assert not waits and torch.allclose(captured.forces.cpu(), expected.forces, atol=1e-4)
    for name in ("energy", "forces", "stress") if stress else ("energy", "forces"):
        ours, reference = getattr(found, name), getattr(expected, name)
        assert isinstance(ours, OnGPU) and torch.allclose(ours.held, reference, rtol=1e-5, atol=1e-5)


def test_a_capture_runs_nothing_and_refuses_what_waits():
    with simulated_gpu():
        graph, place = torch.cuda.CUDAGraph(), torch.ones(3, device="cuda")
        with torch.cuda.graph(graph):
            place += 1.0
            doubled = 2.0 * place
        assert place.tolist() == [1.0] * 3
        place.fill_(2.0)
        graph.replay()
        assert place.tolist() == [3.0] * 3 and doubled.tolist() == [6.0] * 3
        for wrong in (lambda: float(place[0]), lambda: place.nonzero(), lambda: torch.tensor([1.0], device="cuda")):
            with pytest.raises(RuntimeError, match="not permitted when stream is capturing"), torch.cuda.graph(graph):
                wrong()


@pytest.mark.parametrize("architecture", ["schnet", "painn", "tensornet", "escn"])
def test_captures_replay_other_positions_lists_and_sizes(architecture):
    """What a captured call took from elsewhere than from its buffers would stay as it was."""
    potential = make_potential(architecture, dtype=torch.float32)
    first, cutoff = make_structure("crystal"), potential.cutoff
    moved, smaller = first.copy(), first.copy()
    moved.positions[0] += 0.1
    smaller.set_cell(1.02 * first.cell, scale_atoms=True)
    with simulated_gpu():
        engine, replays = CudaGraphEngine(copy.deepcopy(potential).to("cuda")), []
        for atoms in (first, first, moved, smaller):
            graph, before = graph_from_atoms(atoms, cutoff), replayed()
            found = engine(graph.to(torch.device("cuda")), stress=True)
            replays.append(replayed() - before)
            right = EagerEngine(potential)(graph, stress=True)
            for name in ("energy", "forces", "stress"):
                ours, theirs = getattr(found, name).cpu(), getattr(right, name)
                assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5), name
    # The first call of a size makes no capture; the second makes one, and compares it.
    assert replays == [0, 2, 1, 1]


@pytest.mark.parametrize(
    "architecture, options",
    [
        ("escn", {"l_max": 3, "m_max": 2}),
        ("escn-direct", {"envelope": "none", "grid": "published"}),
        ("equiformer_v2", {"m_max": 2, "norm": "rms", "feed_forward": "activation"}),
        ("m3gnet", {"radial_basis": "spherical_bessel"}),
        ("tensornet", {"radial_basis": "smooth_bessel"}),
    ],
)
def test_other_forms_wait_no_more(architecture, options):
    potential = make_potential(architecture, dtype=torch.float32, **options)
    graph, expected = batch(potential), predict(potential, batch(potential))
    with simulated_gpu() as waits:
        there, given = copy.deepcopy(potential).to("cuda"), graph.to(torch.device("cuda"))
        predict(there, given)
        waits.clear()
        found = predict(there, given)
        assert waits == WAITING.get(architecture, [])
    assert torch.allclose(found.forces.held, expected.forces, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", [*PHYSICAL, *DIRECTS])
def test_a_step_of_training(architecture):
    graph = batch(make_potential(architecture))
    with simulated_gpu():
        potential = make_potential(architecture, dtype=torch.float32, trainable=True).train().to("cuda")
        given = graph.to(torch.device("cuda"))
        result = predict(potential, given, create_graph=True, stress=not potential.direct_forces)
        loss = (result.energy / given.counts()).square().mean() + result.forces.square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(potential.parameters(), 1.0)
        # What an optimiser does, which would import torch's compiler.
        gradients = [p.grad for p in potential.parameters() if p.grad is not None]
        torch._foreach_add_([p.detach() for p in potential.parameters() if p.grad is not None], gradients, alpha=-1e-3)
        assert loss.isfinite() and gradients


@pytest.mark.parametrize("where", ["host", "device"])
def test_a_list_that_holds_costs_one_wait(where):
    """The directions that are periodic are not copied at each step, wherever they are; torch-sim has them there."""
    graph, pbc, cache = batch(make_potential("schnet")), torch.ones(3, dtype=torch.bool), BatchedNeighborCache(4.0, 0.5)
    with simulated_gpu() as waits:
        graph, pbc = graph.to(torch.device("cuda")), pbc.to("cuda") if where == "device" else pbc
        lists = [cache.graph(graph.numbers, graph.positions, graph.cell, graph.batch, pbc)]
        for _ in range(2):
            waits.clear()
            moved = graph.positions + 0.01
            lists.append(cache.graph(graph.numbers, moved, graph.cell, graph.batch, pbc))
            assert len(waits) == 1 and lists[-1].centers is lists[0].centers
        # Other directions are seen, and need a new list.
        pbc[2] = False
        assert cache.graph(graph.numbers, graph.positions, graph.cell, graph.batch, pbc).n_edges < lists[0].n_edges
    assert cache.builds == 4
