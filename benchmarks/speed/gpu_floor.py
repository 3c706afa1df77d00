"""Bytes and operations of the fused kernels of a GPU, and the least time that a GPU needs for them. Arithmetic only.

    python benchmarks/speed/gpu_floor.py                 # of an H100: 3 TB/s, 60 TFLOP/s
    python benchmarks/speed/gpu_floor.py --gpu h200      # of an H200: 4.8 TB/s, 60 TFLOP/s

Nothing is measured. Each array counts once a kernel, as if the caches kept what is read again; a multiply-add counts as
two operations. The least time of a kernel is the longer of its bytes and its operations (float32, without tensor
cores). Numbers read by edges, features of neighbours and rows of tables, come from the caches; they are given beside
it. With each kernel that is launched, 2 µs in a CUDA graph, a small molecule waits for launches. What torch does
between the kernels, activations and sums of two arrays, comes on top.

What an edge reads and computes, and what an atom reads and writes between products, tests count in what the compiler
makes of the kernels, and products in a call (tests/engine/triton/test_fused.py).

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

CUTOFF = 5.0
# Nodes of a table, and channels of a program.
_NODES, _CHANNELS = 300, 32
STRUCTURES = {"aspirin": 0, "quartz 72": (2, 2, 2), "quartz 576": (4, 4, 4), "quartz 2 025": (5, 5, 9),
              "quartz 20 250": (10, 15, 15)}  # fmt: skip


@dataclass(frozen=True)
class GPU:
    """Bytes of memory and float32 operations in a second."""

    bytes: float
    operations: float


GPUS = {"h100": GPU(3e12, 60e12), "h200": GPU(4.8e12, 60e12)}


@dataclass(frozen=True)
class Kernel:
    """Work of one kernel, in numbers of F channels where nothing else is said.

    Attributes
    ----------
    name : str
    times : int
        How often a call launches it.
    streamed : float
        Numbers that an atom reads and writes.
    parts : int
        Functions of the distance, in tables.
    table, gathered : float
        Numbers that an edge reads of tables, and of its neighbour.
    work : float
        Operations of an edge.
    edge : float
        Bytes of an edge, for all channels.
    sums : int
        Numbers of an edge that are written for each block of channels.
    along : float
        Numbers that are streamed for each edge.
    """

    name: str
    times: int
    streamed: float = 0.0
    parts: int = 0
    table: float = 0.0
    gathered: float = 0.0
    work: float = 0.0
    edge: float = 0.0
    sums: int = 0
    along: float = 0.0

    def bytes(self, atoms: int, edges: int, F: int) -> float:
        """Bytes of one launch, each array once."""
        # A number and a difference at each node.
        arrays = 4.0 * F * (self.streamed * atoms + self.along * edges + 2 * self.parts * _NODES)
        return arrays + (self.edge + 4.0 * self.sums * F / _CHANNELS) * edges

    def cached(self, edges: int, F: int) -> float:
        """Bytes of one launch that edges read."""
        return 4.0 * F * (self.gathered + self.table) * edges

    def operations(self, edges: int, F: int) -> float:
        """Operations of one launch."""
        return F * self.work * edges

    def least(self, gpu: GPU, atoms: int, edges: int, F: int) -> float:
        """Least microseconds of all launches."""
        moved = self.bytes(atoms, edges, F) / gpu.bytes
        return 1e6 * self.times * max(moved, self.operations(edges, F) / gpu.operations)


@dataclass(frozen=True)
class Model:
    """A network: its kernels of messages, its products, and its kernels on atoms between those.

    Products are in multiply-adds: of F² for each atom, and of F for each edge.
    """

    features: int
    kernels: tuple[Kernel, ...]
    products: float
    of_edges: float = 0.0
    on_atoms: tuple[Kernel, ...] = ()

    def least(self, gpu: GPU, atoms: int, edges: int) -> tuple[float, float, float]:
        """Return the least microseconds for products, for messages, and on atoms."""
        F = self.features
        products = 2e6 * (self.products * F * F * atoms + self.of_edges * F * edges) / gpu.operations
        messages, others = (
            sum(kernel.least(gpu, atoms, edges, F) for kernel in kernels) for kernels in (self.kernels, self.on_atoms)
        )
        return products, messages, others


def _places(passes: int, sums: int) -> tuple[Kernel, ...]:
    """Distances and places of edges and their gradient, and sums over blocks of channels of each backward pass."""
    return (
        Kernel("locate", 1, edge=24 + 28),
        Kernel("locate_backward", 1, edge=24 + 4 + 16 + 24),
        Kernel("sum over blocks", passes, edge=4 * sums, sums=sums),
    )


# A program reads the neighbour, place and fraction of each edge, with directions twelve bytes more, and with slopes
# how far a node is stretched.
MODELS = {
    "PaiNN, 128 × 3": Model(128, (
        Kernel("convolve 2", 1, streamed=5, parts=2, table=12, gathered=2, work=29, edge=24),
        Kernel("convolve 3", 2, streamed=11, parts=3, table=18, gathered=6, work=46, edge=24),
        Kernel("convolve_backward 3", 2, streamed=16, parts=3, table=18, gathered=4, work=98, edge=28, sums=4),
        Kernel("convolve_edges 2", 1, streamed=4, parts=2, table=11, gathered=2, work=46, edge=28, sums=4),
        *_places(3, 4),
    ), 81, on_atoms=(
        Kernel("lengths", 3, streamed=6),
        Kernel("combine False", 2, streamed=17),
        Kernel("combine True", 1, streamed=10),
        Kernel("combine_backward False", 2, streamed=21),
        Kernel("combine_backward True", 1, streamed=16),
        Kernel("lengths_backward", 3, streamed=14),
    )),
    "SchNet, 128 × 3": Model(128, (
        Kernel("convolve 1", 3, streamed=2, parts=1, table=6, gathered=1, work=12, edge=12),
        Kernel("convolve_backward 1", 2, streamed=3, parts=1, table=6, gathered=1, work=24, edge=16, sums=1),
        Kernel("convolve_edges 1", 1, streamed=1, parts=1, table=5, gathered=1, work=12, edge=16, sums=1),
        *_places(3, 1),
    ), 17),
    "TensorNet, 128 × 2": Model(128, (
        Kernel("spread", 1, streamed=9, parts=3, table=18, gathered=1, work=51, edge=24),
        Kernel("gather", 2, streamed=18, parts=3, table=18, gathered=9, work=48, edge=12),
        Kernel("gather_backward", 2, streamed=27, parts=3, table=18, gathered=9, work=96, edge=16, sums=1),
        Kernel("spread_edges", 1, streamed=9, parts=3, table=17, gathered=1, work=100, edge=28, sums=4),
        *_places(2, 1),
        Kernel("sum over blocks", 1, edge=16, sums=4),
    ), 124, on_atoms=(
        Kernel("squares", 2, streamed=12),
        Kernel("scale", 1, streamed=21),
        Kernel("bound", 2, streamed=18),
        Kernel("interact", 2, streamed=27),
        Kernel("update", 2, streamed=27),
        Kernel("update_backward", 2, streamed=27),
        Kernel("interact_backward", 2, streamed=45),
        Kernel("bound_backward", 2, streamed=27),
        Kernel("scale_backward", 1, streamed=33),
        Kernel("squares_backward", 2, streamed=21),
    )),
}  # fmt: skip


def _passes(name: str, values: tuple, back: tuple, tangent: tuple, second: tuple, times: int = 1) -> tuple[Kernel, ...]:
    """Kernels of an operation in a step, each by numbers of edges, gathered and streamed, and multiply-adds.

    Gradients are made twice: for the forces, and for the loss of what the operation itself gave.
    """
    orders = (("", values, 1), (" back", back, 2), (" along a direction", tangent, 1), (" second", second, 1))
    return tuple(
        Kernel(name + order, count * times, streamed, gathered=gathered, work=2 * adds, edge=32, along=along)
        for order, (along, gathered, streamed, adds), count in orders
    )


# Steps of trainings. Matrices on atoms: two products and two bounds a block, squares twice.
TRAINING = {
    "PaiNN, 128 × 3": Model(128, (
        *_passes("first block", (2, 2, 6, 5), (4, 4, 8, 11), (4, 4, 8, 11), (5, 4, 10, 17)),
        *_passes("messages", (3, 6, 10, 9), (6, 4, 16, 20), (6, 12, 16, 20), (8, 4, 22, 34), 2),
    ), 6 * 45, 6 * 21 * 8),
    "SchNet, 128 × 3": Model(128, (
        *_passes("messages", (1, 1, 2, 1), (2, 1, 3, 2), (2, 2, 3, 2), (2, 1, 3, 2), 3),
    ), 6 * 9, 6 * 3 * (20 + 128)),
    "TensorNet, 128 × 2": Model(128, (
        *_passes("embedding", (3, 1, 11, 13), (8, 1, 13, 28), (0, 0, 0, 0), (11, 2, 24, 70)),
        *_passes("messages", (3, 9, 18, 9), (6, 9, 27, 18), (6, 18, 27, 18), (6, 9, 27, 18), 2),
        *_passes("filters from knots", (3, 18, 0, 18), (6, 36, 0, 36), (3, 36, 0, 36), (6, 36, 0, 36), 3),
        Kernel("matrices", 1, streamed=2 * (2 * 207 + 2 * 117) + 2 * 87),
    ), 6 * 56),
}  # fmt: skip
BATCHES = {"10 aspirins": ("aspirin", 10), "quartz 576": ("quartz 576", 1), "10 × quartz 576": ("quartz 576", 10)}


def training_rows(gpu: GPU) -> list[str]:
    """Lines of the table of trainings."""
    lines = ["| model | batch | edges | products, µs | messages, µs | streamed by edges, MB |", "|---" * 6 + "|"]
    known = sizes()
    for name, (structure_name, copies) in BATCHES.items():
        atoms, edges = (copies * number for number in known[structure_name])
        for title, model in TRAINING.items():
            products, messages, _ = model.least(gpu, atoms, edges)
            streamed = sum(4e-6 * model.features * k.times * k.along * edges for k in model.kernels)
            cells = [title, name, _thousands(edges), f"{products:.3g}", f"{messages:.3g}", f"{streamed:.3g}"]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def rows(gpu: GPU) -> list[str]:
    """Lines of the table of calls."""
    head = "model | structure | edges | products, µs | messages, µs | on atoms, µs | all, µs | read by edges, MB"
    lines = [f"| {head} | of it tables, MB |", "|---" * 9 + "|"]
    for name, (atoms, edges) in sizes().items():
        for title, model in MODELS.items():
            F = model.features
            least = model.least(gpu, atoms, edges)
            cached = sum(k.times * k.cached(edges, F) for k in model.kernels)
            tables = sum(k.times * 4.0 * F * k.table * edges for k in model.kernels)
            numbers = (*least, sum(least), cached / 1e6, tables / 1e6)
            cells = [title, name, _thousands(edges), *(f"{number:.3g}" for number in numbers)]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _thousands(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def sizes() -> dict[str, tuple[int, int]]:
    """Atoms and edges of the structures."""
    found = {}
    for name, repeats in STRUCTURES.items():
        atoms = quartz() * repeats if repeats else structure("aspirin")
        graph = graph_from_atoms(atoms, CUTOFF)
        found[name] = (graph.n_atoms, graph.n_edges)
    return found | {"4 096 aspirins": (4096 * found["aspirin"][0], 4096 * found["aspirin"][1])}


@click.command(help=__doc__)
@click.option("--gpu", type=click.Choice(list(GPUS)), default="h100", show_default=True, help="Whose speeds to take.")
def main(gpu: str) -> None:
    """Print the tables."""
    click.echo("\n".join([*rows(GPUS[gpu]), "", *training_rows(GPUS[gpu])]))


if __name__ == "__main__":
    main()
