"""Data for training runs."""

import pytest
from ase.io import write

from asecalc_mlip import logs
from tests import teacher


@pytest.fixture(autouse=True)
def messages():
    """Shown as the commands show them, for tests that read them."""
    logs.show()
    yield
    logs.hide()


@pytest.fixture
def molecules(tmp_path):
    path = tmp_path / "train.xyz"
    write(path, teacher.as_reference(teacher.molecule_frames(60)), format="extxyz")
    return path
