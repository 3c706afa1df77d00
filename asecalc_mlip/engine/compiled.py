"""Forward and backward pass of a network traced together and compiled by AOTInductor, once per machine.

The program takes the weights as inputs, so that one build serves every model of the same sizes, and any number of
atoms and edges. It serves models that the native engine, which is faster, does not run. On one core, against eager with
native messages, SchNet ran 1.3 (512 atoms) to 2.2 (aspirin) times as fast; PaiNN 2.2 times for aspirin, but 0.7 times
for 512 atoms, and 2.7 to 4 times against plain torch (benchmarks/speed/engines.py). Compiling takes half a minute and a
C++ compiler.
"""

from __future__ import annotations

import inspect
import logging
import sys
import time
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asecalc_mlip._version import __version__
from asecalc_mlip.digests import digest_of
from asecalc_mlip.engine import cache, edges
from asecalc_mlip.engine.base import Engine, EngineName
from asecalc_mlip.engine.edges import assemble, energies_and_gradient
from asecalc_mlip.engine.estimate import autograd_bytes
from asecalc_mlip.engine.padding import pad_graph
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.kernels import library, plain, plain_tensor
from asecalc_mlip.models import layers, radial
from asecalc_mlip.models.potential import Potential, Prediction

__all__ = ["CompiledEngine", "CompilerError", "compiled_or_other"]

_log = logging.getLogger("asecalc_mlip")

Program = Callable[[list[Tensor]], list[Tensor]]


class CompilerError(RuntimeError):
    """A program that could not be compiled or loaded; the message says why."""


class CompiledEngine:
    """Runs a potential by a compiled program, from the cache of this machine or built now.

    Parameters
    ----------
    potential : Potential
        One for which `why_not` is None.
    otherwise : callable, optional
        Potential → engine, for a copy where the program cannot be had; default: the error.

    Raises
    ------
    CompilerError
        Where there is no program for it yet and the compiler fails, or the program does not load.
    CacheError
        Where the cache folder cannot be used.
    """

    name: EngineName = "compiled"
    holds_edges = True
    keeps_buffer = False

    def __init__(self, potential: Potential, otherwise: Callable[[Potential], Engine] | None = None):
        self.potential = potential
        self._otherwise = otherwise
        self._weights = [tensor.detach().contiguous() for tensor in potential.network.state_dict().values()]
        path = cache.fetch(*_key(potential))
        if path is None:
            path = cache.store(*_key(potential), lambda target: _build(potential, target))
        self._program = _load(path, potential.e0.device)
        lone = potential.lone_graph()
        self._alone = potential.by_number(lone, self._run(lone, lone.vectors())[0])

    @staticmethod
    def why_not(potential: Potential) -> str | None:
        """Reason why this engine cannot run a potential, or None where it can."""
        return "its forces are no derivative of its energy" if potential.direct_forces else None

    @staticmethod
    def is_cached(potential: Potential) -> bool:
        """Whether the program for a potential is there, so that no compiler is needed."""
        try:
            return CompiledEngine.why_not(potential) is None and cache.fetch(*_key(potential)) is not None
        except cache.CacheError:
            return False

    @staticmethod
    def pays(potential: Potential) -> bool:
        """Whether it is faster than the eager engine at every size, as any is where messages are not native."""
        return potential.network.traits.compiling_pays or library.native_library() is None

    def __call__(self, graph: AtomGraph, *, forces: bool = True, stress: bool = False) -> Prediction:
        """See `asecalc_mlip.engine.base.Engine`."""
        vectors = graph.vectors()
        raw, gradient = self._run(graph, vectors)
        return assemble(self.potential, self._alone, graph, vectors, raw, gradient, forces=forces, stress=stress)

    def __reduce__(self) -> tuple:
        # A program in memory cannot be copied; the copy loads it anew, or runs without where that fails.
        return compiled_or_other, (self.potential, self._otherwise)

    def bytes_needed(self, n_atoms: int, n_edges: int) -> float:
        """Memory that a call takes beyond the graph itself."""
        return autograd_bytes(self.potential, n_atoms, n_edges, native=False)

    def describe(self) -> str:
        """Name the engine in a few words."""
        return f"compiled {self.potential.architecture} (AOTInductor)"

    def _run(self, graph: AtomGraph, vectors: Tensor) -> tuple[Tensor, Tensor]:
        # The compiler takes sizes of 0 and 1 for constants, so a program knows at least two of everything.
        padded = graph
        if min(graph.n_atoms, graph.n_edges) < 2:
            padded = pad_graph(graph, graph.n_atoms + 2, max(2, graph.n_edges), far=2.0 * self.potential.cutoff)
            vectors = padded.vectors()
        inputs = [padded.numbers, vectors.contiguous(), padded.centers, padded.neighbors, *self._weights]
        with torch.no_grad():
            raw, gradient = self._program(inputs)
        return raw[: graph.n_atoms], gradient[: graph.n_edges]


def compiled_or_other(potential: Potential, otherwise: Callable[[Potential], Engine] | None) -> Engine:
    """Return the compiled engine, or where it cannot be had another one, with a warning.

    Warns
    -----
    UserWarning
        For want of a compiler or of a cache folder.
    """
    try:
        return CompiledEngine(potential, otherwise)
    except (cache.CacheError, CompilerError) as error:
        if otherwise is None:
            raise
        other = otherwise(potential)
        warnings.warn(f"the compiled engine cannot be used: {error}. Runs instead: {other.describe()}", stacklevel=4)
        return other


def _key(potential: Potential) -> tuple[str, dict[str, Any]]:
    """First part of the file's name, and all that the program depends on; the weights' values have no part in it."""
    device = potential.e0.device
    key = {
        "architecture": potential.architecture,
        "hyperparameters": potential.hyperparameters,
        "weights": [(name, list(tensor.shape)) for name, tensor in potential.network.state_dict().items()],
        "dtype": str(potential.dtype),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cache.machine(),
        "torch": torch.__version__,
        "version": __version__,
        "code": _code(*sorted({type(module).__module__ for module in potential.network.modules()})),
    }
    return f"{potential.architecture}-{str(potential.dtype).removeprefix('torch.')}-{device.type}", key


@lru_cache
def _code(*names: str) -> str:
    """Hash of the sources that are traced, so that a program of an older version is not found. Read once.

    Parameters
    ----------
    *names : str
        Modules of the network and its parts; of those, our own.
    """
    modules = [sys.modules[name] for name in names if name.startswith("asecalc_mlip.")]
    modules += [layers, radial, plain, plain_tensor, edges, sys.modules[__name__]]
    return digest_of(inspect.getsource(module) for module in modules)


def _build(potential: Potential, target: Path) -> None:
    """Compile the program of a potential into a file, and say so: it takes long, once."""
    folder = target.parent.parent
    _log.warning(
        "compiling %s for this machine, about half a minute, once (kept in %s)", potential.architecture, folder
    )
    start = time.perf_counter()
    with warnings.catch_warnings():
        # Deprecations inside the compiler are of no use to the user of a model.
        warnings.simplefilter("ignore")
        try:
            exported = _exported(potential)
            torch._inductor.aoti_compile_and_package(
                exported,
                package_path=str(target),
                inductor_configs=_options(),
            )
        except Exception as error:
            raise CompilerError(f"{type(error).__name__}: {_first_line(error)}") from error
    _log.warning("compiled in %.0f s", time.perf_counter() - start)


def _options() -> dict[str, Any]:
    from torch._inductor import config

    # One thread in the loops over edges: several would sum by atomic operations, four times slower.
    options: dict[str, Any] = {"cpp.threads": 1}
    if hasattr(config.aot_inductor, "compile_wrapper_opt_level"):
        # The code that calls the loops one after another is long and takes no time.
        options["aot_inductor.compile_wrapper_opt_level"] = "O0"
    if hasattr(config.aot_inductor, "precompile_headers"):
        # Two files of 160 MB, kept for each Python environment, which take longer to make than one program saves.
        options["aot_inductor.precompile_headers"] = False
    return options


def _exported(potential: Potential) -> Any:
    from torch.export import Dim, export
    from torch.fx.experimental.proxy_tensor import make_fx

    network, names = potential.network, list(potential.network.state_dict())

    def program(numbers: Tensor, vectors: Tensor, centers: Tensor, neighbors: Tensor, weights: list[Tensor]):
        named = dict(zip(names, weights, strict=True))
        return energies_and_gradient(network, numbers, vectors, centers, neighbors, named)

    inputs = _example(potential)
    traced = make_fx(program, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*inputs)
    n_atoms, n_edges = (Dim(name, min=2, max=2**31 - 1) for name in ("n_atoms", "n_edges"))
    shapes: Any = ({0: n_atoms}, {0: n_edges}, {0: n_edges}, {0: n_edges}, [{} for _ in names])
    return export(_Module(traced), inputs, dynamic_shapes=shapes, strict=False)


class _Module(torch.nn.Module):
    """A module with named arguments, as export takes it."""

    def __init__(self, traced: Callable):
        super().__init__()
        self.traced = traced

    def forward(self, numbers: Tensor, vectors: Tensor, centers: Tensor, neighbors: Tensor, weights: list[Tensor]):
        return self.traced(numbers, vectors, centers, neighbors, weights)


def _example(potential: Potential) -> tuple[Tensor, Tensor, Tensor, Tensor, list[Tensor]]:
    """Make inputs to trace with, of sizes that no weight has: equal sizes would be taken for the same variable."""
    device = potential.e0.device
    weights = [tensor.detach() for tensor in potential.network.state_dict().values()]
    taken = {multiple * size for tensor in weights for size in tensor.shape for multiple in (1, 2, 3)}
    n_atoms = next(n for n in range(7, 10_000) if n not in taken)
    n_edges = next(n for n in range(3 * n_atoms, 100_000) if n not in taken)
    numbers = torch.tensor(potential.elements, device=device).repeat(n_atoms)[:n_atoms].clone()
    vectors = torch.linspace(-1.0, 1.0, 3 * n_edges, dtype=torch.float64, device=device).reshape(n_edges, 3) + 0.1
    centers = (torch.arange(n_edges, device=device) * n_atoms) // n_edges
    return numbers, vectors, centers, (centers + 1) % n_atoms, weights


def _load(path: Path, device: torch.device) -> Program:
    try:
        return _opened(path, -1 if device.index is None else device.index)
    except Exception as error:
        raise CompilerError(f"{path} does not load: {_first_line(error)}") from error


def _opened(path: Path, device_index: int) -> Program:
    try:
        # The loader itself: its wrapper imports the whole compiler, two seconds that a first step would wait.
        return torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, device_index).run
    except (AttributeError, TypeError):
        # It is torch's own affair, and other versions have one with other arguments.
        package = torch._inductor.aoti_load_package(str(path))
        return lambda inputs: package(*inputs[:4], inputs[4:])


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else "no message"
