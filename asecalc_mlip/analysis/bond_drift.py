"""Do bonds keep their lengths over a run? Slow creep that the 0.5 Å rule does not see yet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
from ase import Atoms

from asecalc_mlip.analysis.blocks import block_average
from asecalc_mlip.analysis.bonds import bond_lengths
from asecalc_mlip.analysis.frames import as_list
from asecalc_mlip.analysis.molecule_reference import MoleculeReference
from asecalc_mlip.errors import InputError


@dataclass(frozen=True, repr=False)
class BondDrift:
    """Answer of `bond_drift`.

    Attributes
    ----------
    names : list of str
        The bonds, e.g. "C3-H14".
    mean_A, std_A : list of float
        Mean and standard deviation of each length over the run, Å.
    offset_A : list of float
        Mean less the mean length of the reference, Å.
    change_A : list of float
        Mean of the second half of the run less that of the first, Å.
    error_A : list of float
        Standard error of `change_A`, Å.
    """

    names: list[str]
    mean_A: list[float]
    std_A: list[float]
    offset_A: list[float]
    change_A: list[float]
    error_A: list[float]

    def to_dict(self) -> dict:
        """Return plain lists, for JSON."""
        return asdict(self)

    def __repr__(self) -> str:
        k = int(np.argmax(np.abs(self.change_A)))
        m = int(np.argmax(np.abs(self.offset_A)))
        return (
            f"BondDrift({len(self.names)} bonds; largest change between halves {self.change_A[k]:+z.4f} ± "
            f"{self.error_A[k]:.4f} Å of {self.names[k]}; largest offset from the reference {self.offset_A[m]:+z.4f} Å "
            f"of {self.names[m]})"
        )


def bond_drift(frames: np.ndarray | Iterable, reference: MoleculeReference | Atoms) -> BondDrift:
    """Compare bond lengths between the halves of a run and with the reference.

    Parameters
    ----------
    frames : array or iterable
        (n_frames, n_atoms, 3) array in Å, or an iterable of frames or of `ase.Atoms`, whose cell gives the nearest
        images; read one by one, only the lengths are kept.
    reference : MoleculeReference or Atoms
        Or a geometry whose bonds are the reference.

    Raises
    ------
    InputError
        Fewer than eight frames, or a molecule without bonds.
    """
    if isinstance(reference, Atoms):
        reference = MoleculeReference.from_frames(reference, "given geometry")
    if len(reference.bonds) == 0:
        raise InputError(f"the reference {reference!r} has no bonds whose lengths could drift")
    rows = [_lengths(frame, reference) for frame in as_list(frames)]
    if len(rows) < 8:
        raise InputError(f"halves of a run need at least four frames each, so eight in all, not {len(rows)}")
    lengths = np.array(rows)
    half = len(lengths) // 2
    first = [block_average(column) for column in lengths[:half].T]
    second = [block_average(column) for column in lengths[half:].T]
    return BondDrift(
        [reference.bond_name(k) for k in range(len(reference.bonds))],
        lengths.mean(axis=0).tolist(),
        lengths.std(axis=0).tolist(),
        (lengths.mean(axis=0) - reference.mean_lengths).tolist(),
        [b.mean - a.mean for a, b in zip(first, second, strict=True)],
        [float(np.hypot(a.error, b.error)) for a, b in zip(first, second, strict=True)],
    )


def _lengths(frame: Atoms | np.ndarray, reference: MoleculeReference) -> np.ndarray:
    if isinstance(frame, Atoms):
        return bond_lengths(frame.positions, reference.bonds, frame)
    return bond_lengths(np.asarray(frame, dtype=float), reference.bonds)
