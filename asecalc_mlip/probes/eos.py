"""Equation of state: energy over volume, and the Birch–Murnaghan curve through it.

E(V) = E0 + 9 V0 B0/16 {[x − 1]³ B0' + [x − 1]² [6 − 4x]},   x = (V0/V)^(2/3)      (Birch, Phys. Rev. 71 (1947) 809)

The curve is good near V0 only. Frameworks such as quartz take up strain by turning stiff tetrahedra, and their B
changes so fast with the volume that points far from V0 spoil B0. So the default range is narrow: of quartz by
`silica.pt`, ±1, 2 and 6 % of volume give 41.6, 43.1 and 51.1 GPa, elastic constants 40.6; of copper by EMT all are
equal.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.eos import birchmurnaghan
from scipy.optimize import curve_fit

from asecalc_mlip.errors import InputError
from asecalc_mlip.probes.constraints import check_crystal, free_copy
from asecalc_mlip.probes.relax import relax
from asecalc_mlip.probes.single_points import energies_and_forces, model_name

VOLUME_RANGE_PERCENT = 1.0
AGREEMENT = 0.05  # of B0, between the inner points and all

__all__ = ["VOLUME_RANGE_PERCENT", "EquationOfState", "equation_of_state"]


@dataclass(frozen=True, repr=False)
class EquationOfState:
    """Answer of `equation_of_state`; everything is of the cell that was given.

    Attributes
    ----------
    volumes_A3, energies_eV : (n,) array
        Points computed.
    equilibrium_volume_A3, equilibrium_energy_eV : float
        V0 and E0.
    bulk_modulus_GPa, bulk_modulus_derivative : float
        B0 and B0'.
    inner_bulk_modulus_GPa : float or None
        B0 by the inner half of the range; None where it has fewer than five points or not V0 among them.
    residual_meV_per_atom : float
        Root mean square distance of the points to the curve.
    inside : bool
        Whether V0 lies between the points; where it does not, nothing of this can be trusted.
    relaxed_positions : bool
        Whether atoms moved at each volume.
    not_relaxed : int
        At how many volumes their forces stayed above the limit: energies there are too high.
    n_atoms : int
        Number of atoms.
    formula, model : str
        Names.
    """

    volumes_A3: np.ndarray
    energies_eV: np.ndarray
    equilibrium_volume_A3: float
    equilibrium_energy_eV: float
    bulk_modulus_GPa: float
    bulk_modulus_derivative: float
    inner_bulk_modulus_GPa: float | None
    residual_meV_per_atom: float
    inside: bool
    relaxed_positions: bool
    not_relaxed: int
    n_atoms: int
    formula: str
    model: str

    def curve(self, volumes_A3: np.ndarray) -> np.ndarray:
        """Return the energies of the fitted curve, eV."""
        b = self.bulk_modulus_GPa * units.GPa
        return birchmurnaghan(
            np.asarray(volumes_A3),
            self.equilibrium_energy_eV,
            b,
            self.bulk_modulus_derivative,
            self.equilibrium_volume_A3,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, units in the names."""
        found = asdict(self)
        return found | {name: found[name].tolist() for name in ("volumes_A3", "energies_eV")}

    def __repr__(self) -> str:
        outside = "" if self.inside else "; WARNING: V0 is outside of the volumes computed"
        inner = self.inner_bulk_modulus_GPa
        if inner is not None and abs(self.bulk_modulus_GPa - inner) > AGREEMENT * abs(inner):
            outside += f"; WARNING: B0 is {inner:.1f} GPa by the inner half of the volumes: take a smaller range"
        if self.not_relaxed:
            outside += f"; WARNING: at {self.not_relaxed} volumes the atoms were not fully relaxed"
        return (
            f"{self.formula}, {self.model}: V0 {self.equilibrium_volume_A3 / self.n_atoms:.4f} Å³/atom, E0 "
            f"{self.equilibrium_energy_eV / self.n_atoms:.4f} eV/atom, B0 {self.bulk_modulus_GPa:.1f} GPa, B0' "
            f"{self.bulk_modulus_derivative:.2f}; {len(self.volumes_A3)} volumes, residual "
            f"{self.residual_meV_per_atom:.2g} meV/atom{outside}"
        )


def equation_of_state(
    atoms: Atoms,
    calc: Any,
    *,
    volume_range_percent: float = VOLUME_RANGE_PERCENT,
    n_volumes: int = 9,
    relax_positions: bool = True,
    fmax_eV_per_A: float = 1e-3,
    steps: int = 300,
) -> EquationOfState:
    """Take energies of a crystal at volumes around its own, and their Birch–Murnaghan curve.

    Parameters
    ----------
    atoms : Atoms
        Best relaxed; the cell is scaled evenly, its shape stays.
    calc : ASE calculator
    volume_range_percent : float
        On either side; see the module.
    n_volumes : int
        5 or more.
    relax_positions : bool
        Let atoms relax in each cell.
    fmax_eV_per_A, steps : float, int
        As for `relax`.

    Raises
    ------
    InputError
        For structures that are not periodic in three directions, and energies without a minimum.
    """
    check_crystal(atoms, "an equation of state needs")
    if n_volumes < 5 or not 0 < volume_range_percent < 50:
        raise InputError(f"{n_volumes} volumes in ±{volume_range_percent} %: take 5 or more, within ±50 %")
    atoms = free_copy(atoms, "equation of state")
    shares = 1.0 + np.linspace(-1.0, 1.0, n_volumes) * volume_range_percent / 100.0
    cells, not_relaxed = [_scaled(atoms, share) for share in shares], 0
    if relax_positions:
        relaxed = [relax(cell, calc, fmax_eV_per_A=fmax_eV_per_A, steps=steps) for cell in cells]
        cells, not_relaxed = [one.atoms for one in relaxed], sum(not one.converged for one in relaxed)
    energies, _ = energies_and_forces(calc, cells)
    volumes = np.array([cell.get_volume() for cell in cells])
    e0, b0, slope, v0 = _fit(volumes, energies)
    residual = energies - birchmurnaghan(volumes, e0, b0, slope, v0)
    return EquationOfState(
        volumes_A3=volumes,
        energies_eV=energies,
        equilibrium_volume_A3=v0,
        equilibrium_energy_eV=e0,
        bulk_modulus_GPa=b0 / units.GPa,
        bulk_modulus_derivative=slope,
        inner_bulk_modulus_GPa=_inner(shares, volumes, energies),
        residual_meV_per_atom=1e3 * float(np.sqrt((residual**2).mean())) / len(atoms),
        inside=bool(volumes.min() < v0 < volumes.max()),
        relaxed_positions=relax_positions,
        not_relaxed=not_relaxed,
        n_atoms=len(atoms),
        formula=atoms.get_chemical_formula("metal"),
        model=model_name(calc),
    )


def _scaled(atoms: Atoms, share: float) -> Atoms:
    copy = atoms.copy()
    copy.calc = None
    copy.set_cell(copy.cell * share ** (1.0 / 3.0), scale_atoms=True)
    return copy


def _inner(shares: np.ndarray, volumes: np.ndarray, energies: np.ndarray) -> float | None:
    """B0 by the points in the inner half of the range, GPa."""
    near = np.abs(shares - 1.0) <= 0.5 * (shares[-1] - 1.0) + 1e-9
    if near.sum() < 5:
        return None
    try:
        _, b0, _, v0 = _fit(volumes[near], energies[near])
    except InputError:
        return None
    return b0 / units.GPa if volumes[near].min() < v0 < volumes[near].max() else None


def _fit(volumes: np.ndarray, energies: np.ndarray) -> tuple[float, float, float, float]:
    """E0 (eV), B0 (eV/Å³), B0' and V0 (Å³)."""
    a, b, c = np.polyfit(volumes, energies, 2)
    if a <= 0:
        raise InputError(
            "the energy has no minimum over these volumes: the model does not hold this crystal together, or the start "
            "is far from its equilibrium; relax it first, with its cell"
        )
    v0 = -0.5 * b / a
    lowest = float(energies.min())
    start = (float(np.polyval((a, b, c), v0)) - lowest, 2.0 * a * v0, 4.0, v0)
    try:
        # Relative to the lowest: totals of 1e4 eV would leave the fit few digits.
        fit, _ = curve_fit(lambda v, *p: birchmurnaghan(v, *p), volumes, energies - lowest, start, maxfev=20000)
    except RuntimeError as error:
        raise InputError(f"no Birch–Murnaghan curve fits these energies ({error}); relax the crystal first") from None
    return float(fit[0]) + lowest, float(fit[1]), float(fit[2]), float(fit[3])
