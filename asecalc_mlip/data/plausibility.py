"""Checks of labels against what nature allows.

Each check takes all frames and returns problems, which stop a training, and warnings, which do not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from asecalc_mlip.data.labels import frame_name, is_isolated_atom

MAX_FORCE = 500.0  # eV/Å; the hardest real set seen, compressed TiO2, has 191
MANY_FORCE = 100.0  # eV/Å; worth a word
MAX_TYPICAL_FORCE = 10.0  # eV/Å, median over frames of the rms force; real sets: below 2.1
MAX_ENERGY_SPREAD = 60.0  # eV per atom off the fit by composition; TiO2: 29
# eV per atom, and times the typical distance from that fit; compressed TiO2 has 118, other real sets below 21.
OUTLIER, OUTLIER_RATIO, LEAST_ENERGIES = 0.3, 50.0, 10
LEAST_PER_ELEMENT = 4
# Gap between a few energies and the rest, over the range of the rest; real sets: below 0.21.
WIDE_GAP, LEAST_FOR_GAP = 0.5, 25
TWO_LEVELS = 0.3  # eV per atom between two groups of energies of one composition
MAX_ENERGY = 100.0  # eV per atom above zero
MAX_STRESS = 20.0  # eV/Å³ (3200 GPa)
UNIT_RATIOS = {
    "kcal/mol and eV": 23.0605,
    "Hartree and eV": 27.2114,
    "Rydberg and eV": 13.6057,
    "kJ/mol and eV": 96.4853,
    "kJ/mol and kcal/mol": 4.184,
    "kcal/mol and Hartree": 627.5095,
    "meV and eV": 1000.0,
}
ADVICE = (
    "give the units of the file, for a training as data.energy_unit, data.length_unit, data.force_unit, else by "
    "'asecalc data convert FILE NEW --energy-unit …', and convert files of unlike units one by one"
)
Found = tuple[list["Problem"], list[str]]


@dataclass(frozen=True)
class Problem:
    """Something that stops a training.

    Attributes
    ----------
    label : str
        ``energy``, ``forces``, ``stress`` or ``structure``.
    text : str
        What is wrong, where, and what to do.
    size_only : bool
        True if the value is usable and only its size is implausible.
    """

    label: str
    text: str
    size_only: bool = True


def check_energies(frames: Sequence[Atoms]) -> Found:
    """Look for energies that are not finite, too low for any electronic structure, or of several units."""
    labelled = [(i, atoms) for i, atoms in enumerate(frames) if "energy" in atoms.info]
    if problem := _not_finite("energy", [(i, a, a.info["energy"]) for i, a in labelled]):
        return [problem], []
    if not labelled:
        return [], []
    problems = [problem for i, atoms in labelled if (problem := _energy_size(i, atoms))][:5]
    found, warnings = _energy_clusters(labelled)
    problems += found
    structures = [(i, atoms) for i, atoms in labelled if not is_isolated_atom(atoms)]
    if problems or not structures:
        return problems, warnings
    found, told = _energy_outliers(structures)
    return found, warnings or told


def check_forces(frames: Sequence[Atoms]) -> Found:
    """Look for forces that are not finite or too large, and for files whose forces are in other units."""
    labelled = [(i, atoms, atoms.arrays["forces"]) for i, atoms in enumerate(frames) if "forces" in atoms.arrays]
    if problem := _not_finite("forces", labelled):
        return [problem], []
    if not labelled:
        return [], []
    largest = np.array([np.linalg.norm(forces, axis=1).max() for _, _, forces in labelled])
    rms = np.array([np.sqrt(np.mean(forces**2)) for _, _, forces in labelled])
    problems: list[Problem] = []
    warnings = _force_groups(labelled, rms)
    i, atoms, _ = labelled[int(largest.argmax())]
    where = f"{frame_name(atoms, i)} has a force of {largest.max():.4g} eV/Å"
    if largest.max() > MAX_FORCE:
        problems.append(
            Problem(
                "forces",
                f"{where}; more than {MAX_FORCE:g} eV/Å is taken for an error of units or a "
                f"failed calculation: leave the frame out, or {ADVICE}",
            )
        )
    elif largest.max() > MANY_FORCE:
        warnings.append(f"{np.sum(largest > MANY_FORCE)} frames have forces above {MANY_FORCE:g} eV/Å; {where}")
    if (typical := float(np.median(rms))) > MAX_TYPICAL_FORCE:
        problems.append(
            Problem(
                "forces",
                f"the rms force of a typical frame is {typical:.3g} eV/Å; real sets lie "
                f"below 2 eV/Å, so the file may be in kcal/mol or per Bohr: {ADVICE}",
            )
        )
    if rms.max() == 0 and any(len(atoms) > 1 for _, atoms, _ in labelled):
        problems.append(Problem("forces", "all forces are exactly zero: the file holds no real forces", False))
    return problems, warnings


def check_stresses(frames: Sequence[Atoms]) -> Found:
    """Look for stresses that are not finite, too large, or lack a cell."""
    labelled = [(i, atoms, atoms.info["stress"]) for i, atoms in enumerate(frames) if "stress" in atoms.info]
    if problem := _not_finite("stress", labelled):
        return [problem], []
    for i, atoms, stress in labelled:
        if not atoms.pbc.any():
            return [Problem("stress", f"{frame_name(atoms, i)} has a stress but no periodic direction", False)], []
        if np.abs(stress).max() > MAX_STRESS:
            text = (
                f"{frame_name(atoms, i)} has a stress of {np.abs(stress).max():.4g} eV/Å³ "
                f"({np.abs(stress).max() * 160.2:.3g} GPa). Stresses in kbar or GPa have a name for it: "
                "--stress-unit kbar, for a training data.stress_unit=kbar"
            )
            return [Problem("stress", text)], []
    return [], []


def robust_fit(frames: Sequence[Atoms], energies: np.ndarray) -> np.ndarray:
    """Return energies per atom (eV) minus a fit linear in the composition that few bad frames cannot bend."""
    elements = sorted({int(z) for atoms in frames for z in atoms.numbers})
    most = elements[-1] + 1
    counts = np.array([np.bincount(atoms.numbers, minlength=most)[elements] for atoms in frames], dtype=float)
    fractions = counts / counts.sum(axis=1, keepdims=True)
    target = energies / counts.sum(axis=1)
    weights = np.ones(len(frames))
    residual = target
    for _ in range(15):  # reweighted least squares: the sum of absolute deviations
        # Normal equations, because the plain solution of 85 elements in 1000 frames takes a second on many threads.
        normal = fractions.T @ (fractions * weights[:, None])
        solution = np.linalg.pinv(normal, rcond=1e-12, hermitian=True) @ (fractions.T @ (target * weights))
        residual = target - fractions @ solution
        weights = 1.0 / np.maximum(np.abs(residual), 0.05)
    return residual


def _not_finite(label: str, labelled: Sequence[tuple[int, Atoms, object]]) -> Problem | None:
    bad = [frame_name(atoms, i) for i, atoms, value in labelled if not np.isfinite(np.asarray(value, float)).all()]
    if not bad:
        return None
    names = ", ".join(bad[:5]) + (", …" if len(bad) > 5 else "")
    text = f"the {label} of {len(bad)} frame(s) is NaN or infinite: {names}; leave them out, they did not converge"
    return Problem(label, text, size_only=False)


def _energy_size(i: int, atoms: Atoms) -> Problem | None:
    """Compare with the Thomas–Fermi energy of all electrons, 20.9 eV · Z^(7/3) for each atom: no total is lower."""
    energy = atoms.info["energy"]
    lowest = -1.3 * float(np.sum(20.9 * atoms.numbers ** (7 / 3) + 5.0))
    if lowest <= energy <= MAX_ENERGY * len(atoms):
        return None
    return Problem(
        "energy",
        f"the energy of {frame_name(atoms, i)} ({atoms.get_chemical_formula()}) is {energy:.6g} "
        f"eV; total energies of these atoms lie between {lowest:.4g} and {MAX_ENERGY * len(atoms):.4g} eV: "
        f"{ADVICE}",
    )


def _energy_clusters(labelled: Sequence[tuple[int, Atoms]]) -> Found:
    """Find one composition whose energies fall into two groups: two units, or two levels of theory."""
    groups = defaultdict(list)
    for i, atoms in labelled:
        groups[atoms.symbols.formula.reduce()[0].format("hill")].append((atoms.info["energy"] / len(atoms), i, atoms))
    for formula, members in groups.items():
        values = np.array(sorted(member[0] for member in members))
        if len(values) < 4:
            continue
        cut = int(np.argmax(np.diff(values))) + 1
        low, high = values[:cut], values[cut:]
        gap, spread = high[0] - low[-1], max(np.ptp(low), np.ptp(high))
        name = _unit_ratio(float(np.median(low)), float(np.median(high)))
        if gap > 5 * spread and (name or (gap > TWO_LEVELS and min(len(low), len(high)) >= 3)):
            border, minority = 0.5 * (low[-1] + high[0]), len(low) < len(high)
            _, i, atoms = next(m for m in members if (m[0] < border) == minority)
            text = (
                f"energies of {formula} come in two groups, around {np.median(low):.6g} and {np.median(high):.6g} "
                f"eV per atom; the smaller begins with {frame_name(atoms, i)}: "
            )
            if name:
                return [Problem("energy", f"{text}a mixture of {name}? {ADVICE}")], []
            return [], [f"{text}two levels of theory?"]
    return [], []


def _unit_ratio(a: float, b: float) -> str | None:
    if a == 0 or b == 0 or a * b < 0:
        return None
    ratio = max(a / b, b / a)
    return next((name for name, value in UNIT_RATIOS.items() if abs(ratio / value - 1) < 0.02), None)


def _energy_outliers(labelled: Sequence[tuple[int, Atoms]]) -> Found:
    """Compare energies with what their compositions let expect: far off is a problem, off from the rest a warning."""
    residual = robust_fit([a for _, a in labelled], np.array([a.info["energy"] for _, a in labelled]))
    size = np.abs(residual)
    worst, typical = int(size.argmax()), float(np.median(size))
    if size[worst] <= MAX_ENERGY_SPREAD:
        odd = _far(residual, [a for _, a in labelled])
        if not odd:
            return [], []
        names = ", ".join(f"{frame_name(labelled[k][1], labelled[k][0])} ({residual[k]:+.3g})" for k in odd[:5])
        return [], [
            f"{len(odd)} energies are far from the rest, by eV per atom: {names}{', …' if len(odd) > 5 else ''}; the "
            f"typical distance is {typical:.2g}. Did these calculations converge?"
        ]
    i, atoms = labelled[worst]
    n_bad = int(np.sum(size > MAX_ENERGY_SPREAD))
    text = (
        f"the energy of {frame_name(atoms, i)} is {residual[worst]:+.4g} eV per atom off what its composition lets "
        f"expect, as are {n_bad - 1} others by more than {MAX_ENERGY_SPREAD:g}: several units, several levels of "
        f"theory, or a failed calculation; {ADVICE}"
    )
    return [Problem("energy", text)], []


def far_energies(frames: Sequence[Atoms]) -> list[int]:
    """Return the places of frames whose energies are far from what their compositions let expect, furthest first."""
    if not frames:
        return []
    return _far(robust_fit(frames, np.array([atoms.info["energy"] for atoms in frames])), frames)


def _far(residual: np.ndarray, frames: Sequence[Atoms]) -> list[int]:
    elements = {int(z) for atoms in frames for z in atoms.numbers}
    if len(residual) < max(LEAST_ENERGIES, LEAST_PER_ELEMENT * len(elements)):
        return []  # a fit with nearly as many values as energies leaves most of them no distance
    size = np.abs(residual)
    limit = max(OUTLIER, OUTLIER_RATIO * float(np.median(size)))
    apart = _apart(residual)
    return [int(k) for k in np.argsort(-size) if size[k] > limit or k in apart]


def _apart(residual: np.ndarray) -> set[int]:
    """Places of the few that a wide gap parts from all others, on one side."""
    order, n = np.argsort(residual), len(residual)
    values = residual[order]
    for few in range(1, max(2, n // 50) + 1) if n >= LEAST_FOR_GAP else ():
        for side, places in ((values, order), (-values[::-1], order[::-1])):
            if side[-few] - side[-few - 1] > WIDE_GAP * (side[-few - 1] - side[0]):
                return {int(k) for k in places[-few:]}
    return set()


def _force_groups(labelled: Sequence[tuple[int, Atoms, np.ndarray]], rms: np.ndarray) -> list[str]:
    """Compare the typical force of each file with that of the others."""
    groups = defaultdict(list)
    for (_, atoms, _), value in zip(labelled, rms, strict=True):
        if len(atoms) > 1:
            groups[atoms.info.get("frame_file", "")].append(value)
    typical = {name: float(np.median(values)) for name, values in groups.items() if len(values) >= 5}
    if len(typical) < 2:
        return []
    low, high = min(typical, key=typical.__getitem__), max(typical, key=typical.__getitem__)
    if typical[high] < 15 * typical[low] or typical[low] == 0:
        return []
    return [f"the typical rms force is {typical[high]:.3g} eV/Å in {high} and {typical[low]:.3g} in {low}: one unit?"]
