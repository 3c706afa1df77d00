"""An engine that looks at memory first: what is too large goes in pieces, or is refused before the machine runs out."""

from __future__ import annotations

import warnings

import torch

from asecalc_mlip.engine import memory
from asecalc_mlip.engine.base import Engine
from asecalc_mlip.engine.chunked import ChunkedEngine
from asecalc_mlip.errors import NotEnoughMemoryError
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.models.potential import Potential, Prediction

__all__ = ["MemoryGuard"]

# Share of the free memory that an estimate may take up: it is good to about 20 %.
_SHARE = 0.8
# Bytes; below this, reading how much is free takes longer than it is worth.
_SMALL = 2**27


class MemoryGuard:
    """Runs an engine with an eye on memory; every calculator has one.

    A size that was let through once is let through again, so that the memory which an engine keeps for the next step
    of the same dynamics does not count against it.

    Parameters
    ----------
    engine : Engine
    device : torch.device
    """

    def __init__(self, engine: Engine, device: torch.device):
        self.engine, self.device = engine, device
        self._granted = 0.0
        self._in_pieces: ChunkedEngine | None = None

    @property
    def potential(self) -> Potential:
        """Of the engine."""
        return self.engine.potential

    @property
    def holds_edges(self) -> bool:
        """As the engine."""
        return self.engine.holds_edges

    @property
    def keeps_buffer(self) -> bool:
        """As the engine."""
        return self.engine.keeps_buffer

    def __call__(self, graph: AtomGraph, *, forces: bool = True, stress: bool = False) -> Prediction:
        """See `asecalc_mlip.engine.base.Engine`.

        Raises
        ------
        NotEnoughMemoryError
            Where the structures fit neither whole nor in pieces.

        Warns
        -----
        UserWarning
            At the first structure that goes in pieces.
        """
        try:
            self.check(graph)
        except NotEnoughMemoryError as error:
            return self._by_pieces(graph, str(error), forces, stress)
        found = self._attempt(self.engine, graph, forces, stress)
        if found is not None:
            return found
        return self._by_pieces(graph, f"memory ran out: {self._message(graph)}", forces, stress)

    def whole(self, graph: AtomGraph, *, forces: bool = True, stress: bool = False) -> Prediction | None:
        """Prediction in one go, or None where memory is too small for that, so that the caller can try less at once."""
        try:
            self.check(graph)
        except NotEnoughMemoryError:
            return None
        return self._attempt(self.engine, graph, forces, stress)

    def check(self, graph: AtomGraph) -> None:
        """Before the model runs.

        Raises
        ------
        NotEnoughMemoryError
            With atoms, edges, the estimate, the free memory, and ways out.
        """
        needed = self.bytes_needed(graph.n_atoms, graph.n_edges)
        # The edges of a dynamics come and go by a few per cent.
        if needed < _SMALL or needed <= 1.1 * self._granted:
            return
        free = self._free()
        if needed > free:
            raise NotEnoughMemoryError(self._message(graph, free))
        self._granted = needed

    def bytes_needed(self, n_atoms: int, n_edges: int) -> float:
        """As the engine."""
        return self.engine.bytes_needed(n_atoms, n_edges)

    def describe(self) -> str:
        """Name the engine in a few words."""
        return self.engine.describe()

    def _by_pieces(self, graph: AtomGraph, reason: str, forces: bool, stress: bool) -> Prediction:
        pieces = self._pieces_for(graph, reason)
        found = None if pieces is None else self._attempt(pieces, graph, forces, stress)
        if found is None:
            raise NotEnoughMemoryError(reason)
        return found

    def _pieces_for(self, graph: AtomGraph, reason: str) -> ChunkedEngine | None:
        """Engine for a structure that is too large for this one, or None where there is none or not even that fits."""
        if not self.holds_edges:
            return None
        pieces = self._in_pieces or ChunkedEngine(self.potential)
        if pieces.bytes_needed(graph.n_atoms, graph.n_edges) > self._free():
            return None
        if self._in_pieces is None:
            size = f"{pieces.edges_per_piece:,}"
            warnings.warn(f"{reason}. In pieces of {size} edges instead, which is slower", stacklevel=5)
        self._in_pieces = pieces
        return pieces

    def _attempt(self, engine: Engine, graph: AtomGraph, forces: bool, stress: bool) -> Prediction | None:
        """Prediction, or None where memory ran out."""
        try:
            return engine(graph, forces=forces, stress=stress)
        except (MemoryError, RuntimeError) as error:
            # Nothing may be kept of the error: its traceback holds the tensors that filled the memory.
            if not memory.is_out_of_memory(error):
                raise
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def _free(self) -> float:
        # Engines that know their need keep the buffer for the next step.
        kept = self._granted if self.keeps_buffer else 0.0
        return _SHARE * (memory.available_bytes(self.device) + kept)

    def _message(self, graph: AtomGraph, free: float | None = None) -> str:
        """Text of the error: numbers, and ways out."""
        needed = self.bytes_needed(graph.n_atoms, graph.n_edges)
        free = memory.available_bytes(self.device) if free is None else free
        many = f"{graph.n_structures} structures with " if graph.n_structures > 1 else ""
        return (
            f"{many}{graph.n_atoms:,} atoms and {graph.n_edges:,} edges ({graph.n_edges / graph.n_atoms:.0f} per atom) "
            f"need about {memory.gigabytes(needed)} in the engine '{self.describe()}' on {self.device}; "
            f"{memory.gigabytes(free)} are free. {self._advice()}"
        )

    def _advice(self) -> str:
        advice = ["Take a smaller structure"]
        if self.potential.dtype == torch.float64:
            advice.append("dtype='float32' (half the memory)")
        if self.device.type == "cuda":
            advice.append("device='cpu'")
        if self.holds_edges:
            advice.append("a model that the native engine runs (device='cpu', features in multiples of 16)")
        return f"{', or '.join(advice)}. {memory.WRONG_UNIT}"
