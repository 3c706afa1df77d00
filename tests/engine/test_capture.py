"""What a CUDA graph records, looked at without a GPU: nothing waits, nothing comes from the host, on one stream."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from asecalc_mlip import checkpoint, zoo
from asecalc_mlip.engine import CudaGraphEngine, cuda_graph
from asecalc_mlip.engine.padding import pad_graph
from asecalc_mlip.engine.precision import arithmetic
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.kernels import plain_kernels
from tests.cases import make_potential, make_structure

# A sum with a TensorNet, a core and a cohesion, whose parts have cutoffs of their own.
MODELS = ["painn", "schnet", "tensornet", "toluene.pt"]
# On a GPU the host waits for the result of these, or makes a tensor of its own numbers and copies it.
WAITS = (
    "_local_scalar_dense",
    "nonzero",
    "equal.",
    "masked_select",
    "_unique",
    "repeat_interleave.Tensor",
    "lift_fresh",
)


class Watched(TorchDispatchMode):
    """Refuses operations that wait, and tensors that come from elsewhere than those which go to a GPU."""

    def __init__(self, known):
        super().__init__()
        self.known = {one.untyped_storage()._cdata for one in known}

    @classmethod
    def _should_skip_dynamo(cls):
        """Say no, as otherwise torch imports its compiler, for seconds."""
        return False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert not any(name in str(function) for name in WAITS), f"the host waits for {function}"
        # Numbers come as tensors without dimensions.
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor) and one.dim()]
        strange = [one for one in given if one.numel() and one.untyped_storage()._cdata not in self.known]
        assert not strange, f"{function} takes a tensor of the host"
        made = function(*args, **(kwargs or {}))
        self.known |= {one.untyped_storage()._cdata for one in tree_leaves(made) if isinstance(one, torch.Tensor)}
        return made


@pytest.mark.parametrize("model", MODELS)
def test_nothing_waits_for_the_host(model):
    """With forces and stress, and of energies alone, for which a sum must not look which edges a part needs."""
    if model.endswith(".pt"):
        potential = checkpoint.load(zoo.find(model)).potential.eval().requires_grad_(False)
        atoms = zoo.structure(model.partition(".")[0])
    else:
        potential, atoms = make_potential(model, dtype=torch.float32), make_structure("crystal")
    graph = graph_from_atoms(atoms, potential.cutoff)
    graph = pad_graph(graph, graph.n_atoms + 4, graph.n_edges + 8, far=2 * potential.cutoff)
    engine = CudaGraphEngine(potential, capture=False)
    there = [one for one in vars(graph).values() if isinstance(one, torch.Tensor)]
    there += [engine._alone, *potential.parameters(), *potential.buffers()]
    for wanted in ({"forces": True, "stress": True}, {"forces": False, "stress": False}):
        with plain_kernels(), Watched(there):
            found = engine._evaluate(graph, **wanted)
        assert (found.forces is not None) == wanted["forces"]


@pytest.fixture
def cuda(monkeypatch):
    """Stand for torch.cuda, with a list of what happened."""
    events = []

    @contextmanager
    def within(name, *given):
        events.append((name, *given))
        yield
        events.append((f"{name} ends",))

    class Stream:
        def wait_stream(self, other):
            """Do nothing."""

    module = SimpleNamespace(
        device=lambda device: within("device", device),
        Stream=Stream,
        current_stream=Stream,
        stream=lambda stream: within("stream", stream),
        CUDAGraph=lambda: SimpleNamespace(replay=lambda: events.append(("replay",))),
        graph=lambda recorded, stream: within("capture", stream),
        get_sync_debug_mode=lambda: 0,
        set_sync_debug_mode=lambda mode: events.append(("waits", mode)),
        events=events,
    )
    monkeypatch.setattr(torch, "cuda", module)
    return module


def test_a_call_that_waits_is_found_before_the_capture(cuda):
    """A capture that fails spoils the random numbers of the process; one call before it raises where the host waits."""
    device = torch.device("cuda", 1)
    replay = cuda_graph._captured(lambda: cuda.events.append(("call",)), device)
    stream = cuda.events[1][1]
    # Recorded on the stream of the calls before it, which is of this device.
    assert cuda.events == [
        *[("device", device), ("stream", stream), ("call",), ("call",)],
        *[("waits", "error"), ("call",), ("waits", 0), ("stream ends",)],
        *[("capture", stream), ("call",), ("capture ends",), ("device ends",)],
    ]
    replay()
    assert cuda.events[-2] == ("replay",)

    def waits():
        if ("waits", "error") in cuda.events:
            raise RuntimeError("called a synchronizing CUDA operation")

    cuda.events.clear()
    with pytest.raises(RuntimeError, match="synchronizing"):
        cuda_graph._captured(waits, device)
    assert ("waits", 0) in cuda.events and "capture" not in [name for name, *_ in cuda.events]


def test_triton_launches_to_the_device_of_the_model(cuda):
    """It takes the current one, whatever the tensors are on."""
    device = torch.device("cuda", 1)
    with arithmetic("float32", device):
        assert cuda.events == [("device", device)]
    assert cuda.events[-1] == ("device ends",)
