"""Compiled programs on disk: found again in little time, and whatever is wrong with them, the model still runs."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ase import Atoms

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.engine import CompiledEngine, EagerEngine, NativeEngine, make_engine
from asecalc_mlip.engine import cache as cache_module
from asecalc_mlip.engine.cache import CacheError, cache_folder, fetch, store
from tests.cases import make_potential, make_structure, model_file

REPOSITORY = Path(__file__).resolve().parents[2]


def write(text):
    return lambda path: path.write_bytes(text)


def python(script, **environment):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)


def falls_back(potential, reason):
    """Make the compiled engine and expect one warning that names the reason, and an engine that works."""
    with pytest.warns(UserWarning, match=reason) as warned:
        engine = make_engine(potential, True)
    assert len(warned) == 1
    assert type(engine) in (EagerEngine, NativeEngine)
    assert engine.describe() in str(warned[0].message)


def test_stored_files_are_found_again_by_their_key(cache):
    key = {"torch": "2.7", "sizes": [1, 2]}
    assert fetch("painn", key) is None
    path = store("painn", key, write(b"program"))
    assert path.parent == cache
    assert fetch("painn", key) == path and path.read_bytes() == b"program"
    assert fetch("painn", {**key, "torch": "2.8"}) is None
    assert [p.name for p in cache.iterdir()] == [path.name]


def test_a_build_that_fails_leaves_nothing(cache):
    def fails(path):
        path.write_bytes(b"half")
        raise KeyError("compiler")

    with pytest.raises(KeyError):
        store("painn", {}, fails)
    assert not list(cache.iterdir())


def test_a_damaged_file_is_named_removed_and_made_anew(cache):
    path = store("painn", {}, write(b"program"))
    path.write_bytes(b"progran")
    with pytest.raises(CacheError, match=f"{path.name} was damaged"):
        fetch("painn", {})
    assert fetch("painn", {}) is None
    assert store("painn", {}, write(b"program")) == path


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_a_folder_that_others_can_write_to_is_refused(cache):
    store("painn", {}, write(b"program"))
    cache.chmod(0o777)
    for use in (lambda: fetch("painn", {}), lambda: store("painn", {"other": 1}, write(b"x"))):
        with pytest.raises(CacheError, match="written by others"):
            use()


def test_the_oldest_files_go_first(cache, monkeypatch):
    monkeypatch.setattr(cache_module, "MOST_FILES", 3)
    for k in range(5):
        path = store("painn", {"k": k}, write(b"%d" % k))
        os.utime(path, (k, k))
        if k == 2:
            os.utime(fetch("painn", {"k": 0}), (10, 10))
    left = [k for k in range(5) if fetch("painn", {"k": k})]
    assert left == [0, 3, 4]


def test_what_a_killed_build_left_goes_after_a_day(cache):
    for name, age in (("left", 90000), ("busy", 60)):
        folder = cache / f".building-{name}"
        folder.mkdir()
        (folder / "program.pt2").write_bytes(b"half")
        os.utime(folder, (time.time() - age, time.time() - age))
    path = store("painn", {}, write(b"program"))
    assert sorted(p.name for p in cache.iterdir()) == [".building-busy", path.name]


def test_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("ASECALC_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("ASECALC_CACHE")
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert cache_folder() == tmp_path / "asecalc_mlip"


def test_no_cache_folder(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ASECALC_CACHE", str(tmp_path / "file" / "below"))
    falls_back(make_potential("painn"), "cache folder .* cannot be used.*Runs instead")


def test_a_full_disk(monkeypatch):
    def full(potential, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("asecalc_mlip.engine.compiled._build", full)
    falls_back(make_potential("painn"), "No space left on device")


def test_a_broken_compiler(cache, tmp_path, monkeypatch, caplog, capfd):
    from torch._inductor import config

    path = model_file(tmp_path, "schnet", n_interactions=1)
    # Torch's own cache would spare it the compiler.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    # What torch makes of CXX when it is imported.
    with config.patch({"cpp.cxx": ("/bin/false",)}), pytest.warns() as caught:
        calc = PIWSLCalculator.load(path, compile=True, device="cpu")
    (message,) = (str(warning.message) for warning in caught if warning.category is UserWarning)
    assert "the compiled engine cannot be used: " in message and "/bin/false" in message and "Runs instead" in message
    assert "compiling schnet for this machine" in caplog.text and "Traceback" not in capfd.readouterr().err
    assert "compiled schnet" not in str(calc)
    assert calc.get_forces(Atoms("CO", [[0, 0, 0], [0, 0, 1.1]])).shape == (2, 3)
    assert not list(cache.iterdir())


def test_a_damaged_program(with_program, cache):
    potential = with_program(make_potential("painn"))
    for path in cache.glob("*.pt2"):
        path.write_bytes(path.read_bytes()[:-1000])
    falls_back(potential, "was damaged and is removed")


def test_a_program_that_does_not_load(cache, monkeypatch):
    monkeypatch.setattr("asecalc_mlip.engine.compiled._build", lambda potential, path: path.write_bytes(b"no zip"))
    falls_back(make_potential("painn"), "does not load")


def test_another_torch_looks_for_a_program_of_its_own(with_program, monkeypatch):
    potential = with_program(make_potential("painn"))
    assert CompiledEngine.is_cached(potential)
    monkeypatch.setattr(torch, "__version__", "99.0")
    assert not CompiledEngine.is_cached(potential)
    monkeypatch.setattr("asecalc_mlip.engine.compiled._build", lambda potential, path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_engine(potential, True)


def test_one_program_serves_all_weights_of_a_size(with_program):
    from asecalc_mlip.graph import graph_from_atoms

    with_program(make_potential("painn"))
    other = make_potential("painn", seed=5)
    assert CompiledEngine.is_cached(other)
    assert not CompiledEngine.is_cached(make_potential("painn", n_rbf=9))
    assert not CompiledEngine.is_cached(make_potential("painn", cutoff=4.5))
    graph = graph_from_atoms(make_structure("molecule"), 4.0)
    assert torch.allclose(CompiledEngine(other)(graph).forces, EagerEngine(other)(graph).forces, atol=1e-10)


def test_a_first_call_with_a_program_in_the_cache_takes_little_time(with_program, cache, tmp_path):
    with_program(make_potential("painn"))
    path = model_file(tmp_path)
    script = (
        "import sys, time, torch; from ase import Atoms; from asecalc_mlip import PIWSLCalculator\n"
        # Processor time, which other work on the machine does not lengthen.
        "start = time.process_time()\n"
        f"calc = PIWSLCalculator.load({str(path)!r}, dtype='float64', compile=True, device='cpu')\n"
        "calc.get_forces(Atoms('CO', [[0, 0, 0], [0, 0, 1.1]]))\n"
        "print(time.process_time() - start, calc.engine.describe())\n"
        "print('torch._inductor.compile_fx' in sys.modules)"
    )
    run = python(script)
    seconds, rest = run.stdout.split(maxsplit=1)
    assert "compiled painn" in rest and rest.endswith("False\n")
    assert "compiling" not in run.stderr
    assert float(seconds) < 2.0


def test_the_calculator_says_what_runs(with_program, tmp_path):
    with_program(make_potential("painn"))
    path = model_file(tmp_path)
    compiled = PIWSLCalculator.load(path, dtype="float64", compile=True)
    assert "compiled painn" in str(compiled)
    assert "native message passing" in str(PIWSLCalculator.load(path, compile="eager")) or not NativeEngine.serves(
        compiled.potential
    )
    atoms = make_structure("molecule")
    forces = PIWSLCalculator.load(path, dtype="float64", compile="eager").get_forces(atoms)
    assert abs(compiled.get_forces(atoms) - forces).max() < 1e-10


def test_a_torch_with_another_loader(with_program, monkeypatch):
    from asecalc_mlip.graph import graph_from_atoms

    potential = with_program(make_potential("painn"))
    graph = graph_from_atoms(make_structure("molecule"), 4.0)
    forces = CompiledEngine(potential)(graph).forces
    calls = []

    class Other(torch._C._aoti.AOTIModelPackageLoader):
        def __init__(self, *arguments):
            calls.append(arguments)
            if len(calls) == 1:
                raise TypeError("incompatible constructor arguments")
            super().__init__(*arguments)

    monkeypatch.setattr("torch._C._aoti.AOTIModelPackageLoader", Other)
    assert torch.equal(CompiledEngine(potential)(graph).forces, forces)
    assert len(calls) == 2
