"""Drift of the total energy in NVE: is the integrator with this potential conservative?"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from asecalc_mlip.errors import InputError


@dataclass(frozen=True, repr=False)
class EnergyDrift:
    """Answer of `energy_drift`.

    Attributes
    ----------
    slope_mev_per_atom_ps : float
        Slope of a straight line through E_total(t), meV/atom/ps.
    fluctuation_mev_per_atom : float
        Standard deviation of E_total about that line, meV/atom.
    relative_to_kinetic : float or None
        |slope · T_run| / std(E_kin), without unit; None when E_kin was not given.
    duration_ps : float
        T_run, ps.
    n_atoms : int
        Number of atoms.
    """

    slope_mev_per_atom_ps: float
    fluctuation_mev_per_atom: float
    relative_to_kinetic: float | None
    duration_ps: float
    n_atoms: int

    def to_dict(self) -> dict:
        """Return plain numbers, for JSON."""
        return asdict(self)

    def __repr__(self) -> str:
        kinetic = ""
        if self.relative_to_kinetic is not None:
            kinetic = f", {100 * self.relative_to_kinetic:.2g} % of std(E_kin) over the run"
        return (
            f"EnergyDrift({self.slope_mev_per_atom_ps:+.3g} meV/atom/ps over {self.duration_ps:g} ps, "
            f"fluctuation {self.fluctuation_mev_per_atom:.2g} meV/atom{kinetic})"
        )


def energy_drift(
    times_ps: np.ndarray, total_energy: np.ndarray, n_atoms: int, kinetic: np.ndarray | None = None
) -> EnergyDrift:
    """Fit the linear drift of the total (or another conserved) energy.

    Parameters
    ----------
    times_ps : (n,) array
        ps.
    total_energy : (n,) array
        eV, of the whole system.
    n_atoms : int
        Number of atoms.
    kinetic : (n,) array
        eV, optional: sets the drift in relation to the fluctuation of the kinetic energy.

    Raises
    ------
    InputError
        Fewer than three points, different lengths, NaN, times that do not grow, or no atoms.
    """
    times, energy = np.asarray(times_ps, dtype=float), np.asarray(total_energy, dtype=float)
    kinetic = None if kinetic is None else np.asarray(kinetic, dtype=float)
    _check(times, energy, kinetic, n_atoms)
    t, e = times - times.mean(), energy - energy.mean()  # centred: total energies of 1e4 eV lose no digits
    slope = float(t @ e / (t @ t))
    duration = float(times[-1] - times[0])
    spread = None if kinetic is None else float(kinetic.std())
    return EnergyDrift(
        slope_mev_per_atom_ps=1e3 * slope / n_atoms,
        fluctuation_mev_per_atom=1e3 * float(np.std(e - slope * t)) / n_atoms,
        relative_to_kinetic=abs(slope) * duration / spread if spread else None,
        duration_ps=duration,
        n_atoms=int(n_atoms),
    )


def _check(times, energy, kinetic, n_atoms) -> None:
    arrays = [times, energy] + ([] if kinetic is None else [kinetic])
    if any(a.ndim != 1 or len(a) != len(times) for a in arrays) or len(times) < 3:
        shapes = ", ".join(str(a.shape) for a in arrays)
        raise InputError(f"times and energies must be arrays of one equal length of at least 3, not {shapes}")
    if not all(np.isfinite(a).all() for a in arrays):
        raise InputError("times or energies have NaN or infinite values: use the part of the run before it broke")
    if not (np.diff(times) > 0).all():
        raise InputError("times must grow from one point to the next")
    if n_atoms < 1:
        raise InputError(f"n_atoms must be at least 1, not {n_atoms}")
