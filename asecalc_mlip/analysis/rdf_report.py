"""The content of `asecalc rdf`: g(r) or h(r) of a file of frames, and how far it is from a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from asecalc_mlip.analysis.distances import BINS as H_BINS
from asecalc_mlip.analysis.distances import R_MAX as H_R_MAX
from asecalc_mlip.analysis.distances import DistanceHistogram, distance_histogram
from asecalc_mlip.analysis.molecule_reference import MoleculeReference
from asecalc_mlip.analysis.periodic_reference import BINS, R_MAX, PeriodicReference
from asecalc_mlip.analysis.rdf import RDF, partial_rdfs
from asecalc_mlip.analysis.references import load_reference, make_reference
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import check_writable
from asecalc_mlip.text_files import what_it_is, without_mark

__all__ = ["RDFReport", "rdf_report"]

Function = RDF | DistanceHistogram


@dataclass(frozen=True, repr=False)
class RDFReport:
    """Functions by name with, where there is a reference, its functions.

    Attributes
    ----------
    functions : dict of RDF, or of DistanceHistogram for a molecule
        Of the frames, by name: "all", "O-Si", ...; a molecule has "all" only.
    reference : dict of the same
        Of the reference; empty without one.
    """

    functions: dict[str, Function]
    reference: dict[str, Function]

    def errors(self) -> dict[str, dict[str, float]]:
        """Return the errors by name: ∫|Δg| dr in Å and as % of ∫|g_ref − 1| dr; of h(r) ∫|Δh| dr, from 0 to 2."""
        return {
            name: _error(found, self.reference[name])
            for name, found in self.functions.items()
            if name in self.reference
        }

    def to_dict(self) -> dict:
        """Return plain lists and numbers, for JSON."""
        molecule = isinstance(next(iter(self.functions.values())), DistanceHistogram)
        functions = {name: found.to_dict() for name, found in self.functions.items()}
        return {"histograms" if molecule else "rdfs": functions, "errors": self.errors()}

    def __repr__(self) -> str:
        errors = self.errors()
        symbol = "h" if isinstance(self.functions.get("all"), DistanceHistogram) else "g"
        title = f"{'pair':<8} {'frames':>7} {'contact':>9} {'peak':>9} {symbol:>7}"
        lines = [title + (f" {'error':>16}" if errors else "")]
        for name, found in self.functions.items():
            values = found.g if isinstance(found, RDF) else found.density
            line = f"{name:<8} {found.n_frames:>7} "
            if values.any():
                peak = int(values.argmax())
                line += f"{found.r[(values > 0).argmax()]:>7.2f} Å {found.r[peak]:>7.2f} Å {values[peak]:>7.2f}"
            else:  # an atom alone, or none of these pairs within r_max
                line += f"{'none':>9} {'none':>9} {0.0:>7.2f}"
            lines.append(line + (f" {_error_text(errors[name])}" if name in errors else ""))
        return "\n".join(lines)


def rdf_report(
    frames: str,
    *,
    pairs: Sequence[str] = (),
    reference: str | None = None,
    group: str | None = None,
    r_max: float | None = None,
    bins: int | None = None,
    index: str = ":",
    save_reference: str | None = None,
    made: Mapping[str, Any] | None = None,
) -> RDFReport:
    """Take g(r) or h(r) of a file of frames; see `asecalc rdf --help` for the options, which name files by path.

    `made` are those of the reference to write, for `make_reference`: kind, group_by, temperature_K, protocol, source.

    Raises
    ------
    InputError
        Files cannot be read, frames are of several kinds, pairs or a group are not there, options have no effect.
    """
    made = {name: value for name, value in (made or {}).items() if value is not None}
    stored = reference is not None and Path(reference).suffix in (".json", ".pt")
    if save_reference is None:
        _refuse(made, "a reference to write: add --save-reference FILE")
    if not stored:
        _refuse({"group": group}, "a reference with groups: add --reference FILE.json")
    check_writable(save_reference)
    read = _read(frames, index)
    periodic = any(atoms.pbc.any() for atoms in read)
    usual = (R_MAX, BINS) if periodic else (H_R_MAX, H_BINS)
    size: dict[str, Any] = {"r_max": r_max or usual[0], "bins": bins or usual[1]}
    compared: dict[str, Function] = {}
    if stored:
        compared = _stored(str(reference), group, periodic)
        size = _bins_of(compared["all"], str(reference), r_max, bins)
    elif reference is not None:
        compared = _functions(_read(reference), periodic, **size)
    if pairs and not periodic:
        raise InputError("--pair is for g(r) of periodic frames; h(r) of a molecule counts all atoms: leave it out")
    report = RDFReport(_chosen(_functions(read, periodic, **size), pairs), compared)
    if save_reference:
        source = made.pop("source", "") or Path(frames).name
        make_reference(read, source, most=None, **made, **size).save(save_reference)
    return report


def _refuse(options: dict[str, Any], needs: str) -> None:
    """Raise InputError for options that are given and have no effect without what they need."""
    flags = {"temperature_K": "temperature", "group_by": "group-by"}
    given = [f"--{flags.get(name, name)}" for name, value in options.items() if value is not None]
    if given:
        raise InputError(f"{', '.join(given)} {'needs' if len(given) == 1 else 'need'} {needs}, or leave it out")


def _read(path: str, index: str = ":") -> list[Atoms]:
    import ase.io

    try:
        with without_mark(path) as plain:
            return [atoms for atoms in ase.io.iread(str(plain), index=index) if isinstance(atoms, Atoms)]
    except Exception as error:  # ASE's readers raise anything
        why = str(error) or type(error).__name__
        raise InputError(f"{path} cannot be read as frames: {why}{what_it_is(path)}") from None


def _functions(frames: list[Atoms], periodic: bool, *, r_max: float, bins: int) -> dict[str, Function]:
    if periodic:
        return dict(partial_rdfs(frames, r_max=r_max, bins=bins))
    if any(atoms.pbc.any() for atoms in frames):
        raise InputError("one of the two is a molecule and the other periodic: compare frames of one kind")
    return {"all": distance_histogram(frames, bins, r_max)}


def _stored(path: str, group: str | None, periodic: bool) -> dict[str, Function]:
    """Functions of a reference file."""
    reference = load_reference(path)
    if not periodic and isinstance(reference, MoleculeReference):
        if group is not None:
            raise InputError(f"--group is for g(r), and {path} has h(r) of a molecule, without groups: leave it out")
        return {"all": reference.histogram}
    if not (periodic and isinstance(reference, PeriodicReference)):
        kind, other = ("g(r)", "a periodic system") if periodic else ("h(r)", "a molecule")
        raise InputError(f"{path} has no {kind} to compare with: give a reference of {other}, or frames")
    if group is not None and group not in reference.groups:
        known = ", ".join(reference.groups) or "none"
        raise InputError(f"{path} has no group {group!r}; its groups are {known}")
    return dict(reference.groups[group] if group else reference.rdfs)


def _bins_of(function: Function, path: str, r_max: float | None, bins: int | None) -> dict[str, Any]:
    """Bins of a reference; those that are given must be the same, because only like bins can be compared."""
    size = {"r_max": float(function.edges[-1]), "bins": len(function.edges) - 1}
    if r_max not in (None, size["r_max"]) or bins not in (None, size["bins"]):
        raise InputError(
            f"{path} has {size['bins']} bins up to {size['r_max']:g} Å, which the frames must have too: leave --r-max "
            "and --bins out, or give frames as the reference"
        )
    return size


def _chosen(found: dict[str, Function], pairs: Sequence[str]) -> dict[str, Function]:
    if not pairs:
        return found
    names = ["-".join(sorted(pair.split("-"))) for pair in pairs]
    wrong = [pair for pair, name in zip(pairs, names, strict=True) if name not in found]
    if wrong:
        raise InputError(f"there is no pair {', '.join(wrong)}; the frames have {', '.join(found)}")
    return {name: found[name] for name in names}


def _error(found: Function, reference: Function) -> dict[str, float]:
    if isinstance(found, RDF) and isinstance(reference, RDF):
        return {"error_A": found.error(reference), "error_percent": found.error_percent(reference)}
    assert isinstance(found, DistanceHistogram) and isinstance(reference, DistanceHistogram)
    return {"error": found.error(reference)}


def _error_text(error: dict[str, float]) -> str:
    if "error" in error:
        return f"{error['error']:>16.3f}"
    return f"{error['error_A']:>6.2f} Å {error['error_percent']:>5.0f} %"
