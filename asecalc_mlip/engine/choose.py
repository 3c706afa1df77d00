"""Which engine runs a model: by its name, or the fastest that can."""

from __future__ import annotations

from typing import get_args

from asecalc_mlip.engine.base import Compile, Engine, EngineName
from asecalc_mlip.engine.compiled import CompiledEngine, compiled_or_other
from asecalc_mlip.engine.cuda_graph import CudaGraphEngine
from asecalc_mlip.engine.eager import EagerEngine
from asecalc_mlip.engine.native import NativeEngine
from asecalc_mlip.engine.precision import Precision, check_precision
from asecalc_mlip.engine.summed import SumEngine
from asecalc_mlip.engine.triton import TritonEngine
from asecalc_mlip.errors import InputError
from asecalc_mlip.models.potential import Potential

__all__ = ["make_engine"]

_ENGINES = (EagerEngine, NativeEngine, CompiledEngine, CudaGraphEngine, TritonEngine)
_WHY_NOT = {engine.name: engine.why_not for engine in _ENGINES}


def make_engine(potential: Potential, compile: Compile = "auto", *, precision: Precision = "float32") -> Engine:
    """Return an engine for a potential, where it is; its weights must not change afterwards.

    Parameters
    ----------
    potential : Potential
    compile : bool, "auto" or a name
        "auto": on the CPU native where that serves, else compiled if that pays and a program is in the cache, else
        eager; on a GPU the fused kernels where they serve, else CUDA graphs. True: compiled. False: native or eager,
        without any compilation. Or an engine by its name.
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
    check_precision(precision, potential.e0.device, potential.dtype)
    if (compile is False or compile == "auto") and SumEngine.pays(potential):
        return SumEngine(potential, lambda part: make_engine(part, compile, precision=precision))
    name = _name(potential, compile)
    reason = _WHY_NOT[name](potential)
    if reason is not None:
        able = [other for other, why_not in _WHY_NOT.items() if why_not(potential) is None]
        raise InputError(f"compile={compile!r}: {name} cannot run this model: {reason}. Can: {', '.join(able)}")
    if name == CompiledEngine.name:
        if precision != "float32":
            raise InputError(
                f"precision={precision!r} is for the engines eager, cuda-graph and triton, not for compiled"
            )
        return compiled_or_other(potential, _without_compilation)
    if name == NativeEngine.name:
        return NativeEngine(potential)
    if name == TritonEngine.name:
        return TritonEngine(potential, precision=precision)
    if name == CudaGraphEngine.name:
        return CudaGraphEngine(potential, precision=precision)
    return EagerEngine(potential, precision=precision)


def _without_compilation(potential: Potential) -> Engine:
    return make_engine(potential, False)


def _name(potential: Potential, compile: Compile) -> EngineName:
    if compile is True:
        return CompiledEngine.name
    if compile is False:
        return _uncompiled(potential)
    if compile == "auto":
        return _fastest(potential)
    if compile not in get_args(EngineName):
        allowed = ", ".join(repr(name) for name in get_args(EngineName))
        raise InputError(f"compile is {compile!r}; allowed: 'auto', True, False, {allowed}")
    return compile


def _fastest(potential: Potential) -> EngineName:
    on_cpu = potential.e0.device.type == "cpu"
    if not on_cpu and TritonEngine.why_not(potential) is None:
        return TritonEngine.name
    if CudaGraphEngine.why_not(potential) is None:
        return CudaGraphEngine.name
    if on_cpu and not NativeEngine.serves(potential) and CompiledEngine.pays(potential):
        # A build takes longer than many calculations, so it is made on request only.
        return CompiledEngine.name if CompiledEngine.is_cached(potential) else _uncompiled(potential)
    return _uncompiled(potential)


def _uncompiled(potential: Potential) -> EngineName:
    return NativeEngine.name if NativeEngine.serves(potential) else EagerEngine.name
