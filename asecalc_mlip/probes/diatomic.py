"""Diatomic curves: energy and force of an isolated dimer over its distance, from any ASE calculator.

Grids (all with a step of 0.01 Å and open boundaries):

    "arena"   0.9 R_cov to 3.1 R_vdW, as in MLIP Arena and Matbench Discovery; R_cov the single-bond covalent radius,
              R_vdW Alvarez' van der Waals radius (3.1 R_vdW is 6 Å where it is unknown), means of the two elements
    "full"    the same grid, extended inwards to 0.3 Å and outwards past the cutoff, so that flags see both ends

Metrics are those of the arena grid in either case; `diatomic_metrics` takes it out of the full one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols, covalent_radii
from ase.data.vdw_alvarez import vdw_radii

from asecalc_mlip.errors import InputError
from asecalc_mlip.probes.single_points import energies_and_forces, model_name

__all__ = ["DiatomicCurve", "Grid", "all_pairs", "arena_range", "diatomic_curve", "diatomic_curves", "parse_pair"]

Grid = Literal["arena", "full"]
STEP = 0.01  # Å
CLOSEST = 0.3  # Å, start of the full grid
BEYOND = 0.1  # Å past the cutoff, where a jump at it is seen
CHECK_EVERY, CHECK_STEP = 3, 0.0002  # points, and Å of the differences there that tell whether F = −dE/dr
UNKNOWN_END = 6.0  # Å, of the arena grid for elements without a van der Waals radius


@dataclass(frozen=True, repr=False)
class DiatomicCurve:
    """Energy and force of two atoms over their distance.

    Attributes
    ----------
    symbols : (str, str)
    distances_A : (n,) array
        Å, ascending; points where the model gave no finite number are left out.
    energies_eV : (n,) array
        Relative to the farthest point.
    forces_eV_per_A : (n,) array
        Along the bond, positive where the atoms repel: −dE/dr of a conservative model.
    stray_forces_eV_per_A : (n,) array
        The larger of what is left of the two atoms' forces without that part; 0 by symmetry.
    far_energy_eV : float
        Energy at the farthest point, which was subtracted.
    arena_range_A : (float, float)
        Ends of the arena grid of this pair.
    cutoff_A : float or None
        Of the model, or None where it is unknown.
    model : str
        Name.
    grid : str
        How the distances were chosen.
    n_not_finite : int
        Number of points left out.
    check_distances_A, check_forces_eV_per_A : (m,) array
        Some of the distances, with −dE/dr there by differences of the energy over 0.0004 Å, which are good where
        the grid is too coarse for differences.
    components_eV : mapping of str to array
        Components of an EAM over `distances_A`: density, morse, zbl, offset.
    """

    symbols: tuple[str, str]
    distances_A: np.ndarray
    energies_eV: np.ndarray
    forces_eV_per_A: np.ndarray
    stray_forces_eV_per_A: np.ndarray
    far_energy_eV: float
    arena_range_A: tuple[float, float]
    cutoff_A: float | None = None
    model: str = ""
    grid: str = "given"
    n_not_finite: int = 0
    check_distances_A: np.ndarray = field(default_factory=lambda: np.zeros(0))
    check_forces_eV_per_A: np.ndarray = field(default_factory=lambda: np.zeros(0))
    components_eV: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def pair(self) -> str:
        """Name of the pair, e.g. "Si-O"."""
        return "-".join(self.symbols)

    @property
    def minimum(self) -> tuple[float, float]:
        """Distance (Å) and energy (eV) of the lowest point."""
        lowest = int(self.energies_eV.argmin())
        return float(self.distances_A[lowest]), float(self.energies_eV[lowest])

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, units in the names."""
        arrays = [name for name, value in self.__dict__.items() if isinstance(value, np.ndarray)]
        plain = ("far_energy_eV", "cutoff_A", "model", "grid", "n_not_finite")
        return {
            "pair": self.pair,
            **{name: getattr(self, name) for name in plain},
            "arena_range_A": list(self.arena_range_A),
            **{name: getattr(self, name).tolist() for name in arrays},
            "components_eV": {name: values.tolist() for name, values in self.components_eV.items()},
        }

    def __repr__(self) -> str:
        r, energy = self.minimum
        return (
            f"DiatomicCurve({self.pair}, {self.model}, {len(self.distances_A)} points from {self.distances_A[0]:.2f} "
            f"to {self.distances_A[-1]:.2f} Å, lowest {energy:.3f} eV at {r:.2f} Å; judge it with diatomic_metrics and "
            "diatomic_flags)"
        )


def diatomic_curve(
    calc: Any,
    a: str,
    b: str,
    *,
    grid: Grid = "arena",
    distances_A: Sequence[float] | np.ndarray | None = None,
    cutoff_A: float | None = None,
    name: str | None = None,
) -> DiatomicCurve:
    """Take energy and force of an isolated dimer of a and b over its distance.

    Parameters
    ----------
    calc : ASE calculator
    a, b : str
        Symbols such as "Si", "O".
    grid : {"arena", "full"}
        See `asecalc_mlip.probes.diatomic`.
    distances_A : (n,), optional
        Å; in place of a grid.
    cutoff_A : float, optional
        Å; default: that of the calculator, if it tells one.
    name : str, optional
        Of the model; default: its file or class.

    Returns
    -------
    DiatomicCurve

    Raises
    ------
    InputError
        For unknown elements, distances that cannot be used, and a model that gives not one finite energy.
    """
    numbers = _numbers(a, b)
    cutoff = _cutoff(calc) if cutoff_A is None else float(cutoff_A)
    if distances_A is None:
        r = grid_points(a, b, grid, cutoff)
    else:
        r, grid = _checked(distances_A), "given"  # type: ignore[assignment]
    checked = r[::CHECK_EVERY]
    every = np.concatenate([r, checked - CHECK_STEP, checked + CHECK_STEP])
    energies, forces = energies_and_forces(calc, [Atoms(numbers, [[0, 0, 0], [0, 0, d]]) for d in every])
    radial, stray = _along_bond(np.array(forces[: len(r)]))
    energies, before, after = np.split(energies, [len(r), len(r) + len(checked)])
    good = np.isfinite(energies) & np.isfinite(radial) & np.isfinite(stray)
    label = model_name(calc) if name is None else name
    if good.sum() < 3:
        raise InputError(f"{label} gives a finite energy of {a}-{b} at {good.sum()} of {len(r)} distances: no curve")
    far = float(energies[good][-1])
    return DiatomicCurve(
        symbols=(a, b),
        distances_A=r[good],
        energies_eV=energies[good] - far,
        forces_eV_per_A=radial[good],
        stray_forces_eV_per_A=stray[good],
        far_energy_eV=far,
        arena_range_A=arena_range(a, b),
        cutoff_A=cutoff,
        model=label,
        grid=grid,
        n_not_finite=int((~good).sum()),
        check_distances_A=checked[good[::CHECK_EVERY]],
        check_forces_eV_per_A=((before - after) / (2.0 * CHECK_STEP))[good[::CHECK_EVERY]],
        components_eV=_components(calc, a, b, r[good]),
    )


def diatomic_curves(
    calc: Any, pairs: Sequence[str | tuple[str, str]] | None = None, **options: Any
) -> list[DiatomicCurve]:
    """Take the curve of every pair, "Si-O" or ("Si", "O"); by default all pairs of elements that a model knows."""
    chosen = all_pairs(calc) if not pairs else [parse_pair(pair) for pair in pairs]
    if check := getattr(calc, "check_elements", None):  # before a message names one of a thousand distances
        check(np.concatenate([_numbers(a, b) for a, b in chosen]))
    return [diatomic_curve(calc, a, b, **options) for a, b in chosen]


def all_pairs(calc: Any) -> list[tuple[str, str]]:
    """List all pairs of the elements that a calculator's model knows, like pairs too."""
    elements = getattr(getattr(calc, "potential", None), "elements", None)
    if not elements:
        raise InputError(f"{model_name(calc)} does not say which elements it knows: give pairs, such as 'Si-O'")
    symbols = [chemical_symbols[z] for z in elements]
    return [(a, b) for k, a in enumerate(symbols) for b in symbols[k:]]


def parse_pair(pair: str | tuple[str, str]) -> tuple[str, str]:
    """Take "Si-O" apart into ("Si", "O")."""
    parts = tuple(pair.replace("–", "-").split("-")) if isinstance(pair, str) else tuple(pair)
    if len(parts) != 2:
        raise InputError(f"pair {pair!r} is not two elements: write it as Si-O")
    _numbers(*parts)
    return parts


def arena_range(a: str, b: str) -> tuple[float, float]:
    """Return the ends of the arena grid of a pair, Å: 0.9 R_cov and 3.1 R_vdW, means of the radii of both elements."""
    numbers = _numbers(a, b)
    start = 0.9 * float(np.mean([covalent_radii[z] for z in numbers]))
    radii = [vdw_radii[z] if z < len(vdw_radii) else np.nan for z in numbers]
    ends = [3.1 * radius if np.isfinite(radius) else UNKNOWN_END for radius in radii]
    return start, float(np.mean(ends))


def grid_points(a: str, b: str, grid: Grid = "arena", cutoff_A: float | None = None) -> np.ndarray:
    """Return the distances of a grid by its name, Å."""
    if grid not in get_args(Grid):
        raise InputError(f"grid is {grid!r}; allowed: {', '.join(get_args(Grid))}, or give distances_A")
    start, end = arena_range(a, b)
    low, high = 0, int(np.floor((end - start) / STEP + 1e-9))
    if grid == "full":
        # On the lattice of the arena grid, which is then a part of it.
        low = -int(np.floor((start - CLOSEST) / STEP + 1e-9)) if start > CLOSEST else 0
        high = max(high, int(np.ceil(((cutoff_A or 0.0) + BEYOND - start) / STEP)))
    return start + STEP * np.arange(low, high + 1)


def _along_bond(forces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Radial part of the forces (n, 2, 3) of dimers along z, positive for repulsion, and the largest of the rest."""
    radial = 0.5 * (forces[:, 1, 2] - forces[:, 0, 2])
    rest = forces.copy()
    rest[:, 0, 2] += radial
    rest[:, 1, 2] -= radial
    return radial, np.linalg.norm(rest, axis=2).max(axis=1)


def _components(calc: Any, a: str, b: str, r: np.ndarray) -> dict[str, np.ndarray]:
    pair_curve = getattr(calc, "pair_curve", None)
    if pair_curve is None:
        return {}
    parts = pair_curve(a, b, r)
    return {name: getattr(parts, name) for name in ("density", "morse", "zbl", "offset")}


def _cutoff(calc: Any) -> float | None:
    cutoff = getattr(calc, "cutoff", None)
    return float(cutoff) if isinstance(cutoff, (int, float)) and np.isfinite(cutoff) else None


def _checked(distances: Sequence[float] | np.ndarray) -> np.ndarray:
    r = np.asarray(distances, dtype=float)
    if r.ndim != 1 or len(r) < 3 or not np.isfinite(r).all() or not (r > 0).all() or not (np.diff(r) > 0).all():
        raise InputError("distances_A must be at least three lengths above 0 Å, finite and ascending")
    return r


def _numbers(*symbols: str) -> list[int]:
    for symbol in symbols:
        if symbol not in atomic_numbers or atomic_numbers[symbol] == 0:
            raise InputError(f"{symbol!r} is no element: give symbols such as Si, O")
    return [atomic_numbers[symbol] for symbol in symbols]
