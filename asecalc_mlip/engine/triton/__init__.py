"""Fused kernels for a GPU, written in Triton: message passing, forward and backward, one program for each atom.

The kernels run on a GPU, and on the CPU under TRITON_INTERPRET=1, for tests. Importing this package does not import
triton, which the build of torch for CPUs does not bring.
"""

from __future__ import annotations

from asecalc_mlip.engine.triton.engine import TritonEngine

__all__ = ["TritonEngine"]
