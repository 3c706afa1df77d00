"""References of any kind: made from frames, read from a file, stored in a model file.

A reference says how a system looks in the data, so that a run can be judged by it. A molecule has mean bond lengths and
h(r), a periodic system has g(r). Data of another kind (several molecules, slabs) have the closest approach of each pair
of elements only, which the two others have too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ase import Atoms

from asecalc_mlip.analysis.bonds import is_boxed_molecule
from asecalc_mlip.analysis.contacts import shortest_by_pair
from asecalc_mlip.analysis.frames import stated_temperatures
from asecalc_mlip.analysis.molecule_reference import FORMAT as MOLECULE
from asecalc_mlip.analysis.molecule_reference import MoleculeReference, read_reference
from asecalc_mlip.analysis.periodic_reference import FORMAT as PERIODIC
from asecalc_mlip.analysis.periodic_reference import Kind, PeriodicReference, composition_of, density_of
from asecalc_mlip.data.labels import is_isolated_atom
from asecalc_mlip.data.sampling import evenly
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import read_json, write_json

__all__ = [
    "ContactReference",
    "Reference",
    "describe_reference",
    "load_reference",
    "make_reference",
    "reference_from_dict",
    "temperature_doubt",
    "unlike",
]

CONTACTS = "asecalc-mlip contact reference"
# A mean over more frames is no better for a comparison with a run, and takes long.
MOST_FRAMES = 2000
# Mean g(r) over matter of more elements than these are those of no system, and there are thousands of them.
MOST_ELEMENTS = 12
# Temperatures that differ by more than this share are no longer one temperature.
ONE_TEMPERATURE = 0.05
# So may densities: g(r) has the density as a factor.
ONE_DENSITY = 0.05


@dataclass(frozen=True, repr=False)
class ContactReference:
    """Closest approach of each pair of elements in data that are neither one molecule nor all periodic.

    Attributes
    ----------
    closest : dict of str to float
        Shortest distance by pair of elements, Å: {"C-H": 0.98}.
    n_frames : int
    source : str
        Where the frames come from, for reports.
    temperatures_K : (float, float) or None
        Lowest and highest temperature that the frames state; None: they state none.
    """

    closest: dict[str, float] = field(default_factory=dict)
    n_frames: int = 0
    source: str = ""
    temperatures_K: tuple[float, float] | None = None

    @classmethod
    def of(cls, reference: Reference) -> ContactReference:
        """Take the closest approaches of another reference alone."""
        return cls(dict(reference.closest), reference.n_frames, reference.source, reference.temperatures_K)

    def matches(self, atoms: Atoms) -> bool:
        """Return whether the data have a pair with each element of `atoms`."""
        known = {symbol for pair in self.closest for symbol in pair.split("-")}
        return set(atoms.get_chemical_symbols()) <= known

    def to_dict(self) -> dict:
        """Return plain lists and numbers, for JSON and model files."""
        return {
            "format": CONTACTS,
            "version": 1,
            "source": self.source,
            "n_frames": self.n_frames,
            "closest": dict(self.closest),
            "temperatures_K": list(self.temperatures_K) if self.temperatures_K else None,
        }

    @classmethod
    def from_dict(cls, data: dict) -> ContactReference:
        """Invert `to_dict`."""
        if data.get("format") != CONTACTS or data.get("version") != 1:
            raise InputError(f"this is no '{CONTACTS}' of version 1; make one with 'asecalc reference'")
        span = data["temperatures_K"]
        closest = {str(pair): float(distance) for pair, distance in data["closest"].items()}
        return cls(closest, int(data["n_frames"]), data["source"], (float(span[0]), float(span[1])) if span else None)

    def save(self, path: str | os.PathLike) -> None:
        """Write the reference as JSON."""
        write_json(path, self, indent=None)

    def __repr__(self) -> str:
        return (
            f"ContactReference({len(self.closest)} pairs, {self.n_frames} frames, source: {self.source or 'not given'})"
        )


Reference = MoleculeReference | PeriodicReference | ContactReference
KINDS: dict[str, type[Reference]] = {
    MOLECULE: MoleculeReference,
    PERIODIC: PeriodicReference,
    CONTACTS: ContactReference,
}


def make_reference(
    frames: Atoms | Iterable[Atoms],
    source: str = "",
    *,
    kind: Kind | None = None,
    group_by: str | None = None,
    temperature_K: float | None = None,
    protocol: str | None = None,
    temperatures_K: tuple[float, float] | None = None,
    most: int | None = MOST_FRAMES,
    **bins: Any,
) -> Reference:
    """Make the reference that fits the frames: of a molecule, of a periodic system, or of contacts only.

    Parameters
    ----------
    frames : Atoms or iterable of Atoms
        A trajectory or a data set. Frames of one isolated atom are left out.
    source : str
        Where they come from, for reports.
    kind : {"solid", "liquid"}, optional
        Of a periodic system; a run is unstable when its g(r) differs by 1.0 or 3.0 Å. By default a solid where the
        frames state one temperature, else the wider limit, because frames that are no trajectory at one temperature
        (strained cells, random displacements, several temperatures) have another g(r) than a run.
    group_by, temperature_K, protocol : optional
        Of a periodic system, see `PeriodicReference.from_frames`.
    temperatures_K : (float, float), optional
        Lowest and highest temperature of the frames; default: those that they state.
    most : int, optional
        So many frames at most, evenly spread, go into h(r) or g(r); the closest approach is over all.
    **bins
        `bins` and `r_max` (Å) of h(r) or g(r).

    Returns
    -------
    MoleculeReference, PeriodicReference or ContactReference

    Raises
    ------
    InputError
        There are no frames, or options of a periodic system are given and the frames are none.
    """
    frames = [frames] if isinstance(frames, Atoms) else list(frames)
    if not frames:
        raise InputError("a reference needs at least one frame")
    frames = [atoms for atoms in frames if not is_isolated_atom(atoms)]
    if not frames:
        raise InputError("all frames are isolated atoms, which have no distances: a reference needs structures")
    some = [frames[i] for i in evenly(len(frames), len(frames) if most is None else most)]
    span = temperatures_K or stated_temperatures(frames)
    made: Reference
    molecule = _is_one_molecule(frames)
    few = len({int(z) for atoms in frames for z in atoms.numbers}) <= MOST_ELEMENTS
    if not molecule and few and all(atoms.pbc.all() and atoms.cell.rank == 3 for atoms in frames):
        kind = kind or ("solid" if span and span[1] <= (1 + ONE_TEMPERATURE) * span[0] else "liquid")
        options: dict[str, Any] = {"group_by": group_by, "temperature_K": temperature_K, "protocol": protocol}
        made = PeriodicReference.from_frames(some, source, kind=kind, **options, **bins)
    else:
        given = {"kind": kind, "group_by": group_by, "temperature_K": temperature_K, "protocol": protocol}
        if named := [name for name, value in given.items() if value is not None]:
            raise InputError(
                f"{', '.join(named)}: for periodic frames only, of at most {MOST_ELEMENTS} elements; leave it out"
            )
        contacts = ContactReference(n_frames=len(frames))
        made = MoleculeReference.from_frames(some, source, **bins) if molecule else contacts
    closest = made.closest if made.closest and len(some) == len(frames) else shortest_by_pair(frames)
    return replace(made, closest=closest, temperatures_K=span, source=source)


def reference_from_dict(data: Mapping[str, Any]) -> Reference:
    """Make a reference of what its `to_dict` gave, whichever kind it is of.

    Raises
    ------
    InputError
        It is none, or damaged.
    """
    kind = KINDS.get(str(data.get("format", ""))) if isinstance(data, Mapping) else None
    if kind is None:
        raise InputError("this is no reference; make one with 'asecalc reference'")
    try:
        return kind.from_dict(dict(data))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise error if isinstance(error, InputError) else InputError(f"the reference is damaged: {error!r}") from None


def load_reference(path: str | os.PathLike) -> Reference:
    """Read a reference (JSON), or make one of any file of frames: a trajectory, or a data set.

    Raises
    ------
    InputError
        The file is neither.
    """
    if Path(path).suffix == ".pt":
        advice = "give a file of 'asecalc reference', or frames; a run of this model uses the reference in it by itself"
        raise InputError(f"{path} is a model, not a reference: {advice}")
    if _is_json(Path(path)):
        data = read_json(path, "reference")
        kind = KINDS.get(str(data.get("format", ""))) if isinstance(data, dict) else None
        if kind is None:
            raise InputError(f"{path} is no reference: make one with 'asecalc reference', or give frames")
        return read_reference(kind, path)
    from asecalc_mlip.data.readers import read_frames

    return make_reference(read_frames(Path(path)), Path(path).name)


def temperature_doubt(reference: Reference, temperature_K: float | None = None) -> str | None:
    """Say why h(r) or g(r) of a sound run may differ from a reference; None: there is no reason.

    Parameters
    ----------
    reference : Reference
    temperature_K : float, optional
        Of the run, K; None: that of the reference.
    """
    known = reference.temperatures_K
    if known is None:
        return (
            "the frames of the reference state no temperature; where they are no dynamics at the temperature of a run, "
            "g(r) and h(r) of a sound run differ from theirs"
        )
    low, high = known
    span = f"{low:g} K" if low == high else f"{low:g} to {high:g} K"
    if temperature_K is None:
        several = high > (1 + ONE_TEMPERATURE) * low
        return f"the frames of the reference are of {span}, and heat alone changes g(r) and h(r)" if several else None
    if (1 - ONE_TEMPERATURE) * low <= temperature_K <= (1 + ONE_TEMPERATURE) * high:
        return None
    return f"the reference is of {span} and the run at {temperature_K:g} K: heat alone changes g(r) and h(r)"


def unlike(reference: PeriodicReference, atoms: Atoms, temperature_K: float) -> str | None:
    """Say why g(r) of a sound run may differ from a reference, so that it is no rule; None: the conditions are alike.

    Parameters
    ----------
    reference : PeriodicReference
    atoms : Atoms
        Start structure of the run.
    temperature_K : float
        Of the run, K.
    """
    span = reference.temperatures_K
    if span is None:
        return "the frames of the reference state no temperature"
    text = f"{span[0]:g} K" if span[0] == span[1] else f"{span[0]:g} to {span[1]:g} K"
    if temperature_doubt(reference, temperature_K):
        return f"the frames of the reference are of {text} and the run is at {temperature_K:g} K"
    if span[1] > (1 + ONE_TEMPERATURE) * span[0]:
        return f"the frames of the reference are of {text}, not of one temperature"
    if reference.density is None:
        return "the reference does not say its composition and density; make it again with 'asecalc reference'"
    if reference.composition != composition_of(atoms):
        known = reference.composition or "several compositions"
        return f"the frames of the reference are of {known} and the run is of {composition_of(atoms)}"
    (low, high), density = reference.density, density_of(atoms)
    if not (1 - ONE_DENSITY) * low <= density <= (1 + ONE_DENSITY) * high:
        return f"the reference has {low:.4f} to {high:.4f} atoms per Å³ and the run {density:.4f}"
    return None


def describe_reference(data: Mapping[str, Any]) -> str:
    """Describe a stored reference in one line: what it has, of how many frames, and the closest approach."""
    try:
        reference = reference_from_dict(data)
    except InputError as error:
        return str(error)
    has = "bond lengths, h(r)" if isinstance(reference, MoleculeReference) else None
    if isinstance(reference, PeriodicReference):
        has = f"g(r) (unstable beyond {reference.threshold:g} Å)" + (", coordination" if reference.shells else "")
    span = reference.temperatures_K
    heat = "temperature not stated" if span is None else "–".join(f"{t:g}" for t in dict.fromkeys(span)) + " K"
    shortest = sorted(reference.closest.items(), key=lambda item: item[1])[:4]
    closest = ", ".join(f"{pair} {distance:.2f}" for pair, distance in shortest)
    closest += ", …" if len(reference.closest) > len(shortest) else ""
    what = ", ".join(filter(None, [has, f"closest approach ({closest} Å)" if closest else None]))
    return f"{what} of {reference.n_frames} frame{'' if reference.n_frames == 1 else 's'}, {heat}"


def _is_one_molecule(frames: Sequence[Atoms]) -> bool:
    """Whether all frames are the same molecule, each open or alone in a periodic box."""
    if len({(atoms.numbers.tobytes(), bool(atoms.pbc.any())) for atoms in frames}) != 1:
        return False
    # Of the others, some may have just dissociated.
    return not frames[0].pbc.any() or is_boxed_molecule(frames[0])


def _is_json(path: Path) -> bool:
    """Whether a file is, or is meant to be, JSON."""
    if path.suffix == ".json":
        return True
    try:
        with open(path, "rb") as file:
            return file.read(256).lstrip()[:1] == b"{"
    except OSError as error:
        raise InputError(f"reference {path} cannot be read: {error.strerror or error}") from None
