"""Isolated atoms and dimers at a level of theory, computed once and kept in the user's cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from asecalc_mlip.data.label_files import open_label_file
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.errors import DataError, InputError
from asecalc_mlip.files import cache_folder, read_json, write_json
from asecalc_mlip.locks import locked_file
from asecalc_mlip.teachers.base import Failed, Labels
from asecalc_mlip.teachers.labelling import failures_of, label_structures
from asecalc_mlip.teachers.pyscf import PyscfTeacher, cores, ground_state
from asecalc_mlip.teachers.structures import isolated_atoms, isolated_dimers

__all__ = ["GroundStates", "write_atoms"]


def write_atoms(
    elements: Sequence[str],
    level: str,
    output: str | Path,
    *,
    dimers: int = 0,
    longest: float = 6.0,
    progress: bool = True,
) -> Path:
    """Write isolated atoms, and dimers of each two elements, with energies and forces of their ground states.

    Parameters
    ----------
    elements : sequence of str
        Symbols.
    level : str
        Functional and basis set, such as "PBE/def2-SVP".
    output : path
        Extended XYZ; continued where it is there already.
    dimers : int
        Distances of each dimer.
    longest : float
        Å; the longest of them.

    Raises
    ------
    InputError
        For symbols that are no elements, levels that PySCF does not know, and a file of other atoms or dimers, or one
        that another process writes.
    DataError
        When an isolated atom does not converge: without its energy the others mean nothing.
    """
    if unknown := [s for s in elements if s not in atomic_numbers or s == "X"]:
        raise InputError(f"{', '.join(unknown)}: no chemical element; give symbols such as H C O")
    numbers = [atomic_numbers[s] for s in elements]
    structures = [*isolated_atoms(numbers), *isolated_dimers(numbers, dimers, longest)]
    with locked_file(output):
        _check_continues(Path(output), structures)
        path = label_structures(structures, GroundStates(level), output, progress=progress, again=True)
    if failed := [one["formula"] for one in failures_of(path) if one["number"] < len(set(numbers))]:
        raise DataError(f"the isolated atom {', '.join(failed)} did not converge; see {path.stem}.failed.jsonl")
    return path


def _check_continues(path: Path, structures: Sequence[Atoms]) -> None:
    """Refuse a file whose frames are not the first ones of these structures: what follows would be others."""
    if not open_label_file(path, {}).count():
        return
    failed = {one["number"] for one in failures_of(path)}
    wanted = [atoms for k, atoms in enumerate(structures) if k not in failed]
    found = read_frames(path)
    same = len(found) <= len(wanted) and all(
        np.array_equal(one.numbers, other.numbers) and np.allclose(one.positions, other.positions, atol=1e-6)
        for one, other in zip(found, wanted, strict=False)
    )
    if not same:
        raise InputError(
            f"{path} has other atoms or dimers than these; choose another output: what was computed is in the cache"
        )


class GroundStates:
    """Teacher of isolated atoms and dimers: the lowest state of all spins, by PySCF, from the cache where it is there.

    Parameters
    ----------
    level : str
        Functional and basis set.
    """

    def __init__(self, level: str):
        self.teacher = PyscfTeacher(level, grid=2)
        self.name = f"{level}, lowest spin state"
        self.path = cache_folder() / "atoms" / f"{level.replace('/', '_')}_pyscf{version('pyscf')}.json"

    def recipe(self) -> dict[str, Any]:
        """Return level and version."""
        return {**self.teacher.recipe(), "teacher": self.name}

    def label(self, structures: Sequence[Atoms]) -> Iterator[Labels | Failed]:
        """Yield the labels of each structure, in order."""
        for atoms in structures:
            yield self._known(atoms) or self._computed(atoms)

    def _known(self, atoms: Atoms) -> Labels | None:
        found = self._cache().get(self._key(atoms))
        return None if found is None else Labels(float(found["energy"]), np.array(found["forces"], dtype=float))

    def _computed(self, atoms: Atoms) -> Labels | Failed:
        labels = ground_state(self.teacher, atoms)
        if isinstance(labels, Labels):
            entry = {"energy": labels.energy, "forces": labels.forces.tolist()}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {**self._cache(), self._key(atoms): entry})
        return labels

    def _cache(self) -> dict[str, Any]:
        try:
            return dict(read_json(self.path)) if self.path.is_file() else {}
        except (InputError, TypeError, ValueError):  # cut off, or no JSON: computed again
            return {}

    def _key(self, atoms: Atoms) -> str:
        symbols = atoms.get_chemical_symbols()
        distance = f" {atoms.get_distance(0, 1):.4f}" if len(atoms) == 2 else ""
        # Older entries of such elements were computed without the potential, and are wrong.
        core = " with core potential" if cores(self.teacher.basis, symbols) else ""
        return f"{'-'.join(symbols)}{distance}{core}"
