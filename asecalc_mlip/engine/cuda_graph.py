"""Forward and backward pass as CUDA graphs: one launch instead of hundreds, for small systems on a GPU.

A captured graph has fixed sizes and fixed addresses. Structures are therefore padded to a few sizes (see padding.py)
and copied into buffers that stay; as long as the neighbour list is the same, only positions are. It needs no compiler.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields

import torch
from torch import Tensor, nn

from asecalc_mlip.engine.base import Engine, EngineName
from asecalc_mlip.engine.eager import EagerEngine
from asecalc_mlip.engine.edges import assemble, energies_and_gradient, with_vectors
from asecalc_mlip.engine.estimate import autograd_bytes
from asecalc_mlip.engine.padding import bucket, pad_graph
from asecalc_mlip.engine.precision import Precision, arithmetic
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.models.potential import Potential, Prediction

__all__ = ["CudaGraphEngine"]

# Each holds the memory of one evaluation.
MOST_BUCKETS = 4
# Beyond, a GPU is busy with the arithmetic and the launches no longer count.
MOST_EDGES = 200_000
# Share of a kept bucket that may be padding before a smaller one is made.
MOST_PADDING = 0.3

Key = tuple[int, bool, bool, bool]


class CudaGraphEngine:
    """Replays the evaluation of a potential on a GPU; sizes seen for the first time, and large ones, run eagerly.

    No part of this has run on a GPU yet: padding, buffers and replays are tested on the CPU, by captures of the
    tests' own, and neither speed nor the errors of "tf32" and "bf16" were measured there. On the CPU, bf16 autocast
    changed the forces of aspirin_painn.pt by 0.6 % rms and its energy by 14 meV (benchmarks/speed/engines.py); tf32 has
    3 more bits.

    Parameters
    ----------
    potential : Potential
        One for which `why_not` is None.
    precision : {"float32", "tf32", "bf16"}
        Of matrix products.
    capture : bool
        False runs the same padded evaluation without a graph, on any device; for tests.
    network : callable, optional
        EdgeGraph → (N,), in place of the network of the potential.
    plain : Engine, optional
        The engine of sizes that are not captured; default: eager.
    """

    name: EngineName = "cuda-graph"
    holds_edges = True
    keeps_buffer = False

    def __init__(
        self,
        potential: Potential,
        *,
        precision: Precision = "float32",
        capture: bool = True,
        network: nn.Module | None = None,
        plain: Engine | None = None,
    ):
        self.potential = potential
        self.precision: Precision = precision
        self._device = potential.e0.device
        self._capture = capture
        self._network = potential.network if network is None else network
        self._eager: Engine = EagerEngine(potential, precision=precision) if plain is None else plain
        self._buckets: OrderedDict[tuple[Key, int, int], _Bucket] = OrderedDict()
        self._seen: set[tuple[Key, int, int]] = set()
        self._broken = False
        # A bucket has one set of buffers.
        self._lock = threading.Lock()
        lone = potential.lone_graph()
        with arithmetic(precision, self._device):
            raw, _ = energies_and_gradient(self._network, lone.numbers, lone.vectors(), lone.centers, lone.neighbors)
        self._alone = potential.by_number(lone, raw)

    @staticmethod
    def why_not(potential: Potential) -> str | None:
        """Reason why this engine cannot run a potential, or None where it can."""
        if potential.e0.device.type != "cuda":
            return f"it runs on a GPU, and the model is on {potential.e0.device}"
        return (
            "it takes forces from the energy, and this model has a head for them" if potential.direct_forces else None
        )

    def __call__(self, graph: AtomGraph, *, forces: bool = True, stress: bool = False) -> Prediction:
        """See `asecalc_mlip.engine.base.Engine`."""
        small = graph.n_edges <= MOST_EDGES and not self._broken
        with self._lock:
            place = self._bucket(graph, forces, stress) if small else None
            if place is not None:
                return place(graph)
        return self._eager(graph, forces=forces, stress=stress)

    def __reduce__(self) -> tuple:
        # Captured graphs cannot be copied; a copy captures its own.
        return _remake, (self.potential, self.precision, self._capture)

    def bytes_needed(self, n_atoms: int, n_edges: int) -> float:
        """Memory that a call takes beyond the graph itself."""
        return autograd_bytes(self.potential, n_atoms, n_edges, native=False)

    def describe(self) -> str:
        """Name the engine in a few words."""
        if self._broken:
            return self._eager.describe()
        digits = "" if self.precision == "float32" else f", {self.precision}"
        return f"CUDA graphs up to {MOST_EDGES} edges, eager beyond{digits}"

    def _bucket(self, graph: AtomGraph, forces: bool, stress: bool) -> _Bucket | None:
        """Return a kept bucket that fits, a new one, or None for a size that may not come again or is not captured."""
        key = (graph.n_structures, graph.is_periodic, forces, stress)
        for name, kept in self._buckets.items():
            if name[0] == key and kept.fits(graph):
                self._buckets.move_to_end(name)
                return kept
        name = (key, bucket(graph.n_atoms + 2, 16), _room_for(graph.n_edges))
        if self._capture and name not in self._seen:
            self._seen.add(name)
            return None
        return self._keep(name, graph)

    def _keep(self, name: tuple[Key, int, int], graph: AtomGraph) -> _Bucket | None:
        try:
            made = self._made(name, graph)
        except torch.OutOfMemoryError:
            # The caller may have room for less at once.
            self._buckets.clear()
            return None
        except RuntimeError as error:
            self._give_up(error)
            return None
        self._buckets[name] = made
        if len(self._buckets) > MOST_BUCKETS:
            self._buckets.popitem(last=False)
        return made

    def _made(self, name: tuple[Key, int, int], graph: AtomGraph) -> _Bucket:
        (_, _, forces, stress), n_atoms, n_edges = name
        far = 2.0 * self.potential.cutoff
        static = pad_graph(graph, n_atoms, n_edges, far=far)

        def evaluate() -> Prediction:
            with arithmetic(self.precision, self._device):
                return self._evaluate(static, forces, stress)

        made = _Bucket(static, far, _captured(evaluate, self._device) if self._capture else evaluate)
        # Cheap against the capture, and a replay that is wrong would not show otherwise.
        if not _agree(made(graph), self._eager(graph, forces=forces, stress=stress), self.precision):
            raise RuntimeError("its results differ from those without it")
        return made

    def _evaluate(self, graph: AtomGraph, forces: bool, stress: bool) -> Prediction:
        vectors = graph.vectors()
        network = self._network
        given = graph.numbers, vectors, graph.centers, graph.neighbors
        if forces or stress:
            raw, gradient = energies_and_gradient(network, *given)
        else:
            with torch.no_grad():
                raw, gradient = network(with_vectors(*given)).double(), None
        return assemble(self.potential, self._alone, graph, vectors, raw, gradient, forces=forces, stress=stress)

    def _give_up(self, error: Exception) -> None:
        self._broken = True
        self._buckets.clear()
        reason = (str(error).splitlines() or ["no message"])[0]
        other = "eagerly" if isinstance(self._eager, EagerEngine) else "without"
        warnings.warn(f"no CUDA graph can be captured ({reason}); the model runs {other}", stacklevel=5)


class _Bucket:
    """Buffers of one size with their evaluation."""

    def __init__(self, static: AtomGraph, far: float, evaluate: Callable[[], Prediction]):
        self.static, self.far, self.evaluate = static, far, evaluate
        self._inside: AtomGraph | None = None

    def fits(self, graph: AtomGraph) -> bool:
        """Whether a graph has room here without too much padding."""
        room = self.static.n_edges
        enough = graph.n_atoms + 2 <= self.static.n_atoms and graph.n_edges <= room
        return enough and _room_for(graph.n_edges) >= (1.0 - MOST_PADDING) * room

    def __call__(self, graph: AtomGraph) -> Prediction:
        if self._inside is not None and _same_list(graph, self._inside):
            self.static.positions[: graph.n_atoms].copy_(graph.positions)
        else:
            _copy(pad_graph(graph, self.static.n_atoms, self.static.n_edges, far=self.far), self.static)
        self._inside = graph
        return _without_padding(self.evaluate(), graph)


def _room_for(n_edges: int) -> int:
    return bucket(max(n_edges, 1), 128)


def _same_list(graph: AtomGraph, other: AtomGraph) -> bool:
    """Whether two graphs differ in positions only; a Verlet list hands out the same tensors until it is made anew."""
    names = [field.name for field in fields(AtomGraph) if field.name not in ("positions", "reach")]
    return all(getattr(graph, name) is getattr(other, name) for name in names)


def _copy(graph: AtomGraph, static: AtomGraph) -> None:
    for field in fields(AtomGraph):
        target = getattr(static, field.name)
        if isinstance(target, Tensor):
            target.copy_(getattr(graph, field.name))


def _without_padding(prediction: Prediction, graph: AtomGraph) -> Prediction:
    # Copies, because the next call writes to the same place.
    atoms, structures = graph.n_atoms, graph.n_structures
    return Prediction(
        energy=prediction.energy[:structures].clone(),
        energies=prediction.energies[:atoms].clone(),
        forces=None if prediction.forces is None else prediction.forces[:atoms].clone(),
        stress=None if prediction.stress is None else prediction.stress[:structures].clone(),
    )


def _agree(one: Prediction, other: Prediction, precision: Precision) -> bool:
    """Whether two evaluations differ by no more than rounding."""
    tolerance = 0.05 if precision == "bf16" else 2e-3
    pairs = [(one.energies, other.energies), (one.forces, other.forces)]
    return all(
        b is None or torch.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
        for a, b in pairs
        if a is not None
    )


def _captured(evaluate: Callable[[], Prediction], device: torch.device) -> Callable[[], Prediction]:
    """Record an evaluation as a CUDA graph; calling the result replays it and returns the same tensors, filled anew."""
    with torch.cuda.device(device):
        # Of this device; torch.cuda.graph has one of its own, that of the device of its first capture.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            # Libraries set themselves up in their first calls, which must not be recorded.
            for _ in range(2):
                evaluate()
            with _without_waits():
                evaluate()
        torch.cuda.current_stream().wait_stream(stream)
        recorded = torch.cuda.CUDAGraph()
        with torch.cuda.graph(recorded, stream=stream):
            output = evaluate()

    def replay() -> Prediction:
        with torch.cuda.device(device):
            recorded.replay()
        return output

    return replay


@contextmanager
def _without_waits() -> Iterator[None]:
    """Raise where the host would wait for the GPU.

    Within a capture that is an error too, but one after which torch draws no random numbers on the GPU any more.
    """
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _remake(potential: Potential, precision: Precision, capture: bool) -> CudaGraphEngine:
    return CudaGraphEngine(potential, precision=precision, capture=capture)
