"""Triton's interpreter, on the CPU, in place of a GPU: kernels that it decorates, and what 3.6 needs with NumPy 2.4.

A function is interpreted if TRITON_INTERPRET is set when it is decorated, which is at import: so conftest.py of the
folders of these tests calls `decorate` first. Where there is a GPU the same tests run there, marked gpu.
"""

from __future__ import annotations

import importlib.util
import os
from functools import cache

import pytest
import torch

__all__ = ["HAS_TRITON", "ON_GPU", "decorate", "mark"]

ON_GPU = torch.cuda.is_available()
HAS_TRITON = importlib.util.find_spec("triton") is not None


@cache
def decorate():
    """Import all kernels, for the interpreter; once, and nothing on a GPU and without triton."""
    if ON_GPU or not HAS_TRITON:
        return
    os.environ["TRITON_INTERPRET"] = "1"
    _mend()
    # The first launch imports it, and would find functions of the interpreter without being told.
    import triton.experimental.gluon  # noqa: F401

    import asecalc_mlip.engine.triton.network
    import asecalc_mlip.kernels.triton.launch  # noqa: F401

    del os.environ["TRITON_INTERPRET"]


def mark(items, folder):
    """Skip the tests of a folder without triton; mark them gpu where there is one."""
    for item in items:
        if folder not in str(item.path):
            continue
        if not HAS_TRITON:
            item.add_marker(pytest.mark.skip(reason="triton is not installed: pip install triton"))
        elif ON_GPU:
            item.add_marker(pytest.mark.gpu)


def _mend():
    """Let it run with NumPy 2.4, and faster."""
    import triton.language as tl
    from triton.runtime import interpreter
    from triton.runtime.jit import JITFunction

    # Where triton was imported before, its own functions, such as zeros and sum, are for a GPU.
    for module in (tl, tl.standard):
        for name, value in list(vars(module).items()):
            if isinstance(value, JITFunction):
                setattr(module, name, interpreter.InterpretedFunction(value.fn))

    patch_tensor = interpreter._patch_lang_tensor

    def patched(tensor, scope):
        patch_tensor(tensor, scope)
        # Its own takes int() of an array of one dimension, which NumPy no longer allows; loops over a row need it.
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    def call(function, *args, **options):
        # Its own patches the language anew at every call of a function from a kernel.
        if tl.core.is_builtin(tl.core.full) or tl.core.is_builtin(tl.load):
            interpreter._patch_lang(function.fn)
        return function.rewrite()(*args, **options)

    def without_name(self, types, fields=None):
        # Its own spells out a name, for nobody, at every tensor.
        self.types, self.fields, self.name = types, fields or [""] * len(types), "tuple"

    interpreter._patch_lang_tensor = patched
    interpreter.InterpretedFunction.__call__ = call
    tl.core.tuple_type.__init__ = without_name
