"""Temperature of a trajectory, and whether all atoms have the same: equipartition.

    T_S = Σ_{i in S} m_i v_i² / (f_S k_B),   f_S = Σ_{i in S} f_i

f_i are the degrees of freedom of atom i: 3 of a free one, 3 (1 − m_i / M) when the total momentum is zero, and less by
its share in the three rotations when the angular momentum is zero as well. They are the squared lengths of the rows of
the projection that removes these motions, and their sum is 3N, 3N − 3 or 3N − 6. Atoms that `FixAtoms` holds have none,
and the others then have 3 each, because momentum is not conserved.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import numpy as np
from ase import Atoms, units

from asecalc_mlip.analysis.blocks import BlockAverage, block_average
from asecalc_mlip.analysis.fixed import fixed_atoms
from asecalc_mlip.analysis.frames import as_list
from asecalc_mlip.errors import InputError

Removed = Literal["nothing", "translation", "translation and rotation"]


@dataclass(frozen=True, repr=False)
class Equipartition:
    """Temperatures of all atoms and of each element.

    Attributes
    ----------
    total : BlockAverage
        Temperature of all atoms, K.
    by_element : dict of str to BlockAverage
        Temperature of each element, K.
    worst_deviation : float
        Largest |T_element − T| in units of its standard error.
    """

    total: BlockAverage
    by_element: dict[str, BlockAverage]
    worst_deviation: float

    def to_dict(self) -> dict:
        """Return plain values, for JSON."""
        return asdict(self)

    def __repr__(self) -> str:
        parts = ", ".join(f"{s} {b.mean:.1f} ± {b.error:.1f}" for s, b in self.by_element.items())
        verdict = "equal within errors" if self.worst_deviation < 3.5 else "NOT equal: heat flows somewhere"
        return f"Equipartition({self.total.mean:.1f} ± {self.total.error:.1f} K; {parts} K; {verdict})"


def degrees_by_atom(atoms: Atoms, removed: Removed = "translation") -> np.ndarray:
    """Count the degrees of freedom of each atom, (n,); see the top of this file.

    Raises
    ------
    InputError
        An unknown value of `removed`; constraints other than FixAtoms and FixCom.
    """
    n, roots = len(atoms), np.sqrt(atoms.get_masses())
    if removed not in get_args(Removed):
        raise InputError(f"removed is {removed!r}; allowed: {', '.join(map(repr, get_args(Removed)))}")
    fixed = _fixed(atoms)
    if fixed.any():
        return np.where(fixed, 0.0, 3.0)
    if removed == "nothing" or n == 1:
        return np.full(n, 3.0)
    motions = [np.tile(np.eye(3)[k], (n, 1)) * roots[:, None] for k in range(3)]
    if removed == "translation and rotation":
        r = atoms.positions - atoms.get_center_of_mass()
        motions += [np.cross(np.eye(3)[k], r) * roots[:, None] for k in range(3)]
    u, s, _ = np.linalg.svd(np.array(motions).reshape(len(motions), -1).T, full_matrices=False)
    basis = u[:, s > 1e-6 * s[0]]  # a linear molecule has two rotations
    return 3.0 - (basis**2).sum(axis=1).reshape(n, 3).sum(axis=1)


def _fixed(atoms: Atoms) -> np.ndarray:
    """Which atoms are held in place."""
    fixed, others = fixed_atoms(atoms)
    for name in others:
        if name != "FixCom":  # that is what "translation" means
            raise InputError(
                f"the frames have the constraint {name}, whose degrees of freedom are not counted here; FixAtoms and "
                "FixCom are. Use atoms.get_temperature() for each frame"
            )
    return fixed


def temperatures(
    frames: Atoms | Iterable[Atoms], *, removed: Removed = "translation", select: str | None = None
) -> np.ndarray:
    """Take the kinetic temperature of each frame in K, (n_frames,), of all atoms or of one element.

    Parameters
    ----------
    frames : Atoms or iterable of Atoms
        `ase.Atoms` with momenta, read one by one.
    removed : str
        Motions the integrator leaves out: "translation" for crystals and Langevin dynamics, "translation and rotation"
        for molecules under NVE, Nosé-Hoover or Bussi.
    select : str, optional
        An element.

    Raises
    ------
    InputError
        No frames.
    """
    found = _by_element(frames, removed)
    if select is not None and select not in found:
        raise InputError(f"there is no {select!r} in the frames; their elements are {', '.join(sorted(found))}")
    return found[select or "all"]


def equipartition(frames: Atoms | Iterable[Atoms], *, removed: Removed = "translation") -> Equipartition:
    """Take the temperature of each element with errors from block averages; parameters as for `temperatures`.

    Raises
    ------
    InputError
        Fewer than four frames.
    """
    found = {name: block_average(values) for name, values in _by_element(frames, removed).items()}
    total = found.pop("all")
    deviations = [abs(b.mean - total.mean) / b.error for b in found.values() if b.error > 0]
    return Equipartition(total, found, max(deviations, default=0.0))


def _by_element(frames, removed: Removed) -> dict[str, np.ndarray]:
    values: dict[str, list[float]] = {}
    degrees, members = np.zeros(0), {}
    for number, atoms in enumerate(as_list(frames)):
        if number == 0:
            degrees, symbols = degrees_by_atom(atoms, removed), np.array(atoms.get_chemical_symbols())
            free = degrees > 0.0
            if not free.any():
                raise InputError("all atoms are held in place, so there is no temperature")
            members = {"all": free, **{s: free & (symbols == s) for s in sorted(set(symbols[free]))}}
        twice = (atoms.get_momenta() ** 2).sum(axis=1) / atoms.get_masses()
        for name, mine in members.items():
            values.setdefault(str(name), []).append(float(twice[mine].sum() / (degrees[mine].sum() * units.kB)))
    if not values:
        raise InputError("there is no frame to take a temperature of: give at least one")
    return {name: np.array(series) for name, series in values.items()}
