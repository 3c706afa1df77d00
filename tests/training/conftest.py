"""Data for training runs."""

import pytest
from ase.io import write

from tests import teacher


@pytest.fixture
def molecules(tmp_path):
    path = tmp_path / "train.xyz"
    write(path, teacher.as_reference(teacher.molecule_frames(60)), format="extxyz")
    return path
