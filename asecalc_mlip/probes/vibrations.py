"""Harmonic vibrations of a molecule (or of a crystal at Γ), from exact second derivatives where the model has them.

    H v = ω² M v,      frequencies in cm⁻¹; imaginary ones, ω² < 0, are given as negative numbers

The 6 modes of a rigid molecule (5 of a linear one, 4 of a wire, 3 of a slab or crystal) are told apart by what they are
made of, not by their size, so that a soft mode is not mistaken for one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.units import invcm
from ase.vibrations import VibrationsData

from asecalc_mlip.errors import InputError
from asecalc_mlip.probes.constraints import check_atoms, free_copy
from asecalc_mlip.probes.single_points import energies_and_forces, model_name

__all__ = ["Vibrations", "finite_difference_hessian", "vibrations"]

Method = Literal["auto", "exact", "differences"]
RELAXED = 0.01  # eV/Å; above this the frequencies are not those of a minimum
DELTA_A = 0.01  # Å; displacement of differences
IMAGINARY = 1.0  # cm⁻¹; what is below minus this is not rounding


@dataclass(frozen=True, repr=False)
class Vibrations:
    """Frequencies and modes.

    Attributes
    ----------
    atoms : Atoms
        The structure.
    frequencies_cm1 : (3N − n_rigid,) array
        Ascending, imaginary ones negative.
    modes : (3N − n_rigid, N, 3) array
        Displacements of each, normalised in mass-weighted coordinates.
    rigid_cm1 : array
        What came out for translations and rotations, which should be near zero.
    zero_point_energy_eV : float
        Half the sum of the real frequencies.
    max_force_eV_per_A : float
        At the structure; frequencies are those of a minimum only where it is near zero.
    method : str
        "exact", or "differences of 0.01 Å".
    data : VibrationsData
        `ase.vibrations.VibrationsData` with all 3N modes, for animations, spectra and thermochemistry.
    model : str
        Name.
    """

    atoms: Atoms
    frequencies_cm1: np.ndarray
    modes: np.ndarray
    rigid_cm1: np.ndarray
    zero_point_energy_eV: float
    max_force_eV_per_A: float
    method: str
    data: VibrationsData
    model: str

    @property
    def imaginary_cm1(self) -> np.ndarray:
        """Imaginary frequencies, as negative numbers."""
        return self.frequencies_cm1[self.frequencies_cm1 < -IMAGINARY]

    @property
    def warnings(self) -> list[str]:
        """Reasons to doubt these frequencies."""
        found = []
        if self.max_force_eV_per_A > RELAXED:
            found.append(f"not relaxed: the largest force is {self.max_force_eV_per_A:.2g} eV/Å")
        if len(self.imaginary_cm1):
            shown = ", ".join(f"{abs(f):.0f}i" for f in self.imaginary_cm1[:6])
            found.append(f"{len(self.imaginary_cm1)} imaginary frequencies ({shown} cm⁻¹): not a minimum of this model")
        if np.abs(self.rigid_cm1).max(initial=0.0) > 20.0:
            found.append(f"rigid motions have up to {np.abs(self.rigid_cm1).max():.0f} cm⁻¹")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, units in the names."""
        plain = ("zero_point_energy_eV", "max_force_eV_per_A", "method", "model")
        return {name: getattr(self, name) for name in plain} | {
            "frequencies_cm1": self.frequencies_cm1.tolist(),
            "imaginary_cm1": self.imaginary_cm1.tolist(),
            "rigid_cm1": self.rigid_cm1.tolist(),
            "modes": self.modes.tolist(),
            "symbols": self.atoms.get_chemical_symbols(),
            "positions_A": self.atoms.positions.tolist(),
            "warnings": self.warnings,
        }

    def __repr__(self) -> str:
        f = self.frequencies_cm1
        lines = [
            f"{self.atoms.get_chemical_formula()}, {self.model}, {self.method}: {len(f)} vibrations, zero-point energy "
            f"{self.zero_point_energy_eV:.3f} eV"
        ]
        for start in range(0, len(f), 12):
            lines.append("  " + " ".join(f"{abs(x):7.1f}{'i' if x < 0 else ' '}" for x in f[start : start + 12]))
        lines.append("  rigid motions " + " ".join(f"{x:.1f}" for x in self.rigid_cm1) + "   (cm⁻¹, i: imaginary)")
        return "\n".join(lines + [f"  WARNING: {text}" for text in self.warnings])


def vibrations(atoms: Atoms, calc: Any, *, method: Method = "auto", delta_A: float | None = None) -> Vibrations:
    """Take frequencies and modes of a structure as it is; `relax` it first.

    Parameters
    ----------
    atoms : Atoms
    calc : ASE calculator
        In float64, for the digits of second derivatives.
    method : {"auto", "exact", "differences"}
        "exact" by `calc.hessian(atoms)`; "differences" of forces, for any calculator; "auto" takes the first that
        works. They differ where the curvature changes within `delta_A`, as in PaiNN near flat molecules.
    delta_A : float, optional
        Å; displacement of central differences, by default 0.01.

    Raises
    ------
    InputError
        For an option that is not allowed or has no effect, no atoms, and "exact" with a calculator without a Hessian.
    """
    exact = is_exact(calc, method, delta_A)
    check_atoms(atoms, "vibrations need")
    atoms = free_copy(atoms, "vibrations")
    delta_A = DELTA_A if delta_A is None else delta_A
    hessian = calc.hessian(atoms) if exact else finite_difference_hessian(atoms, calc, delta_A=delta_A)
    n = len(atoms)
    data = VibrationsData.from_2d(atoms, hessian)
    # Not data.get_frequencies(): complex numbers, sorted by their square.
    energies, modes = data.get_energies_and_modes(all_atoms=True)
    frequencies = (energies.real - energies.imag) / invcm
    rigid = _rigid(atoms, modes)
    order = np.argsort(frequencies)
    inner, outer = [k for k in order if k not in rigid], [k for k in order if k in rigid]
    real = frequencies[inner][frequencies[inner] > 0]
    _, forces = energies_and_forces(calc, [atoms])
    return Vibrations(
        atoms=atoms.copy(),
        frequencies_cm1=frequencies[inner],
        modes=modes[inner].reshape(-1, n, 3),
        rigid_cm1=frequencies[outer],
        zero_point_energy_eV=float(0.5 * real.sum() * invcm),
        max_force_eV_per_A=float(np.linalg.norm(forces[0], axis=1).max()),
        method="exact" if exact else f"differences of {delta_A:g} Å",
        data=data,
        model=model_name(calc),
    )


def is_exact(calc: Any, method: Method = "auto", delta_A: float | None = None) -> bool:
    """Return whether `vibrations` with these options takes the exact Hessian; its errors about options are raised."""
    if method not in ("auto", "exact", "differences"):
        raise InputError(f"method is {method!r}; allowed: auto, exact, differences")
    able = hasattr(calc, "hessian") and not getattr(getattr(calc, "potential", None), "direct_forces", False)
    if method == "exact" and not hasattr(calc, "hessian"):
        raise InputError(f"{model_name(calc)} has no exact Hessian: use method='differences'")
    exact = method == "exact" or (method == "auto" and able)
    if exact and delta_A is not None:
        raise InputError(
            f"--delta (delta_A) is for differences of forces, and the Hessian of {model_name(calc)} is exact: leave it "
            "out, or take the method 'differences'"
        )
    return exact


def finite_difference_hessian(atoms: Atoms, calc: Any, *, delta_A: float = DELTA_A) -> np.ndarray:
    """Take central differences of forces, (3N, 3N) in eV/Å², made symmetric; in batches where the calculator can."""
    if not delta_A > 0:
        raise InputError(f"delta_A is {delta_A} Å; it must be above 0, often 0.01")
    moved = []
    for coordinate in range(3 * len(atoms)):
        for sign in (1.0, -1.0):
            copy = atoms.copy()
            copy.positions.reshape(-1)[coordinate] += sign * delta_A
            moved.append(copy)
    _, forces = energies_and_forces(calc, moved)
    rows = -np.array(forces).reshape(3 * len(atoms), 2, -1)
    hessian = (rows[:, 0] - rows[:, 1]) / (2.0 * delta_A)
    return 0.5 * (hessian + hessian.T)


def _rigid(atoms: Atoms, modes: np.ndarray) -> set[int]:
    """Return the modes that are translations, and for molecules and wires rotations, by their overlap with them."""
    roots = np.sqrt(atoms.get_masses())[:, None]
    motions = [np.broadcast_to(axis, (len(atoms), 3)) for axis in np.eye(3)]
    # A rotation keeps the lattice only about the axis of a wire, which is periodic in one direction.
    axes = {0: np.eye(3), 1: atoms.cell.array[atoms.pbc]}.get(int(atoms.pbc.sum()), [])
    centred = atoms.positions - atoms.get_center_of_mass()
    motions += [np.cross(axis / np.linalg.norm(axis), centred) for axis in axes]
    weighted = np.array([(roots * motion).reshape(-1) for motion in motions]).T
    # Of a linear molecule or wire, or one atom, fewer are independent.
    vectors, sizes, _ = np.linalg.svd(weighted, full_matrices=False)
    space = vectors[:, sizes > 1e-3 * sizes[0]]
    states = (roots * modes.reshape(-1, len(atoms), 3)).reshape(len(modes), -1)
    states /= np.linalg.norm(states, axis=1, keepdims=True)
    overlap = ((states @ space) ** 2).sum(axis=1)
    return set(np.argsort(overlap)[-space.shape[1] :].tolist())
