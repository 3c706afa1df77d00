"""Fixtures shared by all tests: analytic data sets, the place of real data, one thread per worker.

Imports torch in fixtures alone: the process that gives tests to workers needs it not, and they wait for it.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
NO_DATA = (
    "no ab-initio data: put extended XYZ files such as rmd17_aspirin_train.xyz (rMD17, doi "
    "10.6084/m9.figshare.12672038, energies REF_energy in eV) into a folder and set ASECALC_DATA to it, or into "
    "../shared/data"
)


def pytest_collection_finish(session):
    """Leave out of garbage collection what was imported, half a million objects that stay."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def single_thread():
    """Keep torch to one thread: workers share few cores, and sums stay the same from run to run."""
    try:
        import torch
    except ImportError:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def restore_dtype():
    """Fail a test that changes the default dtype, which would break the tests after it."""
    import torch

    before = torch.get_default_dtype()
    yield
    after = torch.get_default_dtype()
    torch.set_default_dtype(before)
    assert after == before, f"the test left the default dtype at {after}"


@pytest.fixture(scope="session")
def ethanol_frames():
    """60 labelled frames of an ethanol-like molecule (9 atoms)."""
    from tests import teacher

    return teacher.molecule_frames(60)


@pytest.fixture(scope="session")
def crystal_frames():
    """20 labelled frames of a rock salt cell (8 atoms, periodic) with stress."""
    from tests import teacher

    return teacher.crystal_frames(20)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real data; skips the test where there is none."""
    for folder in (os.environ.get("ASECALC_DATA"), REPOSITORY.parent / "shared" / "data"):
        if folder and any(Path(folder).glob("*.xyz")):
            return Path(folder)
    pytest.skip(NO_DATA)


@pytest.fixture(scope="session")
def data_file(data_dir):
    """Look up one file of the real data by name; skips where it is missing."""

    def find(name: str) -> Path:
        path = data_dir / name
        if not path.is_file():
            pytest.skip(f"{name} is not in {data_dir}")
        return path

    return find
