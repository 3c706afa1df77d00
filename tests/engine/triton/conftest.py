"""Fused kernels on a GPU where there is one, else by Triton's interpreter on the CPU."""

from __future__ import annotations

import pytest
import torch

from tests import triton_interpreter
from tests.triton_interpreter import ON_GPU

triton_interpreter.decorate()


def pytest_collection_modifyitems(items):
    triton_interpreter.mark(items, "engine/triton")


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """Let the engine run on the CPU too."""
    if not ON_GPU:
        monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def device():
    return torch.device("cuda" if ON_GPU else "cpu")
