"""Kernels of trainings on a GPU where there is one, else by Triton's interpreter on the CPU."""

from __future__ import annotations

import pytest
import torch

from tests import triton_interpreter
from tests.triton_interpreter import ON_GPU

triton_interpreter.decorate()


def pytest_collection_modifyitems(items):
    triton_interpreter.mark(items, "kernels/triton")


@pytest.fixture(scope="session")
def device():
    return torch.device("cuda" if ON_GPU else "cpu")
