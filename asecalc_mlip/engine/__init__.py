"""How a model is run. `make_engine` picks; every engine turns an AtomGraph into a `Prediction`.

eager        autograd, any model and device
native       the whole network in one native call, on the CPU
compiled     traced and compiled once per machine by AOTInductor
cuda-graph   recorded once per size and replayed, on a GPU
triton       fused kernels for message passing, on a GPU, under CUDA graphs too

A sum of potentials of which a part runs natively has an engine for each part. A calculator has
one of these in a `MemoryGuard`, which refuses structures that would not fit into memory.
"""

from __future__ import annotations

from asecalc_mlip.engine.base import Compile, Engine, EngineName
from asecalc_mlip.engine.choose import make_engine
from asecalc_mlip.engine.compiled import CompiledEngine
from asecalc_mlip.engine.cuda_graph import CudaGraphEngine
from asecalc_mlip.engine.device import checked_device
from asecalc_mlip.engine.eager import EagerEngine
from asecalc_mlip.engine.guard import MemoryGuard
from asecalc_mlip.engine.native import NativeEngine
from asecalc_mlip.engine.precision import Precision
from asecalc_mlip.engine.summed import SumEngine
from asecalc_mlip.engine.triton import TritonEngine

__all__ = [
    "Compile",
    "CompiledEngine",
    "CudaGraphEngine",
    "EagerEngine",
    "Engine",
    "EngineName",
    "MemoryGuard",
    "NativeEngine",
    "Precision",
    "SumEngine",
    "TritonEngine",
    "checked_device",
    "make_engine",
]
