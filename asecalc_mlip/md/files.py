"""Files of a run: append-only trajectory and log, and one restart file that says how much of them counts.

The restart file holds the lengths in bytes of trajectory and log at the moment it was written. A restart cuts both
back to these lengths, so that whatever came after (a frame, half a frame) is written again and nothing twice.
Every write is one piece; if it fails (full disk) the piece is taken back, so the files stay readable.
"""

from __future__ import annotations

import io
import json
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from asecalc_mlip.analysis.fixed import fixed_atoms
from asecalc_mlip.data.xyz_files import xyz_bytes
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import read_json, to_json, write_bytes, write_json
from asecalc_mlip.locks import locked

TRAJECTORY = "trajectory.extxyz"
LOG = "log.csv"
RESTART = "restart.npz"
REFERENCE = "reference.json"
SUMMARY = "summary.json"
FIGURE = "figure.png"
UNSTABLE = "unstable.extxyz"
ALL = (TRAJECTORY, LOG, RESTART, REFERENCE, SUMMARY, FIGURE, UNSTABLE)
# Array of the restart file.
FIXED = "fixed"
LOG_COLUMNS = ("step", "time_ps", "temperature_K", "epot_eV", "ekin_eV", "etot_eV", "conserved_eV")


ADVICE = "what was written before is kept: make room and run the same command again, or continue with --restart"


class RunFiles:
    """The files of one run in one directory."""

    def __init__(self, directory: str | os.PathLike) -> None:
        self.directory = Path(directory)

    def path(self, name: str) -> Path:
        """Return path of one of the files."""
        return self.directory / name

    @property
    def found(self) -> list[str]:
        """Files of a run that are there."""
        return [name for name in ALL if self.path(name).exists()]

    @property
    def begun(self) -> bool:
        """Whether there is a run that can go on or has ended: it came to its first restart point."""
        return self.path(RESTART).exists()

    def check_free(self) -> None:
        """Refuse a directory with files of a run that cannot go on; what a run left before it began is removed."""
        if self.begun:
            raise InputError(f"{self.directory} has a run: give the same settings to continue, or another --output")
        found = self.found
        if found and self._rows() > 1:
            raise InputError(
                f"{self.directory} has files of a run ({', '.join(found)}) without its {RESTART}, and nothing is "
                "overwritten: give another --output"
            )
        for name in found:  # it was killed before its first restart point
            self.path(name).unlink(missing_ok=True)

    def start(self, columns: tuple[str, ...] = LOG_COLUMNS) -> None:
        """Make the directory and the log of a new run."""
        self.check_free()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.directory} cannot be made: {error.strerror}") from None
        self.append(LOG, (",".join(columns) + "\n").encode())

    def lock(self) -> AbstractContextManager[None]:
        """Keep the directory to this process."""
        return locked(self.directory, "--output")

    def wait_until_free(self) -> None:
        """Wait for a process that still works in the directory, such as a worker of a run that was killed."""
        if self.directory.is_dir():
            with locked(self.directory, "--output", make=False, wait=True):
                pass

    def append(self, name: str, data: bytes) -> None:
        """Add `data` at the end of a file, all of it or nothing."""
        path = self.path(name)
        try:
            with open(path, "ab", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                try:
                    view = memoryview(data)
                    while view:
                        view = view[file.write(view) :]
                except OSError:
                    file.truncate(end)
                    raise
        except OSError as error:
            raise _disk_error(path, error) from None

    def append_frame(self, atoms: Atoms) -> None:
        """Add one frame to the trajectory, in extended XYZ."""
        self.append(TRAJECTORY, xyz_bytes([atoms]))

    def write_frame(self, atoms: Atoms, name: str) -> None:
        """Write a file of one frame, in one piece."""
        self.write_bytes(name, xyz_bytes([atoms]))

    def append_row(self, values: tuple) -> None:
        """Add one row to the log; floats are written so that they read back exactly."""
        self.append(LOG, (",".join(repr(v) for v in values) + "\n").encode())

    def read_log(self) -> dict[str, np.ndarray]:
        """Read the log by columns, each an (n,) array."""
        columns = self.log_columns()
        table = np.genfromtxt(self.path(LOG), delimiter=",", skip_header=1, ndmin=2)
        return {name: table[:, k] if table.size else np.zeros(0) for k, name in enumerate(columns)}

    def log_columns(self) -> tuple[str, ...]:
        """Read the names of the columns of the log, which older versions may have begun with fewer."""
        with open(self.path(LOG), encoding="utf-8") as file:
            return tuple(file.readline().strip().split(","))

    def write_json(self, name: str, data: dict) -> None:
        """Write a JSON file in one piece; NaN and infinite numbers become null."""
        write_json(self.path(name), data, advice=ADVICE)

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file in one piece."""
        write_bytes(self.path(name), data, advice=ADVICE)

    def save_restart(self, arrays: dict[str, np.ndarray], meta: dict) -> None:
        """Write the restart file in one piece, after trajectory and log are safely on disk."""
        sizes = {}
        for name in (TRAJECTORY, LOG):
            try:
                with open(self.path(name), "rb") as file:
                    os.fsync(file.fileno())  # where some file systems notice that there is no room
                    sizes[name] = file.seek(0, os.SEEK_END)
            except OSError as error:
                raise _disk_error(self.path(name), error) from None
        buffer = io.BytesIO()
        content: dict[str, Any] = {"meta": np.array(to_json({**meta, "sizes": sizes}, indent=None)), **arrays}
        np.savez(buffer, **content)
        self.write_bytes(RESTART, buffer.getvalue())

    def load_restart(self) -> tuple[dict[str, np.ndarray], dict]:
        """Read arrays and meta data of the restart file."""
        path = self.path(RESTART)
        if not path.exists():
            raise InputError(
                f"{path} does not exist, so there is nothing to restart: give the --output of a run, or leave "
                "--restart out to begin one"
            )
        try:
            with np.load(path, allow_pickle=False) as data:
                arrays = {name: data[name] for name in data.files if name != "meta"}
                return arrays, json.loads(str(data["meta"]))
        except Exception as error:  # a zip, NumPy or JSON error, depending on what was damaged
            raise InputError(
                f"{path} is damaged and cannot be read ({error}): begin a new run in another --output"
            ) from None

    def summary(self) -> dict | None:
        """Read the summary of a run that was reported; None where there is none."""
        try:
            return read_json(self.path(SUMMARY), "summary")
        except InputError:
            return None

    def summary_of_ended(self) -> dict | None:
        """Read the summary of a run that made all its steps or broke; None where it can go on, or there is none."""
        summary = self.summary()
        return summary if summary is not None and summary.get("status") in ("finished", "unstable") else None

    def cut_back(self, sizes: dict[str, int]) -> None:
        """Cut trajectory and log back to the lengths of the restart point."""
        for name, size in sizes.items():
            path = self.path(name)
            if not path.exists() or path.stat().st_size < size:
                raise InputError(
                    f"{path} is missing or shorter than at the restart point ({size} bytes): it was changed after "
                    "the run; begin a new one in another --output"
                )
        for name, size in sizes.items():
            os.truncate(self.path(name), size)

    def _rows(self) -> int:
        """Rows of the log."""
        path = self.path(LOG)
        return path.read_bytes().count(b"\n") - 1 if path.exists() else 0


def extra_arrays(atoms: Atoms) -> dict[str, np.ndarray]:
    """Return masses, charges, tags and other numbers by atom that a calculator or the integrator may read."""
    known = ("numbers", "positions", "momenta")
    return {k: v for k, v in atoms.arrays.items() if k not in known and v.dtype.kind in "biuf"}


def fixed_array(atoms: Atoms) -> dict[str, np.ndarray]:
    """Return the numbers of the atoms that are fixed, for a restart file; nothing where all move."""
    fixed = fixed_atoms(atoms)[0]
    return {FIXED: np.flatnonzero(fixed)} if fixed.any() else {}


def stored_atoms(arrays: dict[str, np.ndarray], meta: dict) -> Atoms:
    """Make the start structure of a run from its restart file."""
    atoms = Atoms(meta["symbols"], arrays["start_positions"], cell=arrays["start_cell"], pbc=arrays["pbc"])
    for name, values in arrays.items():
        if name.startswith("atoms_"):
            atoms.set_array(name.removeprefix("atoms_"), values)
    if FIXED in arrays:
        atoms.set_constraint(FixAtoms(arrays[FIXED]))
    atoms.info.update(meta["info"])
    return atoms


def frame(atoms: Atoms, energy: float, forces: np.ndarray, **info) -> Atoms:
    """Copy positions, momenta, cell, fixed atoms, energy (eV), forces (eV/Å) and `info`, and nothing else.

    Masses are kept where they are not the standard ones (deuterium). Forces are those of the model, on fixed atoms too;
    of a frame that is read from a file, get_forces(apply_constraint=False) returns these.
    """
    copy = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, info=info)
    if not np.array_equal(atoms.get_masses(), copy.get_masses()):
        copy.set_masses(atoms.get_masses())
    copy.set_momenta(atoms.get_momenta())
    if FIXED in (fixed := fixed_array(atoms)):
        copy.set_constraint(FixAtoms(fixed[FIXED]))
    copy.calc = SinglePointCalculator(copy, energy=energy, forces=forces)
    return copy


def _disk_error(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be written: {error.strerror}; {ADVICE}")
