"""How a model is run. `make_engine` picks; every engine turns an AtomGraph into a `Prediction`.

eager        autograd, any model and device
native       the whole network in one native call, on the CPU
compiled     traced and compiled once per machine by AOTInductor
cuda-graph   recorded once per size and replayed, on a GPU

A sum of potentials of which a part runs natively has an engine for each part.
"""

from __future__ import annotations

import warnings
from typing import Literal, Protocol, get_args

from asecalc_mlip.engine.cache import CacheError
from asecalc_mlip.engine.compiled import CompiledEngine, CompilerError
from asecalc_mlip.engine.cuda_graph import CudaGraphEngine
from asecalc_mlip.engine.eager import EagerEngine
from asecalc_mlip.engine.native import NativeEngine
from asecalc_mlip.engine.precision import Precision, check_precision
from asecalc_mlip.engine.summed import SumEngine
from asecalc_mlip.errors import InputError
from asecalc_mlip.graph import AtomGraph
from asecalc_mlip.models import Potential, Prediction

__all__ = [
    "Compile",
    "CompiledEngine",
    "CudaGraphEngine",
    "EagerEngine",
    "Engine",
    "EngineName",
    "NativeEngine",
    "Precision",
    "SumEngine",
    "make_engine",
]

EngineName = Literal["eager", "native", "compiled", "cuda-graph"]
Compile = bool | Literal["auto"] | EngineName


class Engine(Protocol):
    """One way to run one model."""

    def __call__(self, graph: AtomGraph, *, forces: bool = True, stress: bool = False) -> Prediction:
        """Energy, and forces and stress where asked for, without a graph for further derivatives."""

    def describe(self) -> str:
        """What runs, in a few words."""


def make_engine(potential: Potential, compile: Compile = "auto", *, precision: Precision = "float32") -> Engine:
    """An engine for a potential, where it is; its weights must not change afterwards.

    Parameters
    ----------
    potential : Potential
    compile : bool, "auto" or a name
        "auto": on the CPU native where that serves, else compiled if that pays and a program is in the cache, else
        eager; on a GPU CUDA graphs. True: compiled. False: native or eager, without any compilation. Or an engine by
        its name.
    precision : {"float32", "tf32", "bf16"}
        Of matrix products on a GPU.

    Raises
    ------
    InputError
        For an option that is not allowed, and an engine that cannot run this model here.

    Warns
    -----
    UserWarning
        Where the compiled engine cannot be had, for want of a compiler or of a cache folder; another runs then.
    """
    device = potential.e0.device
    check_precision(precision, device, potential.dtype)
    if (compile is False or compile == "auto") and SumEngine.pays(potential):
        return SumEngine(potential, lambda part: make_engine(part, compile))
    name = _name(potential, compile)
    reason = _WHY_NOT[name](potential)
    if reason is not None:
        able = [other for other, why_not in _WHY_NOT.items() if why_not(potential) is None]
        raise InputError(f"compile={compile!r}: {name} cannot run this model: {reason}. Can: {', '.join(able)}")
    if name == "compiled":
        if precision != "float32":
            raise InputError(f"precision={precision!r} is for the engines eager and cuda-graph, not for compiled")
        return _compiled_or_other(potential)
    if name == "native":
        return NativeEngine(potential)
    return {"eager": EagerEngine, "cuda-graph": CudaGraphEngine}[name](potential, precision=precision)


_WHY_NOT = {
    "eager": EagerEngine.why_not,
    "native": NativeEngine.why_not,
    "compiled": CompiledEngine.why_not,
    "cuda-graph": CudaGraphEngine.why_not,
}


def _name(potential: Potential, compile: Compile) -> EngineName:
    if compile is True:
        return "compiled"
    if compile is False:
        return _uncompiled(potential)
    if compile == "auto":
        return _fastest(potential)
    if compile not in get_args(EngineName):
        allowed = ", ".join(repr(name) for name in get_args(EngineName))
        raise InputError(f"compile is {compile!r}; allowed: 'auto', True, False, {allowed}")
    return compile


def _fastest(potential: Potential) -> EngineName:
    if CudaGraphEngine.why_not(potential) is None:
        return "cuda-graph"
    on_cpu = potential.e0.device.type == "cpu"
    if on_cpu and not NativeEngine.serves(potential) and CompiledEngine.pays(potential):
        # A build takes longer than many calculations, so only who asks for it gets one.
        return "compiled" if CompiledEngine.is_cached(potential) else _uncompiled(potential)
    return _uncompiled(potential)


def _uncompiled(potential: Potential) -> EngineName:
    return "native" if NativeEngine.serves(potential) else "eager"


def _compiled_or_other(potential: Potential) -> Engine:
    try:
        return CompiledEngine(potential)
    except (CacheError, CompilerError) as error:
        other = make_engine(potential, False)
        warnings.warn(f"the compiled engine cannot be used: {error}. Runs instead: {other.describe()}", stacklevel=4)
        return other
