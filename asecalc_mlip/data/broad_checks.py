"""Checks of energies that need no forces: stiff bonds of molecules, heats of mixing of crystals.

- Along a bond to hydrogen the energy of every molecule rises alike. A fit of energies by the lengths of bonds gives
  29 to 70 eV/Å² in nine real sets (C–H 29–46, O–H 53–64, N–H 68). Energies in another unit give another number.
- Unlike elements gain energy by mixing, which Pauling took for the measure of electronegativity χ. The rest of energies
  per atom that a fit by composition leaves goes with Σ x_a x_b (χ_a − χ_b)², with −0.85 to −0.72 eV in real sets of
  crystals, over 3 to 85 elements.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms, units
from ase.data import covalent_radii

from asecalc_mlip.data.labels import is_isolated_atom
from asecalc_mlip.data.plausibility import Found

__all__ = ["check_mixing", "check_stiff_bonds"]

# Frames, at least; correlation of energies with those predicted from the other half: real sets have 0.44 and more.
LEAST_FRAMES, FOLLOWS = 40, 0.35
BOND, BONDED = 1.3, 0.9  # times the sum of covalent radii; share of the frames
STIFF = (10.0, 150.0)  # eV/Å²
# Crystals, compositions and frames for each element, at least; spread of what the fit leaves of Σ x x (Δχ)².
LEAST_CRYSTALS, LEAST_COMPOSITIONS, PER_ELEMENT, LEAST_SPREAD = 60, 20, 1.5, 0.05
MIXING = (-4.0, -0.16)  # eV
RELATED, UNRELATED, MANY_ELEMENTS = 0.4, 0.2, 20  # correlation: real sets have −0.55 to −0.61
FACTORS = {
    "Hartree": 1 / units.Hartree,
    "Rydberg": 1 / units.Rydberg,
    "kcal/mol": units.mol / units.kcal,
    "kJ/mol": units.mol / units.kJ,
    "meV": 1000.0,
}
USUAL_STIFFNESS, USUAL_MIXING = 45.0, -0.8
# Pauling's scale, by atomic number; elements without a value are left out.
ELECTRONEGATIVITY = {
    z: value
    for start, values in (
        (1, [2.20]),
        (3, [0.98, 1.57, 2.04, 2.55, 3.04, 3.44, 3.98]),
        (11, [0.93, 1.31, 1.61, 1.90, 2.19, 2.58, 3.16]),
        (19, [0.82, 1.00, 1.36, 1.54, 1.63, 1.66, 1.55, 1.83, 1.88, 1.91, 1.90, 1.65, 1.81, 2.01, 2.18, 2.55, 2.96]),
        (37, [0.82, 0.95, 1.22, 1.33, 1.60, 2.16, 1.90, 2.20, 2.28, 2.20, 1.93, 1.69, 1.78, 1.96, 2.05, 2.10, 2.66]),
        (55, [0.79, 0.89, 1.10, 1.12, 1.13, 1.14, 1.13, 1.17, 1.20, 1.20, 1.20, 1.22, 1.23, 1.24, 1.25, 1.10, 1.27]),
        (72, [1.30, 1.50, 2.36, 1.90, 2.20, 2.20, 2.28, 2.54, 2.00, 1.62, 2.33, 2.02]),
        (90, [1.30, 1.50, 1.38]),
    )
    for z, value in enumerate(values, start)
}


def check_stiff_bonds(frames: Sequence[Atoms]) -> Found:
    """Judge energies of one molecule, where there are no forces, by the stiffness of its bonds to hydrogen."""
    some = [a for a in frames if "energy" in a.info and len(a) > 1]
    if len(some) < LEAST_FRAMES or any("forces" in a.arrays or a.pbc.any() for a in some):
        return [], []
    numbers = some[0].numbers
    if any(len(a) != len(numbers) or (a.numbers != numbers).any() for a in some):
        return [], []
    stiffness, related = _stiffness(numbers, some)
    if related < FOLLOWS or STIFF[0] < stiffness < STIFF[1]:
        return [], []
    found = _explain(stiffness / USUAL_STIFFNESS, STIFF[0] / USUAL_STIFFNESS, len(numbers))
    how = f"by these energies bonds to hydrogen have a stiffness of {stiffness:.3g} eV/Å²"
    return [], [f"{how}, where 29 to 70 is usual: {found}"]


def check_mixing(frames: Sequence[Atoms]) -> Found:
    """Judge energies of many crystals by what unlike elements gain from each other."""
    some = [a for a in frames if "energy" in a.info and a.pbc.all() and not is_isolated_atom(a)]
    some = [a for a in some if all(z in ELECTRONEGATIVITY for z in set(a.numbers.tolist()))]
    elements = sorted({int(z) for a in some for z in a.numbers})
    compositions = {a.get_chemical_formula(empirical=True) for a in some}
    if len(some) < max(LEAST_CRYSTALS, PER_ELEMENT * len(elements)) or len(compositions) < LEAST_COMPOSITIONS:
        return [], []
    gain, energies = _beyond_composition(some, elements)
    if gain.std() < LEAST_SPREAD:
        return [], []
    near = np.abs(energies) <= 6 * np.median(np.abs(energies)) + 1e-12
    related = float(np.corrcoef(gain[near], energies[near])[0, 1])
    slope = float(gain[near] @ energies[near] / (gain[near] @ gain[near]))
    how = (
        f"over {len(some)} crystals energies per atom change by {slope:.2g} eV for each Σ x x (Δχ)² of mixing (Pauling)"
    )
    if abs(related) > RELATED and not MIXING[0] < slope < MIXING[1]:
        sizes = float(np.median([len(a) for a in some]))
        return [], [f"{how}, where −0.8 is usual: {_explain(slope / USUAL_MIXING, 0.2, sizes)}"]
    if abs(related) < UNRELATED and len(elements) >= MANY_ELEMENTS:
        return [], [
            f"over {len(some)} crystals of {len(elements)} elements energies do not fall where unlike elements mix "
            f"(correlation {related:.2f}, where −0.6 is usual): are they those of other structures?"
        ]
    return [], []


def _stiffness(numbers: np.ndarray, frames: Sequence[Atoms]) -> tuple[float, float]:
    """Stiffness of bonds to hydrogen, eV/Å², and correlation of energies with the fit to the other half; 0, 0: none."""
    i, j = np.triu_indices(len(numbers), 1)
    positions = np.array([a.positions for a in frames])
    lengths = np.linalg.norm(positions[:, i] - positions[:, j], axis=-1)
    bonded = np.mean(lengths < BOND * (covalent_radii[numbers[i]] + covalent_radii[numbers[j]]), axis=0) > BONDED
    low, high = np.minimum(numbers[i], numbers[j])[bonded], np.maximum(numbers[i], numbers[j])[bonded]
    lengths, kinds = lengths[:, bonded], 1000 * low + high
    hydrogen = [k for k, kind in enumerate(np.unique(kinds)) if kind // 1000 == 1]
    if not hydrogen:
        return 0.0, 0.0
    sums = [lengths[:, kinds == kind] for kind in np.unique(kinds)]
    rows = np.stack([part for of_kind in sums for part in (of_kind.sum(axis=1), (of_kind**2).sum(axis=1))], axis=1)
    rows = np.hstack([rows - rows.mean(axis=0), np.ones((len(rows), 1))])
    energies = np.array([a.info["energy"] for a in frames])
    energies = energies - energies.mean()
    predicted, half = np.zeros(len(rows)), np.arange(len(rows)) % 2
    for h in (0, 1):
        predicted[half == h] = rows[half == h] @ np.linalg.lstsq(rows[half != h], energies[half != h], rcond=1e-10)[0]
    solution = np.linalg.lstsq(rows, energies, rcond=1e-10)[0]
    weights = [sums[k].shape[1] for k in hydrogen]
    related = np.corrcoef(predicted, energies)[0, 1] if energies.std() > 0 and predicted.std() > 0 else 0.0
    return float(np.average([2 * solution[2 * k + 1] for k in hydrogen], weights=weights)), float(related)


def _beyond_composition(frames: Sequence[Atoms], elements: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return Σ x_a x_b (χ_a − χ_b)² and energy per atom, less what is linear in the composition."""
    shares = np.array([np.bincount(a.numbers, minlength=elements[-1] + 1)[elements] / len(a) for a in frames])
    chi = np.array([ELECTRONEGATIVITY[z] for z in elements])
    gain = np.einsum("fa,fb,ab->f", shares, shares, (chi[:, None] - chi) ** 2)
    both = np.stack([gain, [a.info["energy"] / len(a) for a in frames]], axis=1)
    normal = np.linalg.pinv(shares.T @ shares, rcond=1e-10, hermitian=True)
    gain, energies = (both - shares @ (normal @ (shares.T @ both))).T
    return gain, energies


def _explain(factor: float, least: float, size: float) -> str:
    """Name what makes energies this factor too large; `least` is the smallest usual one."""
    if factor < 0 and least < -factor < 1 / least:
        return "they seem to have the other sign; multiply them by −1"
    causes = [
        f"{name} (data.energy_unit={name})" for name, unit in FACTORS.items() if abs(np.log(abs(factor) / unit)) < 0.7
    ]
    if abs(np.log(abs(factor) * size)) < 0.7:
        causes.append("eV per atom (multiply each by its number of atoms)")
    return f"they look like {', or '.join(causes)}" if causes else "are they in eV, and those of these structures?"
