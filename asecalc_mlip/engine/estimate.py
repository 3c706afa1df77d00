"""Memory of the engines that run through autograd, from the traits of an architecture."""

from __future__ import annotations

from asecalc_mlip.kernels import library
from asecalc_mlip.models.potential import Potential

__all__ = ["EDGE_BYTES", "EDGE_BYTES_NATIVE", "autograd_bytes", "native_messages"]

# Per edge whatever the width: vectors and the radial basis with its derivatives; and for native engines, which hold
# vectors and their gradient in float64.
EDGE_BYTES, EDGE_BYTES_NATIVE = 600, 64


def autograd_bytes(
    potential: Potential, n_atoms: int, n_edges: int, *, native: bool, piece: int | None = None
) -> float:
    """Bytes that autograd keeps for a graph, good to about 20 %; see `Network.numbers_kept`."""
    kept = potential.network.numbers_kept(n_atoms, n_edges, native=native, piece=piece)
    return potential.dtype.itemsize * kept + EDGE_BYTES * n_edges


def native_messages(potential: Potential) -> bool:
    """Whether a network of a potential passes its messages by the native library, where it is."""
    able = any(network.traits.native_messages for network in potential.network.networks)
    return able and potential.e0.device.type == "cpu" and library.native_library() is not None
