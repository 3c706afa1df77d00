"""Kernels on a GPU where there is one, else by Triton's interpreter on the CPU; without triton these tests are skipped.

A function is interpreted if TRITON_INTERPRET is set when it is decorated, which is at import: so this comes first.
"""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch

ON_GPU = torch.cuda.is_available()
HAS_TRITON = importlib.util.find_spec("triton") is not None

if HAS_TRITON and not ON_GPU:
    os.environ["TRITON_INTERPRET"] = "1"
    from tests.engine.triton import interpreter

    interpreter.mend()
    import asecalc_mlip.engine.triton.network  # noqa: F401, decorates the kernels

    del os.environ["TRITON_INTERPRET"]


def pytest_collection_modifyitems(items):
    for item in items:
        if "engine/triton" not in str(item.path):
            continue
        if not HAS_TRITON:
            item.add_marker(pytest.mark.skip(reason="triton is not installed"))
        elif ON_GPU:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """Let the engine run on the CPU too."""
    if not ON_GPU:
        monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def device():
    return torch.device("cuda" if ON_GPU else "cpu")
