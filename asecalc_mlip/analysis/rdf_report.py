"""What `asecalc rdf` prints: the functions of a file of frames, and how far they are from a reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ase.io
from ase import Atoms

from asecalc_mlip.analysis.periodic import PeriodicReference, load_reference
from asecalc_mlip.analysis.rdf import RDF, partial_rdfs
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import check_figure, check_writable, save_figure


@dataclass(frozen=True, repr=False)
class RDFReport:
    """Functions by name with, where there is a reference, its functions.

    Attributes
    ----------
    rdfs : of the frames, by name ("all", "O-Si", ...)
    reference : the same of the reference; empty without one
    """

    rdfs: dict[str, RDF]
    reference: dict[str, RDF]

    def errors(self) -> dict[str, dict[str, float]]:
        """∫|Δg| dr in Å, and as a share of ∫|g_ref − 1| dr in %, by name."""
        both = [name for name in self.rdfs if name in self.reference]
        pairs = {name: (self.rdfs[name], self.reference[name]) for name in both}
        return {
            name: {"error_A": g.error(ref), "error_percent": g.error_percent(ref)} for name, (g, ref) in pairs.items()
        }

    def to_dict(self) -> dict:
        """Plain lists and numbers, for JSON."""
        return {"rdfs": {name: g.to_dict() for name, g in self.rdfs.items()}, "errors": self.errors()}

    def __repr__(self) -> str:
        errors = self.errors()
        lines = [
            f"{'pair':<8} {'frames':>7} {'contact':>9} {'peak':>9} {'g':>7}" + (f" {'error':>16}" if errors else "")
        ]
        for name, g in self.rdfs.items():
            peak = int(g.g.argmax())
            line = f"{name:<8} {g.n_frames:>7} {g.r[(g.g > 0).argmax()]:>7.2f} Å {g.r[peak]:>7.2f} Å {g.g[peak]:>7.2f}"
            if name in errors:
                line += f" {errors[name]['error_A']:>6.2f} Å {errors[name]['error_percent']:>5.0f} %"
            lines.append(line)
        return "\n".join(lines)


def rdf_report(
    frames: str,
    *,
    pairs: Sequence[str] = (),
    reference: str | None = None,
    group: str | None = None,
    r_max: float = 6.0,
    bins: int = 120,
    index: str = ":",
    figure: str | None = None,
    save_reference: str | None = None,
    kind="solid",
    group_by: str | None = None,
    temperature: float | None = None,
    protocol: str | None = None,
    source: str = "",
    output: str | None = None,
) -> RDFReport:
    """See `asecalc rdf --help`; files are named by path.

    Raises
    ------
    InputError
        Files that cannot be read, pairs or a group that are not there.
    """
    check_figure(figure)
    check_writable(save_reference, output)
    compared, edges = _reference(reference, group, r_max, bins)
    if edges is not None:
        r_max, bins = edges
    found = partial_rdfs(_read(frames, index), r_max=r_max, bins=bins)
    report = RDFReport(_chosen(found, pairs), compared)
    if figure:
        from asecalc_mlip.plots.rdf import rdf_figure

        save_figure(rdf_figure(report.rdfs, report.reference), figure)
    if save_reference:
        made = PeriodicReference.from_frames(
            _read(frames, index), source or Path(frames).name, kind=kind, group_by=group_by, temperature_K=temperature,
            protocol=protocol, r_max=r_max, bins=bins,
        )  # fmt: skip
        made.save(save_reference)
        print(save_reference)
    return report


def _read(path: str, index: str = ":") -> list[Atoms]:
    try:
        return [atoms for atoms in ase.io.iread(path, index=index) if isinstance(atoms, Atoms)]
    except Exception as error:  # ASE's readers raise anything
        raise InputError(f"{path} cannot be read as frames: {error or type(error).__name__}.") from None


def _reference(
    path: str | None, group: str | None, r_max: float, bins: int
) -> tuple[dict[str, RDF], tuple[float, int] | None]:
    """Functions to compare with, and r_max and bins if a reference file fixes them."""
    if path is None:
        return {}, None
    if not path.endswith(".json"):
        return partial_rdfs(_read(path), r_max=r_max, bins=bins), None
    reference = load_reference(path)
    if not isinstance(reference, PeriodicReference):
        raise InputError(f"{path} is the reference of a molecule, which has no g(r): give one of a periodic system.")
    if group is not None and group not in reference.groups:
        known = ", ".join(reference.groups) or "none"
        raise InputError(f"{path} has no group {group!r}; its groups are {known}.")
    compared = reference.groups[group] if group else reference.rdfs
    return compared, (float(reference.edges[-1]), len(reference.edges) - 1)


def _chosen(found: dict[str, RDF], pairs: Sequence[str]) -> dict[str, RDF]:
    if not pairs:
        return found
    names = ["-".join(sorted(pair.split("-"))) for pair in pairs]
    wrong = [pair for pair, name in zip(pairs, names, strict=True) if name not in found]
    if wrong:
        raise InputError(f"There is no pair {', '.join(wrong)}; the frames have {', '.join(found)}.")
    return {name: found[name] for name in names}
