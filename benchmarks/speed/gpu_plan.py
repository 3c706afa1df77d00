"""The rows of gpu.py in the order of their worth, at full size or tiny."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.speed import gpu_dynamics, gpu_rows, gpu_training
from benchmarks.speed.gpu_bench import Bench

__all__ = ["Row", "Sizes", "plan"]

PRECISIONS = ("tf32", "bf16")
# Seconds for a row that is the first to use some kernels.
_COMPILES = 120


@dataclass(frozen=True)
class Row:
    """One row: its name, group, the seconds that it may take, and what measures it."""

    key: str
    group: str
    limit_s: float
    measure: Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    features: int = 128
    blocks: int = 3
    structures: tuple[str, ...] = ("aspirin", "quartz-72", "water-192", "quartz-576", "quartz-2025", "quartz-20250")
    first: tuple[str, ...] = ("aspirin", "quartz-2025")
    batches: tuple[int, ...] = (1, 8, 64, 512, 4096)
    replicas: tuple[int, ...] = (1, 64, 1024)
    drift_steps: int = 20_000
    replica_steps: int = 400
    lists: tuple[str, ...] = ("aspirin", "quartz-72", "quartz-576", "quartz-2025", "quartz-20250", "4096 x aspirin")
    largest: tuple[int, ...] = (20_250, 104_976, 419_904, 1_000_188, 2_000_376)
    shipped: tuple[str, ...] = ("aspirin.pt", "silica.pt", "aspirin_painn.pt", "toluene.pt")
    calls: int = 30
    seconds: float = 2.0
    tests: tuple[str, ...] = ("tests/engine", "tests/md", "tests/test_cells.py")
    kernel_tests: tuple[str, ...] = ("tests/kernels",)
    architectures: tuple[str, ...] = ("painn", "tensornet", "schnet")
    # What is worth most first.
    engines: tuple[str, ...] = ("triton", "cuda-graph", "eager", "native", "compiled")


REHEARSAL = Sizes(
    features=16,
    blocks=1,
    structures=("aspirin",),
    first=("aspirin",),
    batches=(1, 4),
    replicas=(2,),
    drift_steps=6,
    replica_steps=6,
    lists=("quartz-72", "8 x aspirin"),
    largest=(72,),
    shipped=("aspirin_painn.pt",),
    calls=2,
    seconds=0.05,
    tests=("tests/test_cells.py",),
    kernel_tests=("tests/kernels/triton",),
    architectures=("painn", "tensornet"),
    engines=("triton", "cuda-graph", "eager", "native"),
)


def plan(device: str, rehearse: bool) -> Iterator[Row]:
    """Return the rows, what is worth most first."""
    sizes = REHEARSAL if rehearse else Sizes()
    bench = Bench(torch.device(device), sizes.features, sizes.blocks, sizes.calls, sizes.seconds, rehearse)
    yield Row("machine", "machine", 60, bench.machine)
    engines = [name for name in sizes.engines if name != "native" or device == "cpu"]
    main = [name for name in engines if name != "compiled"]
    yield from _calls(bench, "painn", sizes.first, main)
    for size in reversed(sizes.batches):
        yield from _batches(bench, size, main[:2])
    yield Row("tests marked gpu", "tests", 150, partial(gpu_rows.tests, sizes.tests, bench))
    for name in main:
        limit = 90 if name == "eager" else 60
        measure = partial(gpu_dynamics.drift, bench, name, sizes.drift_steps, 1 if rehearse else 4)
        yield Row(f"drift, {name}", "drift", limit, measure)
    for model in sizes.shipped:
        for name in main:
            measure = partial(gpu_rows.shipped, bench, model, name)
            yield Row(f"shipped, {model}, {name}", "parity", 60, measure)
    for architecture in sizes.architectures:
        measure = partial(gpu_training.training_parity, bench, architecture)
        yield Row(f"training parity, {architecture}", "parity", _COMPILES, measure)
    yield from _training(bench, sizes.architectures)
    for architecture in sizes.architectures:
        yield from _calls(bench, architecture, sizes.structures, main)
    for name in sizes.first:
        for engine in main[:3]:
            for precision in PRECISIONS:
                yield _call(bench, "painn", name, engine, precision)
    yield Row(
        "tests marked gpu, kernels of trainings", "tests", 150, partial(gpu_rows.tests, sizes.kernel_tests, bench)
    )
    for name in ("aspirin", sizes.first[-1]):
        yield Row(f"calculator, {name}", "calls", 60, partial(gpu_rows.calculator, bench, name))
    for name in sizes.lists:
        yield Row(f"lists, {name}", "lists", 60, partial(gpu_rows.lists, bench, name))
    for number in sizes.replicas:
        measure = partial(gpu_dynamics.replicas, bench, number, sizes.replica_steps)
        yield Row(f"replicas, {number} x aspirin", "replicas", 60, measure)
    for n_atoms in sizes.largest:
        yield Row(f"memory, {n_atoms} atoms", "memory", 60, partial(gpu_rows.memory, bench, n_atoms))
    yield from _batches(bench, sizes.batches[-1], main[2:])
    yield Row("torch-sim", "peers", 60, partial(gpu_dynamics.torch_sim, bench, sizes.replica_steps))
    yield Row("mace", "peers", 90, partial(gpu_rows.mace, bench))
    yield from _calls(bench, "painn", sizes.structures[:1], engines[len(main) :])


def _calls(bench: Bench, architecture: str, structures: tuple[str, ...], engines: list[str]) -> Iterator[Row]:
    for name in structures:
        for engine in engines:
            yield _call(bench, architecture, name, engine, "float32")


def _call(bench: Bench, architecture: str, name: str, engine: str, precision: str) -> Row:
    first = engine == "triton" and name == "aspirin"
    limit = 150 if engine == "compiled" else _COMPILES if first else 60
    key = f"call, {architecture}, {name}, {engine}, {precision}"
    return Row(key, "calls", limit, partial(gpu_rows.call, bench, architecture, name, engine, precision))


def _training(bench: Bench, architectures: tuple[str, ...]) -> Iterator[Row]:
    for architecture in architectures:
        for kernels in ("kernels", "plain"):
            key = f"training step, {architecture}, {kernels}"
            yield Row(key, "training", 60, partial(gpu_training.training, bench, architecture, "alone", kernels))
    measure = partial(gpu_training.training, bench, architectures[0], "piwsl", "kernels")
    yield Row(f"training step, {architectures[0]}, kernels, piwsl", "training", 60, measure)


def _batches(bench: Bench, size: int, engines: list[str]) -> Iterator[Row]:
    for engine in engines:
        key = f"batch, painn, {size} x aspirin, {engine}"
        yield Row(key, "batches", 60, partial(gpu_rows.batch, bench, size, engine))
