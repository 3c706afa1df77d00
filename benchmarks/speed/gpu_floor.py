"""Bytes and operations of the fused kernels of a GPU, and the least time that an H100 needs for them. Arithmetic only.

    python benchmarks/speed/gpu_floor.py

Nothing is measured. Each array counts once a kernel, as if the caches kept what is read again; a multiply-add counts as
two operations. The least time of a kernel is the longer of its bytes by 3 TB/s and its operations by 60 TFLOP/s
(float32, without tensor cores). Numbers read by edges, features of neighbours and rows of tables, come from the caches;
they are given beside it. With each kernel that is launched, 2 µs in a CUDA graph, a small molecule waits for launches.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # a checkout that is not installed
    sys.path.insert(0, str(ROOT))

from asecalc_mlip.bench.structures import quartz, structure  # noqa: E402
from asecalc_mlip.graph import graph_from_atoms  # noqa: E402

BYTES_PER_S, OPERATIONS_PER_S = 3e12, 60e12
CUTOFF = 5.0
# Numbers of a row of a spline that make a value, edge arrays of the kernels in bytes, nodes of a table.
_TERMS, _EDGE, _NODES = 6, 32, 300
STRUCTURES = {"aspirin": 0, "quartz 72": (2, 2, 2), "quartz 576": (4, 4, 4), "quartz 2 025": (5, 5, 9),
              "quartz 20 250": (10, 15, 15)}  # fmt: skip


@dataclass(frozen=True)
class Kernel:
    """Work of one kernel, in numbers of F channels.

    Attributes
    ----------
    name : str
    parts : int
        Functions of the distance.
    gathered, streamed : float
        Numbers that an edge reads of its neighbour, and that an atom reads and writes.
    adds : float
        Multiply-adds of an edge beside those of the tables.
    slopes : bool
        Whether derivatives of the functions are read too.
    times : int
        How often a call launches it.
    """

    name: str
    parts: int
    gathered: float
    streamed: float
    adds: float
    slopes: bool
    times: int

    def bytes(self, atoms: int, edges: int, F: int) -> float:
        """Bytes of one launch, each array once."""
        arrays = 4.0 * F * (self.streamed * atoms + self.parts * _NODES)
        # Sums of edges, of each block of 32 channels.
        return arrays + (_EDGE + (16.0 * F / 32 if self.slopes else 0.0)) * edges

    def cached(self, edges: int, F: int) -> float:
        """Bytes of one launch that edges read."""
        return 4.0 * F * (self.gathered + _TERMS * self.parts) * edges

    def operations(self, edges: int, F: int) -> float:
        """Operations of one launch."""
        return 2.0 * F * (_TERMS * self.parts * (2 if self.slopes else 1) + self.adds) * edges


@dataclass(frozen=True)
class Model:
    """A network: its kernels, and its products on atoms, in multiply-adds of F² an atom, forward and backward."""

    features: int
    kernels: tuple[Kernel, ...]
    products: float


MODELS = {
    "PaiNN, 128 × 3": Model(128, (
        Kernel("messages, first block", 2, 0, 5, 6, False, 1),
        Kernel("messages", 3, 6, 11, 10, False, 2),
        Kernel("messages back", 3, 4, 17, 21, True, 2),
        Kernel("messages back, first block", 2, 0, 4, 9, True, 1),
    ), 90),
    "SchNet, 128 × 3": Model(128, (
        Kernel("messages", 1, 1, 2, 1, False, 3),
        Kernel("messages back", 1, 1, 3, 3, True, 2),
        Kernel("messages back, first block", 1, 0, 1, 2, True, 1),
    ), 18),
    "TensorNet, 128 × 2": Model(128, (
        Kernel("embedding", 3, 0, 9, 13, False, 1),
        Kernel("messages", 3, 9, 18, 9, False, 2),
        Kernel("messages back", 3, 9, 27, 21, True, 2),
        Kernel("embedding back", 3, 0, 9, 36, True, 1),
    ), 112),
}  # fmt: skip


def rows() -> list[str]:
    """Lines of the table."""
    head = "model | structure | edges | products, µs | messages, µs | read by edges, MB | of it tables, MB"
    lines = [f"| {head} |", "|---" * 7 + "|"]
    for name, (atoms, edges) in sizes().items():
        for title, model in MODELS.items():
            F = model.features
            products = 2.0 * model.products * F * F * atoms / OPERATIONS_PER_S
            found = [
                (k.times * max(k.bytes(atoms, edges, F) / BYTES_PER_S, k.operations(edges, F) / OPERATIONS_PER_S))
                for k in model.kernels
            ]
            cached = sum(k.times * k.cached(edges, F) for k in model.kernels)
            tables = sum(k.times * 4.0 * F * _TERMS * k.parts * edges for k in model.kernels)
            cells = [title, name, f"{edges:,}".replace(",", " "), f"{1e6 * products:.3g}", f"{1e6 * sum(found):.3g}"]
            lines.append(f"| {' | '.join(cells)} | {cached / 1e6:.3g} | {tables / 1e6:.3g} |")
    return lines


def sizes() -> dict[str, tuple[int, int]]:
    """Atoms and edges of the structures."""
    found = {}
    for name, repeats in STRUCTURES.items():
        atoms = quartz() * repeats if repeats else structure("aspirin")
        graph = graph_from_atoms(atoms, CUTOFF)
        found[name] = (graph.n_atoms, graph.n_edges)
    return found


@click.command(help=__doc__)
def main() -> None:
    """Print the table."""
    click.echo("\n".join(rows()))


if __name__ == "__main__":
    main()
