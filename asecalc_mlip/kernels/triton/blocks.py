"""How much of the work one program of a kernel does."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Blocks"]


@dataclass(frozen=True)
class Blocks:
    """Size of a program of the kernels.

    Attributes
    ----------
    edges : int
        At a time, a power of two.
    channels : int
        A power of two. All programs of one block of channels come before those of the next, so that the part of a table
        that is read stays in the first cache: 32 channels of three parts and 300 nodes are 115 kB.
    warps : int
    """

    edges: int = 16
    channels: int = 32
    warps: int = 4

    def grid(self, n_atoms: int, width: int) -> tuple[int, int]:
        """Programs for atoms, and for blocks of channels."""
        return n_atoms, -(-width // self.channels)

    def options(self) -> dict[str, int]:
        """Return the arguments of a kernel."""
        return {"EDGES": self.edges, "CHANNELS": self.channels, "num_warps": self.warps}
