"""What the monitor finds: a failure, and the extremes of all frames."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from ase import Atoms

__all__ = ["UNCERTAIN", "Extremes", "Failure", "atom_name"]

UNCERTAIN = "uncertain"
"""Kind of a failure that no rule of the monitor found: the members of a committee disagree."""


@dataclass(frozen=True)
class Failure:
    """What broke.

    Attributes
    ----------
    kind : str
        "not finite", "volume", "bond break", "collapse", "evaporation", "temperature", "coordination" or "rdf"; of a
        committee "uncertain".
    message : str
        A sentence with atoms, values, limits, and where the limits come from.
    atoms : tuple of int
        The atoms concerned, counted from 0.
    value, limit : float
        The number that was out of bounds, and the bound: Å of a contact, a bond and g(r), K, Å³, or neighbours.
    pair : str
        The two elements or atoms concerned, such as "Si3-Si7"; empty where there are none.
    rule : str
        Where the limit comes from, such as "0.85 of their closest approach in the training data, 2.73 Å".
    """

    kind: str
    message: str
    atoms: tuple[int, ...] = ()
    value: float = math.nan
    limit: float = math.nan
    pair: str = ""
    rule: str = ""

    @property
    def brief(self) -> str:
        """Kind, pair, value and limit, for titles."""
        numbers = f"{self.value:.3g}, limit {self.limit:.3g}" if math.isfinite(self.value) else ""
        told = ", ".join(filter(None, [" ".join(filter(None, [self.kind, self.pair])), numbers]))
        return told + (f" {_UNITS[self.kind]}" if numbers and _UNITS.get(self.kind) else "")

    def to_dict(self) -> dict:
        """Return plain values, for JSON."""
        return {**asdict(self), "brief": self.brief}


_UNITS = {"collapse": "Å", "bond break": "Å", "rdf": "Å", "volume": "Å³", "temperature": "K", "coordination": "atoms"}
_UNITS[UNCERTAIN] = "eV/Å"


@dataclass
class Extremes:
    """The worst that was seen in any frame so far, the broken one included.

    Attributes
    ----------
    closest_ratio : float or None
        Smallest distance over the sum of the covalent radii, periodic images included.
    closest_A : float or None
        That distance, Å.
    closest_pair : str or None
        Its atoms, such as "O7-C10".
    largest_force : float
        Largest |F| of an atom, eV/Å.
    force_frames : int
        Frames with |F| above `force_limit` on any atom.
    force_limit : float or None
        Mean + 5 std of |F| in the training data, eV/Å; None if it is not known.
    margin : float or None
        Smallest distance over the limit of its pair of elements; below 1 the run has broken.
    margin_A, margin_limit_A : float or None
        That distance and that limit, Å.
    margin_pair : str or None
        Its atoms.
    """

    closest_ratio: float | None = None
    closest_A: float | None = None
    closest_pair: str | None = None
    largest_force: float = 0.0
    force_frames: int = 0
    force_limit: float | None = None
    margin: float | None = None
    margin_A: float | None = None
    margin_limit_A: float | None = None
    margin_pair: str | None = None


def atom_name(atoms: Atoms, index: int) -> str:
    """Return element and number of an atom, such as "Si3"."""
    return f"{atoms.symbols[int(index)]}{int(index)}"
