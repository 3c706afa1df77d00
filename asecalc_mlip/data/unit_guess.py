"""Which units, signs or habits explain a factor between energies and forces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from ase import units

from asecalc_mlip.units import Label

__all__ = ["AS_READ", "Guess", "guess"]

ENERGIES = {
    "eV": 1.0,
    "Hartree": units.Hartree,
    "Rydberg": units.Rydberg,
    "kcal/mol": units.kcal / units.mol,
    "kJ/mol": units.kJ / units.mol,
    "meV": 1e-3,
}
LENGTHS = {"Ang": 1.0, "Bohr": units.Bohr}
SAME, CLOSE, ROUGH = 1e-6, 0.12, 0.4  # of the logarithm of a factor
USUAL = (0.5, 80.0)  # eV/Å², stiffness of matter along thermal motion
# Units, in eV and eV/Å, in which a file was read where it says nothing else.
AS_READ: Mapping[str, float] = {"energy": 1.0, "forces": 1.0}


@dataclass(frozen=True)
class Guess:
    """A cause: the label to blame, and one sentence with the next step."""

    label: Label
    text: str


def guess(
    slope: float,
    *,
    stiffness: float | None,
    per_atom: float | None,
    rough: bool = False,
    read: Mapping[str, float] = AS_READ,
) -> Guess:
    """Explain why energies change by `slope` times the work of the forces.

    Parameters
    ----------
    slope : float
    stiffness : float or None
        eV/Å², by the forces as they are; chooses between units that make the same factor.
    per_atom : float or None
        The slope with each energy multiplied by its number of atoms, if that agrees as well.
    rough : bool
        The slope is not exact.
    read : mapping of str to float
        Units in which energy and forces were read, eV and eV/Å; the file has others, if any are to blame.
    """
    sign = "the forces have the opposite sign, as gradients of the energy have; multiply them by −1"
    tolerance = ROUGH if rough else CLOSE
    if slope < 0 and abs(np.log(-slope)) < max(tolerance, 0.3):
        return Guess("forces", sign)
    texts: list[tuple[float, Label, str]] = []
    if per_atom is not None and per_atom > 0 and abs(np.log(per_atom)) < tolerance:
        text = "the energies seem to be per atom; multiply each by its number of atoms"
        texts.append((0.5, "energy", text))
    texts += _by_units(abs(slope), stiffness, tolerance, read)
    texts.sort(key=lambda item: item[0])
    if not texts:
        small = "large beside the energies" if abs(slope) < 1 else "small beside the energies"
        return Guess(
            "forces",
            f"the forces are {max(abs(slope), 1 / abs(slope)):.3g} times too {small}, and no unit known here makes "
            f"that factor{'; ' + sign if slope < 0 else ''}",
        )
    best = [item for item in texts if item[0] <= texts[0][0] + 0.5][:2]
    text = ", or ".join(item[2] for item in best)
    return Guess(best[0][1], f"{text}{'; also, ' + sign if slope < 0 else ''}")


def _by_units(
    slope: float, stiffness: float | None, tolerance: float, read: Mapping[str, float]
) -> list[tuple[float, Label, str]]:
    """Units of energy and force that make this factor: (how unlikely, label to blame, sentence)."""
    found: list[tuple[float, Label, str]] = []
    for energy, of_force, length in product(ENERGIES, ENERGIES, LENGTHS):
        size = ENERGIES[energy] / read["energy"]
        force = ENERGIES[of_force] / LENGTHS[length] / read["forces"]
        off = abs(np.log(slope * size / force))
        exotic = energy != of_force and "eV" not in (energy, of_force)
        if (abs(np.log(size)) < SAME and abs(np.log(force)) < SAME) or off > tolerance or exotic:
            continue
        odd = (energy != "eV") + ((of_force, length) != ("eV", "Ang")) + off
        if stiffness is not None and not USUAL[0] < stiffness * force < USUAL[1]:
            continue  # no matter is so soft or so hard
        settings = f"data.energy_unit={energy} data.force_unit={of_force}/{length}"
        if energy == "eV" and read["energy"] == 1.0:
            text = f"forces look like {of_force}/{length}, {_factor(force)}; set data.force_unit={of_force}/{length}"
        elif (of_force, length) == ("eV", "Ang") and read["forces"] == 1.0:
            text = f"energies look like {energy}, {_factor(size)}; set {settings}"
        else:
            text = f"energies look like {energy} and forces like {of_force}/{length}; set {settings}"
        found.append((odd, "forces" if abs(np.log(size)) < SAME else "energy", text))
    return found


def _factor(size: float) -> str:
    return f"{size:.3g} times too small" if size > 1 else f"{1 / size:.3g} times too large"
