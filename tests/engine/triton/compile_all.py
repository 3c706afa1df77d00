"""Compile every kernel for a GPU of a kind, here H100, without having one; print name, registers and spilled bytes.

Run as a process of its own, because functions that the interpreter runs are not compiled.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from asecalc_mlip.engine.triton import algebra, convolve, core, mixing, splines, tensors
from asecalc_mlip.engine.triton.blocks import Blocks

TARGET = GPUTarget("cuda", 90, 32)
WHOLE = {"rows", "senders", "place", "elements", "neighbors", "numbers"}
COUNTS = {"n_edges", "n_atoms", "n_species", "size", "F"}
ALWAYS_DOUBLE = {"vectors", "spline"}
DOUBLE_HERE = {("locate_backward", "gradient"), ("core_backward", "out")}
BLOCKS = Blocks()
ROWS = {"EDGES": BLOCKS.edges, "CHANNELS": BLOCKS.channels}
KERNELS = [
    (splines.locate, {"EDGES": 256}),
    (splines.locate_backward, {"EDGES": 256}),
    *((convolve.convolve, {"PARTS": parts, "BASE": parts > 1, **ROWS}) for parts in (1, 2, 3)),
    *((convolve.convolve_backward, {"PARTS": parts, **ROWS}) for parts in (1, 2, 3)),
    *((convolve.convolve_edges, {"PARTS": parts, **ROWS}) for parts in (1, 2)),
    *((kernel, ROWS) for kernel in (tensors.spread, tensors.spread_edges, tensors.gather, tensors.gather_backward)),
    (mixing.lengths, {"BLOCK": 256}),
    (mixing.lengths_backward, {"BLOCK": 256}),
    *((mixing.combine, {"LAST": last, "BLOCK": 256}) for last in (False, True)),
    *((mixing.combine_backward, {"LAST": last, "BLOCK": 256}) for last in (False, True)),
    (core.core, {"EDGES": 32}),
    (core.core_backward, {"EDGES": 32}),
    (algebra.interact, {"SYMMETRIC": True, "BLOCK": 128}),
    *((algebra.interact_backward, {"SYMMETRIC": symmetric, "BLOCK": 128}) for symmetric in (True, False)),
    *(
        (getattr(algebra, name + end), {"BLOCK": 128})
        for name in ("bound", "update", "scale", "squares")
        for end in ("", "_backward")
    ),
]


def compiled(kernel, constants, kind):
    """Return the program of a kernel in fp32 or fp64, with pointers and widths that are multiples of 16."""
    signature, attributes = {}, {}
    for index, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
            continue
        double = name in ALWAYS_DOUBLE or (kernel.__name__, name) in DOUBLE_HERE
        signature[name] = "i32" if name in COUNTS else f"*{'i32' if name in WHOLE else 'fp64' if double else kind}"
        if name not in COUNTS or name == "F":
            attributes[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=TARGET, options={"num_warps": BLOCKS.warps})


def resources(program):
    """Registers of a thread, and bytes that did not fit into them."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(program.asm["cubin"])
        file.flush()
        text = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return tuple(int(re.search(rf"{name}:(\d+)", text).group(1)) for name in ("REG", "STACK"))


if __name__ == "__main__":
    for kind in sys.argv[1:] or ["fp32", "fp64"]:
        for kernel, constants in KERNELS:
            program = compiled(kernel, constants, kind)
            assert ".target sm_90" in program.asm["ptx"]
            assert "atom." not in program.asm["ptx"] and "red.global" not in program.asm["ptx"]
            print(kernel.__name__, *constants.values(), kind, *resources(program))
