"""Checks of labels that need no physics: all alike, two that disagree, of several states, per atom, known as wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from asecalc_mlip.calculators.states import CHARGES, SPINS
from asecalc_mlip.data.labels import frame_name, is_isolated_atom
from asecalc_mlip.data.plausibility import Found, Problem, robust_fit
from asecalc_mlip.errors import DataError
from asecalc_mlip.units import LABELS, Label

__all__ = [
    "check_constants",
    "check_cores",
    "check_extensive",
    "check_rivals",
    "check_states",
    "refuse_without_cores",
]

LEAST_FRAMES = 10
# How much better, relative to their size, energies fit the composition when they are taken for energies per atom.
BETTER = 5.0
ASYMMETRY = 0.02
# Families of basis sets in PySCF, and the atomic number from which on all of their elements have core potentials.
CORES = {"def2": 37, "lanl": 11}


def check_constants(frames: Sequence[Atoms]) -> Found:
    """Look for labels that are the same in every frame, and stresses that are no symmetric tensors."""
    problems: list[Problem] = []
    warnings: list[str] = []
    several = [(i, atoms) for i, atoms in enumerate(frames) if len(atoms) > 1]
    for label in LABELS:
        values = [(i, a, value) for i, a in several if (value := _value(a, label)) is not None]
        if len(values) >= 3 and _same(values):
            text = f"the {label} of all {len(values)} frames {'is' if label != 'forces' else 'are'} the same, "
            size = float(np.abs(values[0][2]).max())
            problems.append(Problem(label, f"{text}{size:g}: the file holds no real {label}", size_only=False))
    for i, atoms in several:
        stress = atoms.info.get("stress")
        if stress is not None and np.abs(stress - stress.T).max() > ASYMMETRY * np.abs(stress).max() + 1e-5:
            text = f"the stress of {frame_name(atoms, i)} is not symmetric: nine numbers in another order?"
            problems.append(Problem("stress", text))
            break
    silent = [(i, a) for i, a in several if "forces" in a.arrays and not a.pbc.any() and not a.arrays["forces"].any()]
    if silent and len(silent) < len(several):
        names = ", ".join(frame_name(a, i) for i, a in silent[:5])
        warnings.append(f"{len(silent)} molecules have forces that are exactly zero: {names}")
    return problems, warnings


def check_states(frames: Sequence[Atoms]) -> Found:
    """Tell frames of the same atoms in several states of charge or spin, which a model takes for one."""
    warnings: list[str] = []
    for kind, names in (("charges", CHARGES), ("spin states", SPINS)):
        for name in names:
            states: dict[str, Counter[str]] = {}
            for atoms in frames:
                value = atoms.info.get(name)
                if _is_number(value) and not is_isolated_atom(atoms):
                    states.setdefault(atoms.get_chemical_formula(), Counter())[f"{value:g}"] += 1
            mixed = {formula: counts for formula, counts in states.items() if len(counts) > 1}
            if mixed:
                formula, counts = next(iter(mixed.items()))
                found = ", ".join(f"{value} in {n}" for value, n in counts.most_common(5))
                more = f" (so have {len(mixed) - 1} other compositions)" if len(mixed) > 1 else ""
                warnings.append(
                    f"the frames of {formula} have several {kind}: {name} is {found} of them{more}. A model does not "
                    "see this and learns a mean of the states: train one model for each"
                )
    return [], warnings


def check_rivals(frames: Sequence[Atoms]) -> Found:
    """Tell frames that have a label under two names with unlike values, of which one was taken."""
    warnings: list[str] = []
    for label in LABELS:
        found = [(i, a, a.info["label_rivals"][label]) for i, a in enumerate(frames) if _rival(a, label)]
        if found:
            i, atoms, name = found[0]
            taken = atoms.info.get("label_keys", {}).get(label, label)
            warnings.append(
                f"{len(found)} frames have another {label} as {name}, which differs from {taken}, e.g. "
                f"{frame_name(atoms, i)}: {taken} is taken; to choose, name it with {label}_key"
            )
    return [], warnings


def check_cores(frames: Sequence[Atoms]) -> Found:
    """Look for labels that our PySCF teacher made before it gave heavy elements the core potentials of their basis."""
    found = [(i, atoms, heavy) for i, atoms in enumerate(frames) if (heavy := _without_cores(atoms))]
    if not found:
        return [], []
    i, atoms, heavy = found[0]
    text = (
        f"labels of {len(found)} frames are by PySCF in an older version, without core potentials of "
        f"{', '.join(heavy)}, and wrong: {frame_name(atoms, i)} ({atoms.get_chemical_formula()}); compute them again, "
        "into another file"
    )
    return [Problem("structure", text, size_only=False)], []


def refuse_without_cores(frames: Sequence[Atoms]) -> None:
    """Raise DataError for labels that `check_cores` finds, where no census is taken."""
    for problem in check_cores(frames)[0]:
        raise DataError(problem.text)


def check_extensive(frames: Sequence[Atoms]) -> Found:
    """Look for energies that are per atom: they follow the composition without the number of atoms."""
    some = [a for a in frames if "energy" in a.info and np.isfinite(a.info["energy"]) and not is_isolated_atom(a)]
    sizes = np.array([len(atoms) for atoms in some], dtype=float)
    if len(some) < LEAST_FRAMES or sizes.max() < 1.5 * sizes.min():
        return [], []
    energies = np.array([atoms.info["energy"] for atoms in some])
    total = _relative(some, energies, energies / sizes)
    each = _relative(some, energies * sizes, energies)
    if each * BETTER > total:
        return [], []
    text = (
        "energies do not grow with the number of atoms: they seem to be per atom. Multiply each by its number of atoms"
    )
    return [Problem("energy", text)], []


def _without_cores(atoms: Atoms) -> list[str]:
    """Return the elements of a frame whose core potential its label lacks, as the file says itself."""
    if "pyscf" not in atoms.info or "core_potentials" in atoms.info:
        return []
    basis = str(atoms.info.get("teacher", "")).partition("/")[2].partition(",")[0].lower()
    first = next((z for family, z in CORES.items() if family in basis), None)
    return [] if first is None else [chemical_symbols[z] for z in sorted(set(atoms.numbers.tolist())) if z >= first]


def _relative(frames: Sequence[Atoms], energies: np.ndarray, per_atom: np.ndarray) -> float:
    """Typical distance from the fit by composition, relative to the typical energy per atom."""
    scale = float(np.median(np.abs(per_atom)))
    return float(np.median(np.abs(robust_fit(frames, energies)))) / max(scale, 1e-12)


def _value(atoms: Atoms, label: Label) -> np.ndarray | None:
    value = atoms.arrays.get("forces") if label == "forces" else atoms.info.get(label)
    return None if value is None else np.asarray(value, dtype=float)


def _same(values: Sequence[tuple[int, Atoms, np.ndarray]]) -> bool:
    first = values[0][2]
    if not all(value.shape == first.shape and np.array_equal(value, first) for _, _, value in values[1:]):
        return False
    positions = [atoms.positions for _, atoms, _ in values]
    cells = [atoms.cell.array for _, atoms, _ in values]
    # One structure many times has one label.
    return not (
        all(np.array_equal(positions[0], other) if positions[0].shape == other.shape else False for other in positions)
        and all(np.array_equal(cells[0], other) for other in cells)
    )


def _rival(atoms: Atoms, label: str) -> bool:
    return label in atoms.info.get("label_rivals", {})


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
