"""How much memory an evaluation takes, how much there is, and a refusal before the machine runs out.

Linux grants memory that it does not have and ends the process when it is used, so asking is not enough: the need is
estimated beforehand and compared with what is free, limits of containers (cgroups) included.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asecalc_mlip.engine.chunked import ChunkedEngine
from asecalc_mlip.engine.summed import SumEngine
from asecalc_mlip.errors import NotEnoughMemoryError
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.models import Potential, parts_of
from asecalc_mlip.models.sum import Sum

__all__ = ["MemoryGuard", "available_bytes", "bytes_needed", "check_list", "is_out_of_memory"]

# Numbers of the weights' dtype that autograd keeps, per block and feature: (per edge, per atom). Measured as peak
# memory of the eager engine over 64 and 128 features, 2 to 5 blocks and cutoffs of 3 to 6 Å, and rounded up.
_KEPT = {
    ("painn", "native"): (4.0, 45.0),
    ("painn", "plain"): (15.5, 50.0),
    ("schnet", "native"): (5.6, 9.0),
    ("schnet", "plain"): (7.6, 9.0),
    # Its messages have no native kernel; the engine's name says only whether there is a library.
    ("cgcnn", "native"): (11.0, 9.0),
    ("cgcnn", "plain"): (11.0, 9.0),
    ("torchmd_et", "native"): (16.0, 30.0),
    ("torchmd_et", "plain"): (26.0, 30.0),
}
# Per edge whatever the width: vectors and the radial basis with its derivatives; and for engines without autograd.
_EDGE_BYTES, _EDGE_BYTES_NATIVE = 600, 150
# Per edge while a neighbour list is made.
_LIST_BYTES = 200
# Lists of fewer atoms fit anywhere, unless the cell is absurd, which neighbors.py refuses.
_FEW_ATOMS = 10_000
# Share of the free memory that an estimate may take up: it is good to about 20 %.
_SHARE = 0.8
# Bytes; below this, reading what is free costs more than it can tell.
_SMALL = 2**27
_UNITS = "Many edges per atom may also mean a cell or positions in another unit"


def bytes_needed(engine: Any, n_atoms: int, n_edges: int) -> float:
    """Memory that an engine takes beyond the graph itself; its own `bytes_needed` if it has one."""
    own = getattr(engine, "bytes_needed", None)
    if own is not None:
        return float(own(n_atoms, n_edges)) + _EDGE_BYTES_NATIVE * n_edges
    if isinstance(engine, SumEngine):
        pairs = zip(engine.engines, engine.shares(), strict=True)
        return sum(bytes_needed(part, n_atoms, int(share * n_edges)) for part, share in pairs)
    kind = "native" if "native" in engine.describe() else "plain"
    piece = engine.edges_per_piece if isinstance(engine, ChunkedEngine) else None
    return _kept_bytes(engine.potential, kind, piece, n_atoms, n_edges) + _EDGE_BYTES * n_edges


def _kept_bytes(potential: Potential, kind: str, piece: int | None, n_atoms: int, n_edges: float) -> float:
    """What autograd keeps per edge and per atom; with `piece` it has so many edges at a time."""
    if isinstance(potential.network, Sum):
        shares = [(part.cutoff / potential.cutoff) ** 3 for part in parts_of(potential)]
        parts = zip(parts_of(potential), shares, strict=True)
        return sum(_kept_bytes(part, kind, piece, n_atoms, share * n_edges) for part, share in parts)
    n_interactions = _size(potential, "n_interactions", 3)
    words = potential.dtype.itemsize * _size(potential, "n_features", 128) * n_interactions
    # An architecture that nobody measured is taken for one of the hungry.
    per_edge, per_atom = _KEPT.get((potential.architecture, kind), _KEPT["painn", "plain"])
    # In pieces, of which one block has one at a time.
    kept = n_edges if piece is None else min(n_edges, piece / n_interactions)
    return words * (per_edge * kept + per_atom * n_atoms)


def _size(potential: Any, name: str, otherwise: int) -> int:
    """A hyper-parameter as it was given, else the default of the architecture, else `otherwise`."""
    default = inspect.signature(type(potential.network)).parameters.get(name)
    return potential.hyperparameters.get(name, otherwise if default is None else default.default)


def available_bytes(device: torch.device | str) -> float:
    """Memory that can be had now without swapping; infinity where nobody can tell."""
    device = torch.device(device)
    if device.type == "cuda":
        # What torch holds in reserve is free for torch.
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + reserve)
    return min(_free_in_machine(), _free_in_cgroups(), _free_by_limit())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or in the machine."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error)
    words = ("not enough memory", "DefaultCPUAllocator", "out of memory", "alloc_cpu")
    return isinstance(error, RuntimeError) and any(word in text for word in words)


def check_list(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, cutoff: float) -> None:
    """Before a neighbour list is made: would that of as many atoms, spread evenly, fit into memory?

    Parameters
    ----------
    positions, cell, pbc, cutoff
        As for `asecalc_mlip.neighbors.neighbor_list`.

    Raises
    ------
    NotEnoughMemoryError
        With atoms, edges per atom, the estimate, what is free, and what can be done.
    """
    n_atoms = len(positions)
    if n_atoms < _FEW_ATOMS:
        return
    volume = abs(np.linalg.det(cell)) if np.all(pbc) else np.prod(np.ptp(positions, axis=0) + cutoff)
    per_atom = n_atoms * 4.19 * cutoff**3 / max(volume, 1e-3)
    needed, free = _LIST_BYTES * n_atoms * per_atom, _SHARE * available_bytes("cpu")
    if needed > free:
        raise NotEnoughMemoryError(
            f"the neighbour list of {n_atoms:,} atoms with about {per_atom:.3g} edges per atom within {cutoff:g} Å "
            f"needs about {_gb(needed)}; {_gb(free)} can be had. Take a smaller structure, or a model with a shorter "
            f"cutoff. {_UNITS}"
        )


class MemoryGuard:
    """Refuses what would not fit, before it is tried.

    What was let through once is let through again, so that the memory which an engine keeps for the next step of the
    same dynamics does not count against it.

    Parameters
    ----------
    engine : Engine
    device : torch.device
    """

    def __init__(self, engine: Any, device: torch.device):
        self.engine, self.device = engine, device
        self._granted = 0.0
        self._in_pieces: ChunkedEngine | None = None

    def engine_for(self, graph: AtomGraph) -> Any:
        """The engine, or one that takes the edges in pieces where only that fits.

        Raises
        ------
        NotEnoughMemoryError
            Where neither does.

        Warns
        -----
        UserWarning
            At the first structure that goes in pieces.
        """
        try:
            self.check(graph)
        except NotEnoughMemoryError as error:
            pieces = self.in_pieces(graph, str(error))
            if pieces is None:
                raise
            return pieces
        return self.engine

    def in_pieces(self, graph: AtomGraph, reason: str) -> ChunkedEngine | None:
        """An engine for what is too large for this one, or None where there is none or not even that fits."""
        potential = getattr(self.engine, "potential", None)
        # An engine that knows its need keeps nothing per edge and feature, so that pieces would not help.
        if hasattr(self.engine, "bytes_needed") or potential is None or not ChunkedEngine.serves(potential):
            return None
        pieces = self._in_pieces or ChunkedEngine(potential)
        if bytes_needed(pieces, graph.n_atoms, graph.n_edges) > self._free():
            return None
        if self._in_pieces is None:
            size = f"{pieces.edges_per_piece:,}"
            warnings.warn(f"{reason}. In pieces of {size} edges instead, which is slower", stacklevel=4)
        self._in_pieces = pieces
        return pieces

    def check(self, graph: AtomGraph) -> None:
        """Before the model runs.

        Raises
        ------
        NotEnoughMemoryError
            With atoms, edges, the estimate, what is free, and what can be done.
        """
        needed = bytes_needed(self.engine, graph.n_atoms, graph.n_edges)
        # The edges of a dynamics come and go by a few per cent.
        if needed < _SMALL or needed <= 1.1 * self._granted:
            return
        free = self._free()
        if needed > free:
            raise NotEnoughMemoryError(self.message(graph, needed, free))
        self._granted = needed

    def message(self, graph: AtomGraph, needed: float | None = None, free: float | None = None) -> str:
        """What is wrong, with numbers, and what can be done."""
        needed = bytes_needed(self.engine, graph.n_atoms, graph.n_edges) if needed is None else needed
        free = available_bytes(self.device) if free is None else free
        many = f"{graph.n_structures} structures with " if graph.n_structures > 1 else ""
        return (
            f"{many}{graph.n_atoms:,} atoms and {graph.n_edges:,} edges ({graph.n_edges / graph.n_atoms:.0f} per atom) "
            f"need about {_gb(needed)} in the engine '{self.engine.describe()}' on {self.device}; {_gb(free)} can be "
            f"had. {self._advice()}"
        )

    def _free(self) -> float:
        # Engines that know their need keep the buffer for the next step.
        kept = self._granted if hasattr(self.engine, "bytes_needed") else 0.0
        return _SHARE * (available_bytes(self.device) + kept)

    def _advice(self) -> str:
        advice = ["Take a smaller structure"]
        potential = getattr(self.engine, "potential", None)
        if potential is not None and potential.dtype == torch.float64:
            advice.append("dtype='float32' (half the memory)")
        if self.device.type == "cuda":
            advice.append("device='cpu'")
        if self.engine.describe().startswith("eager"):
            advice.append("a model that the native engine runs (device='cpu', features in multiples of 16)")
        return f"{', or '.join(advice)}. {_UNITS}"


def _gb(number: float) -> str:
    return f"{number / 1e9:.3g} GB"


def _free_in_machine() -> float:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return float("inf")


def _free_in_cgroups() -> float:
    """The tightest of the limits that containers and schedulers set, less what is used (both versions of cgroups)."""
    free = float("inf")
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return free
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers != "" and "memory" not in controllers.split(","):
            continue
        root, names = _CGROUPS["v2" if controllers == "" else "v1"]
        # Every group above limits too. In a container the path may be the host's, of which only the root is mounted.
        parts = Path(path).parts[1:]
        for depth in range(len(parts) + 1):
            free = min(free, _free_in_group(root.joinpath(*parts[:depth]), *names))
    return free


_CGROUPS = {
    "v1": (Path("/sys/fs/cgroup/memory"), ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")),
    "v2": (Path("/sys/fs/cgroup"), ("memory.max", "memory.current", "inactive_file")),
}


def _free_in_group(folder: Path, limit: str, usage: str, cache: str) -> float:
    try:
        most = float((folder / limit).read_text())  # "max" where there is none
        used = float((folder / usage).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return float("inf")
    # Cached files count as used, but make room when asked to.
    return max(most - used + float(stat.get(cache, 0)), 0.0)


def _free_by_limit() -> float:
    """What `ulimit -v` leaves."""
    if sys.platform != "linux":
        return float("inf")
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY:
        return float("inf")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return max(float(most - pages * resource.getpagesize()), 0.0)
