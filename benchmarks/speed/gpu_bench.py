"""Where gpu.py measures, how it times, and the engines and sizes of the models of its rows."""

from __future__ import annotations

import gc
import os
import shutil
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asecalc_mlip.bench.timing import machine
from asecalc_mlip.engine import CompiledEngine, CudaGraphEngine, EagerEngine, Engine, SumEngine, make_engine
from asecalc_mlip.engine.cache import CacheError
from asecalc_mlip.engine.compiled import CompilerError
from asecalc_mlip.engine.triton import TritonEngine
from asecalc_mlip.errors import InputError
from asecalc_mlip.models import Potential, build_potential, parts_of
from asecalc_mlip.models.registry import hyperparameters_of

__all__ = ["CUTOFF", "ROOT", "Bench", "NotHere", "engine_of", "is_sound", "make_room", "random_potential",
           "why_unusable"]  # fmt: skip

CUTOFF = 5.0  # Å
ELEMENTS = (1, 6, 8, 14)
ROOT = Path(__file__).resolve().parents[2]


class NotHere(Exception):
    """An engine cannot run a model on this device."""


@dataclass(frozen=True)
class Bench:
    """Where and how long is measured."""

    device: torch.device
    features: int
    blocks: int
    calls: int
    seconds: float
    rehearse: bool

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def machine(self) -> dict[str, Any]:
        """Name the device and measure its memory and its matrix products, to judge the rest by."""
        about: dict[str, Any] = {**machine(), "device": "cpu", "c_compiler": _c_compiler()}
        if self.device.type == "cuda":
            facts = torch.cuda.get_device_properties(self.device)
            about |= {"device": facts.name, "memory_GB": round(facts.total_memory / 1e9, 1), "cuda": torch.version.cuda}
        size = 2**12 if self.rehearse else 2**28
        source = torch.zeros(size, device=self.device)
        copied = self.time(lambda: source.clone())
        n = 64 if self.rehearse else 8192
        matrix = torch.randn(n, n, device=self.device)
        product = self.time(lambda: matrix @ matrix)
        about |= {"copy_GB_per_s": round(8 * size / copied / 1e6), "matmul_TFLOPs": round(2 * n**3 / product / 1e9, 1)}
        return about

    def time(self, function: Callable[[], Any]) -> float:
        """Median milliseconds of calls, each waited for."""
        times: list[float] = []
        begun = time.perf_counter()
        for count in range(self.calls + 5):
            self.wait()
            start = time.perf_counter()
            function()
            self.wait()
            times.append(1000 * (time.perf_counter() - start))
            if count > 6 and time.perf_counter() - begun > self.seconds:
                break
        return round(float(np.median(times[5 if len(times) > 6 else 1 :])), 4)

    def peak(self) -> dict[str, float]:
        """Peak of the memory since the last call."""
        if self.device.type != "cuda":
            return {}
        peak = torch.cuda.max_memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        return {"peak_GB": round(peak / 1e9, 3)}


def is_sound(device: str) -> bool:
    """Whether a process can go on: not after an error of the GPU's context, nor after a capture that failed.

    That leaves torch without random numbers on the GPU, and its allocator without memory that was freed.
    """
    return why_unusable(device) is None


def why_unusable(device: str) -> str | None:
    """Return what a device fails with, or None: one that is not there, or whose driver is not that of torch."""
    try:
        torch.rand(1, device=device).item()
    except Exception as error:  # noqa: BLE001  torch without CUDA, drivers and contexts fail in many ways
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return None


def make_room(device: str) -> None:
    """Free what rows before have left: engines hold themselves, and with them their captures' memory on the GPU."""
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()


def random_potential(bench: Bench, architecture: str) -> Potential:
    """Return a potential of the sizes of this run with random weights, on the CPU."""
    known = hyperparameters_of(architecture)
    wanted = {"cutoff": CUTOFF, "n_features": bench.features, "n_interactions": bench.blocks}
    sizes = {name: value for name, value in wanted.items() if name in known}
    torch.manual_seed(0)
    return build_potential(architecture, sizes, reference_energies=dict.fromkeys(ELEMENTS, 0.0))


def engine_of(bench: Bench, potential: Potential, engine: str, precision: str = "float32") -> Engine:
    """Return an engine; of a sum that it cannot run as one, the parts that it cannot run go eagerly.

    A rehearsal runs CUDA graphs as the same padded calls without a capture.

    Raises
    ------
    NotHere
        For an engine that cannot run the model here, and for want of a C++ compiler.
    RuntimeError
        For fused kernels that another engine stands in for, as without a C compiler.
    """
    if engine == CudaGraphEngine.name and bench.device.type == "cpu" and bench.rehearse and precision == "float32":
        return CudaGraphEngine(potential, capture=False)
    try:
        if engine == CompiledEngine.name and CompiledEngine.why_not(potential) is None:
            # `make_engine` takes another engine for want of a compiler, which would be measured under this name.
            return CompiledEngine(potential)
        return _fused(make_engine(potential, engine, precision=precision))  # type: ignore[arg-type]
    except (CompilerError, CacheError) as error:
        raise NotHere(str(error)) from None
    except InputError as error:
        first, *others = parts_of(potential)
        if not others or engine in (EagerEngine.name, CudaGraphEngine.name, CompiledEngine.name):
            raise NotHere(str(error)) from None
    try:
        make_engine(first, engine)  # type: ignore[arg-type]
    except InputError as error:
        raise NotHere(str(error)) from None
    return SumEngine(potential, lambda part: _or_eager(part, engine))


def _or_eager(part: Potential, engine: str) -> Engine:
    try:
        return _fused(make_engine(part, engine))  # type: ignore[arg-type]
    except InputError:
        return EagerEngine(part)


def _fused(engine: Engine) -> Engine:
    """Refuse an engine in the place of the fused kernels, which would be measured under their name."""
    if isinstance(engine, TritonEngine) and engine.holds_edges:
        raise RuntimeError(f"the fused kernels cannot be used; in their place would be: {engine.describe()}")
    return engine


def _c_compiler() -> str:
    """Name the compiler that Triton builds its launchers with, or say what is missing."""
    found = os.environ.get("CC") or next(filter(None, map(shutil.which, ("gcc", "clang"))), None)
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return "none: Triton launches no kernel" if found is None else found if headers.is_file() else f"no {headers}"
