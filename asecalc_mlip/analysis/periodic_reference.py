"""How a crystal or a liquid looks in the reference data: radial distribution functions, closest approach, forces."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from ase import Atoms

from asecalc_mlip.analysis.contacts import shortest_by_pair
from asecalc_mlip.analysis.frames import stated_temperatures
from asecalc_mlip.analysis.molecule_reference import read_reference
from asecalc_mlip.analysis.rdf import RDF, partial_rdfs
from asecalc_mlip.analysis.shells import shells_of
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import write_json

FORMAT = "asecalc-mlip periodic reference"
Kind = Literal["solid", "liquid"]
THRESHOLDS: dict[str, float] = {"solid": 1.0, "liquid": 3.0}
"""Å; largest ∫|g − g_ref| dr over r < 6 Å of a run that counts as stable (Fu et al., TMLR 2023)."""
R_MAX = 6.0  # Å
BINS = 120
FORCE_NAMES = ("REF_forces", "forces", "ref_forces", "dft_forces")


@dataclass(frozen=True, repr=False)
class PeriodicReference:
    """Reference against which the stability and the structure of a periodic system are judged.

    Attributes
    ----------
    rdfs : dict of RDF
        By name: "all", "O-O", "O-Si", ...
    source : str
        Where the frames come from, for reports.
    kind : {"solid", "liquid"}
        Decides the threshold unless `threshold_A` is given.
    groups : dict of dict of RDF
        The same of parts of the data, by the value of `group_by`; empty if the data are of one kind.
    group_by : str or None
        The entry of `atoms.info` that names the part a structure belongs to, e.g. "topology".
    temperature_K : float or None
        Temperature at which the model is meant to run.
    protocol : str or None
        Name of the protocol (protocols.yaml) for it.
    temperatures_K : (float, float) or None
        Lowest and highest temperature of the data; None: not known.
    threshold_A : float or None
        Largest ∫|g − g_ref| dr of a stable run, Å; None: by kind.
    closest : dict of str to float
        Shortest distance in the data by pair, Å, periodic images included.
    forces : dict of str to float
        mean, std and max of |F| over all atoms, and their number, eV/Å; empty if the frames have no forces.
    shells : dict of dict
        Of each pair with a clear first shell its `cutoff`, Å, and the `low` and `high` of the mean number of
        neighbours in a frame, see `shells_of`; empty in files of older versions.
    composition : str or None
        Empirical formula of all frames; None: they differ, or the file is older.
    density : (float, float) or None
        Lowest and highest number of atoms per Å³; None in files of older versions.
    """

    rdfs: dict[str, RDF]
    source: str = ""
    kind: Kind = "solid"
    groups: dict[str, dict[str, RDF]] = field(default_factory=dict)
    group_by: str | None = None
    temperature_K: float | None = None
    protocol: str | None = None
    temperatures_K: tuple[float, float] | None = None
    threshold_A: float | None = None
    closest: dict[str, float] = field(default_factory=dict)
    forces: dict[str, float] = field(default_factory=dict)
    shells: dict[str, dict[str, float]] = field(default_factory=dict)
    composition: str | None = None
    density: tuple[float, float] | None = None

    @property
    def n_frames(self) -> int:
        """Number of frames the means are taken over."""
        return self.rdfs["all"].n_frames

    @property
    def threshold(self) -> float:
        """Largest ∫|g − g_ref| dr of a stable run, Å."""
        return THRESHOLDS[self.kind] if self.threshold_A is None else self.threshold_A

    @property
    def edges(self) -> np.ndarray:
        """Edges of the bins, Å."""
        return self.rdfs["all"].edges

    @property
    def force_limit(self) -> float | None:
        """Mean + 5 std of |F| in the data, eV/Å; None if they have no forces."""
        return self.forces["mean"] + 5.0 * self.forces["std"] if self.forces else None

    def group_of(self, atoms: Atoms) -> str | None:
        """Return the part of the data that a structure says it belongs to, or None."""
        name = str(atoms.info.get(self.group_by)) if self.group_by else None
        return name if name in self.groups else None

    def rdfs_for(self, atoms: Atoms) -> dict[str, RDF]:
        """Return the functions to compare a run of `atoms` with: those of its group, else of all data."""
        group = self.group_of(atoms)
        return self.groups[group] if group is not None else self.rdfs

    def matches(self, atoms: Atoms) -> bool:
        """Return whether the data have every pair of elements of `atoms`, which is periodic in three directions."""
        symbols = sorted(set(atoms.get_chemical_symbols()))
        names = {f"{a}-{b}" for k, a in enumerate(symbols) for b in symbols[k:]}
        return bool(atoms.pbc.all()) and names <= set(self.rdfs)

    @classmethod
    def from_frames(
        cls,
        frames: Atoms | Iterable[Atoms],
        source: str = "",
        *,
        kind: Kind = "solid",
        group_by: str | None = None,
        temperature_K: float | None = None,
        protocol: str | None = None,
        temperatures_K: tuple[float, float] | None = None,
        threshold_A: float | None = None,
        r_max: float = R_MAX,
        bins: int = BINS,
    ) -> PeriodicReference:
        """Build the reference from frames, total and partial functions.

        Parameters
        ----------
        frames : Atoms or iterable of Atoms
            Periodic structures; forces are taken from their calculator or from arrays REF_forces or forces.
        source : str
            Where they come from, e.g. "Si-ZEO22, 1200 training frames, PBE-D3".
        kind : {"solid", "liquid"}
            Threshold 1.0 Å or 3.0 Å.
        group_by : str, optional
            Entry of `atoms.info` by which the data fall into parts whose structures differ (zeolites: "topology"); a
            run is compared with its own part, because parts differ among themselves by up to 0.9 Å.
        temperature_K, protocol : float, str, optional
            What a run of the model uses unless told otherwise.
        temperatures_K : (float, float), optional
            Lowest and highest temperature of the frames; default: those that they state. Runs outside are warned of,
            because heat alone broadens g(r): silica frames of 298 to 1000 K leave the 1.0 Å of a solid at 2000 K
            without any fault.
        threshold_A : float, optional
            In place of that of `kind`.
        r_max, bins : float, int
            Of the functions; `r_max` in Å.

        Raises
        ------
        InputError
            There are no frames, or some that are not periodic or have no entry `group_by`; or the kind is unknown.
        """
        if kind not in get_args(Kind):
            raise InputError(f"kind is {kind!r}; allowed: {', '.join(get_args(Kind))}")
        frames = [frames] if isinstance(frames, Atoms) else list(frames)
        parts = _parts(frames, group_by)
        rdfs = partial_rdfs(frames, r_max=r_max, bins=bins)
        formulas = {composition_of(atoms) for atoms in frames}
        densities = [density_of(atoms) for atoms in frames]
        return cls(
            rdfs=rdfs,
            source=source,
            kind=kind,
            groups={name: partial_rdfs(part, r_max=r_max, bins=bins) for name, part in parts.items()},
            group_by=group_by,
            temperature_K=temperature_K,
            protocol=protocol,
            temperatures_K=temperatures_K or stated_temperatures(frames),
            threshold_A=threshold_A,
            closest=shortest_by_pair(frames),
            forces=force_statistics(frames),
            shells=shells_of(frames, rdfs),
            composition=formulas.pop() if len(formulas) == 1 else None,
            density=(min(densities), max(densities)),
        )

    def to_dict(self) -> dict:
        """Return plain lists and numbers, for JSON and model files."""
        return {
            "format": FORMAT,
            "version": 1,
            "source": self.source,
            "kind": self.kind,
            "temperature_K": self.temperature_K,
            "protocol": self.protocol,
            "temperatures_K": list(self.temperatures_K) if self.temperatures_K else None,
            "threshold_A": self.threshold_A,
            "closest": self.closest,
            "forces": self.forces,
            "group_by": self.group_by,
            "shells": self.shells,
            "composition": self.composition,
            "density": list(self.density) if self.density else None,
            "rdfs": {name: g.to_dict() for name, g in self.rdfs.items()},
            "groups": {k: {name: g.to_dict() for name, g in part.items()} for k, part in self.groups.items()},
        }

    @classmethod
    def from_dict(cls, data: dict) -> PeriodicReference:
        """Invert `to_dict`; floats come back exactly."""
        if data.get("format") != FORMAT or data.get("version") != 1:
            raise InputError(f"this is no '{FORMAT}' of version 1; make one with 'asecalc reference'")
        span, density = data["temperatures_K"], data.get("density")  # as the next two, not in files before 0.2
        plain = ("threshold_A", "source", "kind", "temperature_K", "protocol", "closest", "forces", "group_by")
        return cls(
            rdfs=_read(data["rdfs"]),
            groups={name: _read(part) for name, part in data["groups"].items()},
            temperatures_K=(float(span[0]), float(span[1])) if span else None,
            shells={str(pair): {k: float(v) for k, v in one.items()} for pair, one in data.get("shells", {}).items()},
            composition=data.get("composition"),
            density=(float(density[0]), float(density[1])) if density else None,
            **{name: data[name] for name in plain},
        )

    def save(self, path: str | os.PathLike) -> None:
        """Write the reference as JSON, numbers to six digits."""
        write_json(path, _rounded(self.to_dict()), indent=None)

    @classmethod
    def load(cls, path: str | os.PathLike) -> PeriodicReference:
        """Read a reference written by `save`."""
        return read_reference(cls, path)

    def __repr__(self) -> str:
        pairs = ", ".join(name for name in self.rdfs if name != "all")
        parts = f" in {len(self.groups)} groups by {self.group_by}" if self.groups else ""
        limit = f", |F| limit {self.force_limit:.1f} eV/Å" if self.force_limit else ""
        return (
            f"PeriodicReference({self.kind}: unstable above {self.threshold:g} Å; {pairs}; {self.n_frames} frames"
            f"{parts}{limit}, source: {self.source or 'not given'})"
        )


def composition_of(atoms: Atoms) -> str:
    """Return the empirical formula of a structure, whatever the order of its atoms: "O2Si"."""
    return atoms.get_chemical_formula(mode="hill", empirical=True)


def density_of(atoms: Atoms) -> float:
    """Return the number of atoms per Å³."""
    return len(atoms) / float(atoms.get_volume())


def force_statistics(frames: Iterable[Atoms]) -> dict[str, float]:
    """Return mean, std and max of |F| (eV/Å) over all atoms of all frames, and their number; {} without forces."""
    norms = [np.linalg.norm(f, axis=1) for f in map(_forces, frames) if f is not None]
    if not norms:
        return {}
    values = np.concatenate(norms)
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "max": float(values.max()),
        "n_atoms": len(values),
    }


def _forces(atoms: Atoms) -> np.ndarray | None:
    if atoms.calc is not None and "forces" in getattr(atoms.calc, "results", {}):
        return atoms.calc.results["forces"]
    return next((atoms.arrays[name] for name in FORCE_NAMES if name in atoms.arrays), None)


def _parts(frames: list[Atoms], group_by: str | None) -> dict[str, list[Atoms]]:
    parts: dict[str, list[Atoms]] = {}
    for number, atoms in enumerate(frames if group_by else []):
        if group_by not in atoms.info:
            known = ", ".join(atoms.info) or "nothing"
            raise InputError(f"frame {number} has no {group_by!r} in its info (it has {known}): leave group_by out")
        parts.setdefault(str(atoms.info[group_by]), []).append(atoms)
    return parts


def _read(data: dict) -> dict[str, RDF]:
    return {name: RDF.from_dict(g) for name, g in data.items()}


def _rounded(value):
    """Six digits are more than the statistics have, and make files a third as long."""
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
