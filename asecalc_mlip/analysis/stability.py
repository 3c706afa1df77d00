"""How long does a molecule hold together? The 0.5 Å bond rule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
from ase import Atoms

from asecalc_mlip.analysis.bonds import THRESHOLD, bond_lengths
from asecalc_mlip.analysis.molecule_reference import MoleculeReference
from asecalc_mlip.errors import InputError


@dataclass(frozen=True, repr=False)
class StabilityResult:
    """Answer of `stability`.

    Attributes
    ----------
    stable : bool
        Whether every frame kept every bond.
    stable_ps : float
        Time of the last frame before the first broken one (of the last frame, if none broke), ps.
    total_ps : float
        Time of the last frame, ps.
    unstable_frame : int or None
        Index of the first broken frame, or None.
    worst_bond : str or None
        The bond that deviates most, in the broken frame or (stable) over all frames; None without bonds.
    worst_atoms : (int, int) or None
        Its two atoms, counted from 0.
    worst_length, reference_length : float
        Its length there and its mean length b_ij, Å.
    threshold : float
        Å.
    """

    stable: bool
    stable_ps: float
    total_ps: float
    unstable_frame: int | None
    worst_bond: str | None
    worst_atoms: tuple[int, int] | None
    worst_length: float
    reference_length: float
    threshold: float

    def to_dict(self) -> dict:
        """Return plain numbers, for JSON."""
        return asdict(self)

    def __repr__(self) -> str:
        bond = f"{self.worst_bond} {self.worst_length:.2f} Å, mean {self.reference_length:.2f} Å"
        if self.stable:
            return f"StabilityResult(stable for all {self.total_ps:g} ps; largest deviation: {bond})"
        return (
            f"StabilityResult(stable for {self.stable_ps:g} of {self.total_ps:g} ps; "
            f"frame {self.unstable_frame} broke: {bond})"
        )


def stability(
    frames: np.ndarray | Iterable,
    reference: MoleculeReference | Atoms,
    *,
    dt_fs: float,
    threshold: float = THRESHOLD,
) -> StabilityResult:
    """Find the time until a bond of the molecule breaks.

    A frame is broken when max over bonds of | |r_i − r_j| − b_ij | > threshold, or when a position is not finite.

    Parameters
    ----------
    frames : array or iterable
        (n_frames, n_atoms, 3) array in Å, or an iterable of such frames or of `ase.Atoms`; read one by one.
    reference : MoleculeReference or Atoms
        Or a geometry whose bonds and bond lengths are the reference.
    dt_fs : float
        Time between two *frames* in fs (time step × interval).
    threshold : float
        Å.

    Raises
    ------
    InputError
        No frames, another molecule than the reference, or dt_fs ≤ 0.

    Source: Fu et al., TMLR 2023, section 4.2 (https://arxiv.org/abs/2210.07237).
    """
    if isinstance(reference, Atoms):
        reference = MoleculeReference.from_frames(reference, "given geometry")
    if not dt_fs > 0:
        raise InputError(f"dt_fs is the time between two frames in fs and must be positive, not {dt_fs}")
    worst, broken, number = (-1.0, 0, 0.0), None, -1
    for number, frame in enumerate(frames):
        box = frame if isinstance(frame, Atoms) else None
        deviation, index, length = worst_deviation(_positions(frame, reference), reference, box)
        if not deviation <= threshold and broken is None:  # NaN counts as broken
            broken, worst = number, (deviation, index, length)
        if broken is None and deviation > worst[0]:
            worst = (deviation, index, length)
    if number < 0:
        raise InputError("there is no frame to judge: give at least one")
    return _result(reference, worst, broken, number, dt_fs * 1e-3, threshold)


def worst_deviation(
    positions: np.ndarray, reference: MoleculeReference, box: Atoms | None = None
) -> tuple[float, int, float]:
    """Find the largest | |r_i − r_j| − b_ij | of a frame (n_atoms, 3) in Å, the index of that bond, and its length.

    The cell of `box` gives the nearest images; None: no images.
    """
    if len(reference.bonds) == 0:
        return (0.0 if np.isfinite(positions).all() else np.nan), -1, np.nan
    lengths = bond_lengths(positions, reference.bonds, box)
    deviations = np.abs(lengths - reference.mean_lengths)
    index = int(np.argmax(deviations))  # NumPy counts NaN as the largest
    return float(deviations[index]), index, float(lengths[index])


def _positions(frame, reference: MoleculeReference) -> np.ndarray:
    if isinstance(frame, Atoms) and not reference.matches(frame):
        raise InputError(
            f"the frame is {frame.get_chemical_formula()} or has another order of atoms than the reference "
            f"{reference!r}: use the reference of the same molecule"
        )
    positions = frame.positions if isinstance(frame, Atoms) else np.asarray(frame, dtype=float)
    if positions.shape != (len(reference.symbols), 3):
        raise InputError(f"a frame has the shape {positions.shape}, the reference {len(reference.symbols)} atoms")
    return positions


def _result(reference, worst, broken, last, dt_ps, threshold) -> StabilityResult:
    _, index, length = worst
    bond = reference.bonds[index] if index >= 0 and len(reference.bonds) else None
    return StabilityResult(
        stable=broken is None,
        stable_ps=dt_ps * (last if broken is None else max(broken - 1, 0)),
        total_ps=dt_ps * last,
        unstable_frame=broken,
        worst_bond=None if bond is None else reference.bond_name(index),
        worst_atoms=None if bond is None else (int(bond[0]), int(bond[1])),
        worst_length=length,
        reference_length=np.nan if bond is None else float(reference.mean_lengths[index]),
        threshold=threshold,
    )
