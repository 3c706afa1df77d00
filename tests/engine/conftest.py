"""A cache folder for compiled programs that the tests share and nobody else sees."""

import os
import shutil

import pytest

from asecalc_mlip.locks import locked


@pytest.fixture(scope="session")
def built_programs(tmp_path_factory):
    """Folder with the compiled programs of the session, one for all its workers; tests copy what they need."""
    place = tmp_path_factory.getbasetemp()
    folder = (place.parent if "PYTEST_XDIST_WORKER" in os.environ else place) / "programs"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """An empty cache folder of the test's own."""
    folder = tmp_path_factory.mktemp("cache")
    folder.chmod(0o700)
    monkeypatch.setenv("ASECALC_CACHE", str(folder))
    return folder


@pytest.fixture
def with_program(built_programs, cache):
    """Function that puts the program of a potential into the cache, compiled once per session."""

    def put(potential):
        from asecalc_mlip.engine.compiled import CompiledEngine, _key

        name, _ = _key(potential)
        with locked(built_programs, wait=True):
            for path in built_programs.glob(f"{name}-*.pt2"):
                shutil.copy(path, cache)
            if not CompiledEngine.is_cached(potential):
                if shutil.which("c++") is None and shutil.which("g++") is None:
                    pytest.skip("no C++ compiler")
                CompiledEngine(potential)
                for path in cache.glob("*.pt2"):
                    shutil.copy(path, built_programs)
        return potential

    return put
