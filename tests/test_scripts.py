"""The scripts of probes run as they stand, and say what the commands say."""

import sys
from pathlib import Path

import pytest

from tests import processes

SCRIPTS = Path(__file__).resolve().parents[1] / "md_protocols"


@pytest.mark.parametrize(
    "script, arguments, told, made",
    [
        ("diatomic.py", ["ethanol_painn.pt"], "6 pairs", "diatomic.png"),
        ("relax.py", ["ethanol_painn.pt"], "relaxed in", "relaxed.xyz"),
        ("phonons.py", ["ethanol_painn.pt", "si.xyz"], "does not know the element Si", None),
    ],
)
def test_script(script, arguments, told, made, tmp_path):
    from ase.build import bulk

    bulk("Si").write(tmp_path / "si.xyz")
    command = [sys.executable, str(SCRIPTS / script), *arguments]
    done = processes.run(command, cwd=tmp_path)
    assert (done.returncode == 0) == (made is not None), done.stderr
    assert told in done.stdout + done.stderr
    assert made is None or (tmp_path / made).is_file()


@pytest.mark.slow
def test_phonons_of_the_shipped_crystal(tmp_path):
    pytest.importorskip("phonopy")
    command = [sys.executable, str(SCRIPTS / "phonons.py"), "silica.pt"]
    done = processes.run(command, cwd=tmp_path)
    assert "no imaginary modes" in done.stdout and (tmp_path / "phonons.png").is_file(), done.stderr
