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
from ase.io import write

from asecalc_mlip.errors import InputError
from asecalc_mlip.files import locked, to_json, write_bytes, write_json

TRAJECTORY = "trajectory.extxyz"
LOG = "log.csv"
RESTART = "restart.npz"
REFERENCE = "reference.json"
SUMMARY = "summary.json"
FIGURE = "figure.png"
UNSTABLE = "unstable.extxyz"
ALL = (TRAJECTORY, LOG, RESTART, REFERENCE, SUMMARY, FIGURE, UNSTABLE)
LOG_COLUMNS = ("step", "time_ps", "temperature_K", "epot_eV", "ekin_eV", "etot_eV", "conserved_eV")
EXTRA_COLUMNS = {"npt": ("volume_A3", "pressure_GPa"), "anneal": ("target_K",)}


ADVICE = "what was written before is kept: make room and run the same command again, or continue with --restart"


class RunFiles:
    """The files of one run in one directory."""

    def __init__(self, directory: str | os.PathLike) -> None:
        self.directory = Path(directory)

    def path(self, name: str) -> Path:
        """Path of one of the files."""
        return self.directory / name

    def check_free(self) -> None:
        """Refuse a directory that has a run in it."""
        found = [name for name in ALL if self.path(name).exists()]
        if found:
            advice = "continue it with --restart, or give" if RESTART in found else "give"
            raise InputError(
                f"{self.directory} has a run already ({', '.join(found)}), and nothing is overwritten: "
                f"{advice} another --output."
            )

    def start(self, columns: tuple[str, ...] = LOG_COLUMNS) -> None:
        """Make the directory and the log of a new run."""
        self.check_free()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.directory} cannot be made: {error.strerror}.") from None
        self.append(LOG, (",".join(columns) + "\n").encode())

    def lock(self) -> AbstractContextManager[None]:
        """Keep the directory to this process."""
        return locked(self.directory, "--output")

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
        self.append(TRAJECTORY, _frame_bytes(atoms))

    def write_frame(self, atoms: Atoms, name: str) -> None:
        """Write a file of one frame, in one piece."""
        self.write_bytes(name, _frame_bytes(atoms))

    def append_row(self, values: tuple) -> None:
        """Add one row to the log; floats are written so that they read back exactly."""
        self.append(LOG, (",".join(repr(v) for v in values) + "\n").encode())

    def read_log(self) -> dict[str, np.ndarray]:
        """The log by columns, each an (n,) array."""
        with open(self.path(LOG), encoding="utf-8") as file:
            columns = file.readline().strip().split(",")
        table = np.genfromtxt(self.path(LOG), delimiter=",", skip_header=1, ndmin=2)
        return {name: table[:, k] if table.size else np.zeros(0) for k, name in enumerate(columns)}

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
        """Arrays and meta data of the restart file."""
        path = self.path(RESTART)
        if not path.exists():
            raise InputError(
                f"{path} does not exist, so there is nothing to restart: leave --restart out to start a run, "
                "or give the --output of the run."
            )
        try:
            with np.load(path, allow_pickle=False) as data:
                arrays = {name: data[name] for name in data.files if name != "meta"}
                return arrays, json.loads(str(data["meta"]))
        except Exception as error:  # a zip, NumPy or JSON error, depending on what was damaged
            raise InputError(f"{path} is damaged and cannot be read ({error}): start a new run.") from None

    def summary_of_broken_run(self) -> dict | None:
        """The summary if the run ended unstable, else None."""
        try:
            summary = json.loads(self.path(SUMMARY).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return summary if summary.get("status") == "unstable" else None

    def cut_back(self, sizes: dict[str, int]) -> None:
        """Cut trajectory and log back to the lengths of the restart point."""
        for name, size in sizes.items():
            path = self.path(name)
            if not path.exists() or path.stat().st_size < size:
                raise InputError(
                    f"{path} is missing or shorter than at the restart point ({size} bytes): it was changed after "
                    "the run. Start a new run in another --output."
                )
        for name, size in sizes.items():
            os.truncate(self.path(name), size)


def extra_arrays(atoms: Atoms) -> dict[str, np.ndarray]:
    """Masses, charges, tags and other numbers by atom that a calculator or the integrator may read."""
    known = ("numbers", "positions", "momenta")
    return {k: v for k, v in atoms.arrays.items() if k not in known and v.dtype.kind in "biuf"}


def stored_atoms(arrays: dict[str, np.ndarray], meta: dict) -> Atoms:
    """The start structure of a run from its restart file."""
    atoms = Atoms(meta["symbols"], arrays["start_positions"], cell=arrays["start_cell"], pbc=arrays["pbc"])
    for name, values in arrays.items():
        if name.startswith("atoms_"):
            atoms.set_array(name.removeprefix("atoms_"), values)
    atoms.info.update(meta["info"])
    return atoms


def _frame_bytes(atoms: Atoms) -> bytes:
    buffer = io.StringIO()
    write(buffer, atoms, format="extxyz")
    return buffer.getvalue().encode()


def frame(atoms: Atoms, energy: float, forces: np.ndarray, **info) -> Atoms:
    """A copy with positions, momenta, cell, energy (eV), forces (eV/Å) and `info`, and without anything else.

    Masses are kept where they are not the standard ones (deuterium).
    """
    copy = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, info=info)
    if not np.array_equal(atoms.get_masses(), copy.get_masses()):
        copy.set_masses(atoms.get_masses())
    copy.set_momenta(atoms.get_momenta())
    copy.calc = SinglePointCalculator(copy, energy=energy, forces=forces)
    return copy


def _disk_error(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be written: {error.strerror}; {ADVICE}")
