"""Compile every kernel for an H100, without having one, as engine and trainings call it.

Printed are whose it is, the name, registers of a thread, bytes in memory, operations and numbers read of an edge and
channel, and numbers that a channel of an atom streams.

The driver is one that knows the kind of GPU and nothing else, and launches are left out. Run as a process of its own,
because functions that the interpreter runs are not compiled.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from ase import Atoms
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from asecalc_mlip.engine.triton.network import fuse
from asecalc_mlip.graph import graph_from_atoms
from asecalc_mlip.kernels.triton.examples import derivatives, example
from asecalc_mlip.kernels.triton.launch import TRITON
from asecalc_mlip.models import PaiNN, SchNet, TensorNet
from asecalc_mlip.models.sum import Sum
from asecalc_mlip.models.zbl import ZBL
from tests.kernels.triton.operations import OPERATIONS

TARGET = GPUTarget("cuda", 90, 32)
CUTOFF = 3.0


class Driver:
    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        return TARGET


def networks(F):
    """One of each architecture, and each variant that has a kernel of its own."""
    for make in (PaiNN, SchNet, TensorNet):
        yield make(CUTOFF, F, n_interactions=2)
    yield TensorNet(CUTOFF, F, n_interactions=1, messages="own", group="SO3")
    yield Sum([SchNet(CUTOFF, F, n_interactions=1), ZBL()], [1.0, 1.0])


def programs(dtype, F):
    """Compiled programs of all kernels, forward and backward, with the name of each and its constants."""
    found = {}
    run = JITFunction.run

    def compiled_only(self, *args, grid, warmup, **options):
        program = run(self, *args, grid=grid, warmup=True, **options)
        owner = self.fn.__module__.split(".")[1]
        found[program.hash] = (f"{owner} {self.__name__}", {k: v for k, v in options.items() if k.isupper()}, program)

    JITFunction.run = compiled_only
    for network in networks(F):
        graph = graph_from_atoms(Atoms("OCH", [[0.0, 0.0, 0.0], [1.1, 0.3, 0.2], [-0.4, 0.9, -0.5]]), CUTOFF)
        vectors = graph.vectors().requires_grad_()
        from asecalc_mlip.graph import EdgeGraph

        edges = EdgeGraph(
            graph.numbers, None, None, centers=graph.centers, neighbors=graph.neighbors, cell=None, edge_vectors=vectors
        )
        fuse(network.to(dtype))(edges).sum().backward()
    for name, operation in OPERATIONS.items():
        inputs, shapes, ends = example(name, atoms=5, edges=20, features=F, dtype=dtype)
        derivatives(inputs, operation.by(TRITON, inputs, shapes, *ends))
    JITFunction.run = run
    return found.values()


def resources(program):
    """Registers of a thread, and bytes that did not fit into them."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(program.asm["cubin"])
        file.flush()
        text = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return tuple(int(re.search(rf"{name}:(\d+)", text).group(1)) for name in ("REG", "STACK"))


def counted(text):
    """Operations and numbers read in the loop over edges, (EDGES, CHANNELS) each; those of kernels without one."""
    loop = text.partition("scf.for")[2].partition("scf.yield")[0]
    both, one = r"tensor<\d+x(?!1x)\d+x", r"tensor<\d+x"
    work = len(re.findall(rf"arith\.(?:mulf|addf|subf) .*: {both}f32>", loop)) + loop.count('"tt.reduce"')
    read = len(re.findall(rf"tt\.load .*: {both}!tt\.ptr<f32>>", loop))
    return work, read, 0 if loop else len(re.findall(rf"tt\.(?:load|store) .*: {one}!tt\.ptr<f32>>", text))


if __name__ == "__main__":
    driver.set_active(Driver())
    for name, constants, program in programs(getattr(torch, sys.argv[1]), int(sys.argv[2])):
        assert ".target sm_90" in program.asm["ptx"]
        assert not re.search(r"\b(atom|red)\.", program.asm["ptx"]), f"{name} adds atomically"
        print(name, *constants.values(), *resources(program), *counted(program.asm["ttir"]))
