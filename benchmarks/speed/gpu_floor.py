"""Bytes and operations of the fused kernels of a GPU, and the least time that an H100 needs for them. Arithmetic only.

    python benchmarks/speed/gpu_floor.py

Nothing is measured. Each array counts once a kernel, as if the caches kept what is read again; a multiply-add counts as
two operations. The least time of a kernel is the longer of its bytes by 3 TB/s and its operations by 60 TFLOP/s
(float32, without tensor cores). Numbers read by edges, features of neighbours and rows of tables, come from the caches;
they are given beside it. With each kernel that is launched, 2 µs in a CUDA graph, a small molecule waits for launches.

The second table is of training steps. There filters are tensors of edges, so edges stream through memory: "messages"
are the operations of kernels/triton, "products" the matrix products on atoms and those that make filters, by torch.
Each product counts six times: forward, once for the forces, and four times for the loss of both.
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
# Numbers that make a value of a spline, multiply-adds for it, edge arrays of the kernels in bytes, nodes of a table.
_TERMS, _ADDS, _EDGE, _NODES = 6, 5, 32, 300
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
    along : float
        Numbers that are streamed for each edge.
    """

    name: str
    parts: int
    gathered: float
    streamed: float
    adds: float
    slopes: bool
    times: int
    along: float = 0.0

    def bytes(self, atoms: int, edges: int, F: int) -> float:
        """Bytes of one launch, each array once."""
        # A number and a difference at each node.
        arrays = 4.0 * F * (self.streamed * atoms + self.along * edges + 2 * self.parts * _NODES)
        # Sums of edges, of each block of 32 channels.
        return arrays + (_EDGE + (16.0 * F / 32 if self.slopes else 0.0)) * edges

    def cached(self, edges: int, F: int) -> float:
        """Bytes of one launch that edges read."""
        return 4.0 * F * (self.gathered + _TERMS * self.parts) * edges

    def operations(self, edges: int, F: int) -> float:
        """Operations of one launch."""
        return 2.0 * F * (_ADDS * self.parts * (2 if self.slopes else 1) + self.adds) * edges


@dataclass(frozen=True)
class Model:
    """A network: its kernels, and its products in multiply-adds: of F² for each atom, and of F for each edge."""

    features: int
    kernels: tuple[Kernel, ...]
    products: float
    of_edges: float = 0.0

    def least(self, atoms: int, edges: int) -> tuple[float, float]:
        """Return the least microseconds for products, and for kernels."""
        F = self.features
        products = 2.0 * (self.products * F * F * atoms + self.of_edges * F * edges) / OPERATIONS_PER_S
        found = (
            k.times * max(k.bytes(atoms, edges, F) / BYTES_PER_S, k.operations(edges, F) / OPERATIONS_PER_S)
            for k in self.kernels
        )
        return 1e6 * products, 1e6 * sum(found)


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


def _passes(name: str, values: tuple, back: tuple, tangent: tuple, second: tuple, times: int = 1) -> tuple[Kernel, ...]:
    """Kernels of an operation in a step, each by numbers of edges, gathered and streamed, and multiply-adds.

    Gradients are made twice: for the forces, and for the loss of what the operation itself gave.
    """
    orders = (("", values, 1), (" back", back, 2), (" along a direction", tangent, 1), (" second", second, 1))
    return tuple(
        Kernel(name + order, 0, gathered, streamed, adds, False, count * times, along)
        for order, (along, gathered, streamed, adds), count in orders
    )


# Steps of trainings. Matrices on atoms: two products and two bounds a block, squares twice.
TRAINING = {
    "PaiNN, 128 × 3": Model(128, (
        *_passes("first block", (2, 2, 6, 5), (4, 4, 8, 11), (4, 4, 8, 11), (6, 4, 10, 17)),
        *_passes("messages", (3, 6, 10, 9), (6, 4, 16, 20), (6, 12, 16, 20), (9, 4, 22, 34), 2),
    ), 6 * 45, 6 * 21 * 8),
    "SchNet, 128 × 3": Model(128, (
        *_passes("messages", (1, 1, 2, 1), (2, 1, 3, 2), (2, 2, 3, 2), (2, 1, 3, 2), 3),
    ), 6 * 9, 6 * 3 * (20 + 128)),
    "TensorNet, 128 × 2": Model(128, (
        *_passes("embedding", (3, 1, 11, 13), (8, 1, 13, 28), (0, 0, 0, 0), (11, 2, 24, 70)),
        *_passes("messages", (3, 9, 18, 9), (6, 9, 27, 18), (6, 18, 27, 18), (6, 9, 27, 18), 2),
        *_passes("filters from knots", (3, 18, 0, 18), (6, 36, 0, 36), (3, 36, 0, 36), (6, 36, 0, 36), 3),
        Kernel("matrices", 0, 0, 2 * (2 * 207 + 2 * 117) + 2 * 87, 0, False, 1),
    ), 6 * 56),
}  # fmt: skip
BATCHES = {"10 aspirins": ("aspirin", 10), "quartz 576": ("quartz 576", 1), "10 × quartz 576": ("quartz 576", 10)}


def training_rows() -> list[str]:
    """Lines of the table of trainings."""
    lines = ["| model | batch | edges | products, µs | messages, µs | streamed by edges, MB |", "|---" * 6 + "|"]
    known = sizes()
    for name, (structure_name, copies) in BATCHES.items():
        atoms, edges = (copies * number for number in known[structure_name])
        for title, model in TRAINING.items():
            products, messages = model.least(atoms, edges)
            streamed = sum(4e-6 * model.features * k.times * k.along * edges for k in model.kernels)
            cells = [title, name, f"{edges:,}".replace(",", " "), f"{products:.3g}", f"{messages:.3g}"]
            lines.append(f"| {' | '.join(cells)} | {streamed:.3g} |")
    return lines


def rows() -> list[str]:
    """Lines of the table of calls."""
    head = "model | structure | edges | products, µs | messages, µs | read by edges, MB | of it tables, MB"
    lines = [f"| {head} |", "|---" * 7 + "|"]
    for name, (atoms, edges) in sizes().items():
        for title, model in MODELS.items():
            F = model.features
            products, messages = model.least(atoms, edges)
            cached = sum(k.times * k.cached(edges, F) for k in model.kernels)
            tables = sum(k.times * 4.0 * F * _TERMS * k.parts * edges for k in model.kernels)
            cells = [title, name, f"{edges:,}".replace(",", " "), f"{products:.3g}", f"{messages:.3g}"]
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
    """Print the tables."""
    click.echo("\n".join([*rows(), "", *training_rows()]))


if __name__ == "__main__":
    main()
