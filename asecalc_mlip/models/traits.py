"""Traits: an architecture declares its properties on its class, so that no other file asks for its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.kernels.packing import NativeKernel, Packed
from asecalc_mlip.models.layers import at_once

__all__ = ["Memory", "Network", "OwnHessian", "Traits"]


@dataclass(frozen=True)
class Memory:
    """Numbers of the weights' dtype that autograd keeps, per block and feature: each as (per edge, per atom).

    Attributes
    ----------
    native, plain : (float, float)
        With the messages of the native library, and with plain torch.
    """

    native: tuple[float, float]
    plain: tuple[float, float]


@dataclass(frozen=True)
class OwnHessian:
    """A way to the exact Hessian that is faster than the rows of the forces' derivative.

    Attributes
    ----------
    compute : callable
        (network, graph of one structure) → (3N, 3N) second derivatives of the sum of the output by the positions.
    bytes_needed : callable
        (network, number of atoms) → memory that it takes.
    """

    compute: Callable[[Any, AtomGraph], Tensor]
    bytes_needed: Callable[[Any, int], float]


@dataclass(frozen=True, kw_only=True)
class Traits:
    """Properties of an architecture. None has a default: an architecture that does not say one cannot be made.

    Attributes
    ----------
    native : NativeKernel or None
        Its kernel, for which `Network.packed` packs the weights; None where the native engine cannot run it.
    native_messages : bool
        Whether its messages go through the operations of `asecalc_mlip.kernels`.
    memory : Memory
        Measured as the peak of the eager engine, and rounded up.
    hessian : OwnHessian or None
        None: row by row, by one backward pass each.
    compiling_pays : bool
        Whether a compiled program is faster at every size than the eager engine with native messages.
    trims_edges : bool
        Whether dropping the edges beyond its own cutoff costs less than passing over them.
    halo : float or None
        Reach of one block: an atom after it depends on atoms within so many cutoffs before it. None where nothing is
        known.
    train_instead : str or None
        None where `asecalc train` trains it from scratch; else the end of a message that names the other way.
    """

    native: NativeKernel | None
    native_messages: bool
    memory: Memory
    hessian: OwnHessian | None
    compiling_pays: bool
    trims_edges: bool
    halo: float | None
    train_instead: str | None


class Network(nn.Module):
    """AtomGraph in, one energy per atom out, (N,) in the dtype of the weights; the base of every architecture.

    Attributes
    ----------
    traits : Traits
        Of the class.
    cutoff : float
        Å.
    n_features, n_blocks : int
        Numbers that an edge carries in a block, and number of blocks; the estimate of memory is a multiple of both.
    over_edges : callable
        How messages are passed; see `asecalc_mlip.models.layers.at_once`.
    """

    traits: ClassVar[Traits]
    cutoff: float
    n_features: int
    n_blocks: int
    over_edges: Callable = staticmethod(at_once)

    @property
    def direct_forces(self) -> bool:
        """Whether forces come from a head of the network instead of the gradient of the energy."""
        return getattr(self, "force_head", None) is not None

    @property
    def head(self) -> Any:
        """The head for forces, `force_head`; InputError for a network that was built without one."""
        if not self.direct_forces:
            name = type(self).__name__
            raise InputError(f"this {name} has no force head; build it with direct_forces=True, or use predict()")
        return self.force_head

    def check_numbers(self, numbers: Tensor) -> None:
        """Raise an InputError for atomic numbers (N,) without parameters; most networks have them for all."""

    @property
    def networks(self) -> list[Network]:
        """Itself; a sum has its parts here."""
        return [self]

    def numbers_kept(self, n_atoms: int, n_edges: float, *, native: bool, piece: int | None = None) -> float:
        """How many numbers of the weights' dtype autograd keeps.

        Parameters
        ----------
        n_atoms, n_edges : float
        native : bool
            Whether messages go through the native library.
        piece : int, optional
            Edges that all blocks together have at a time; default: all.
        """
        per_edge, per_atom = self.traits.memory.native if native else self.traits.memory.plain
        kept = n_edges if piece is None else min(n_edges, piece / self.n_blocks)
        return self.n_features * self.n_blocks * (per_edge * kept + per_atom * n_atoms)

    def packed(self) -> Packed:
        """Return the weights as its native kernel reads them.

        A network without a kernel has none; `register` refuses a class that declares a kernel and does not define this.
        """
        raise TypeError(f"{type(self).__name__} has no native kernel, so its weights are not packed")
