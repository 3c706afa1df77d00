"""The structure of a run against its reference: h(r) of a molecule, g(r) of a periodic system."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asecalc_mlip.analysis.distances import DistanceHistogram
from asecalc_mlip.analysis.molecule_reference import MoleculeReference
from asecalc_mlip.analysis.periodic_reference import PeriodicReference
from asecalc_mlip.analysis.rdf import RDF
from asecalc_mlip.analysis.second_half import rdfs_of_second_half
from asecalc_mlip.md import files as names

if TYPE_CHECKING:
    from asecalc_mlip.md.run import MDRun

# A mean over fewer frames is too noisy to compare distributions with.
MIN_REFERENCE_FRAMES = 50


def h_error(run: MDRun) -> float | None:
    """Return ∫|h − h_ref| dr of a molecule; None without a reference of enough frames."""
    reference = run.reference
    if not isinstance(reference, MoleculeReference) or reference.n_frames < MIN_REFERENCE_FRAMES:
        return None
    return run.histogram.error(reference.histogram)


def rdfs_of_run(run: MDRun) -> dict[str, RDF]:
    """Take g(r) of the second half of the run; {} for what has no density or no frame."""
    return rdfs_of_second_half(run.files.path(names.TRAJECTORY), run.state.frames, run.atoms, run.reference)


def rdf_errors(run: MDRun, found: dict[str, RDF]) -> dict[str, dict[str, float]] | None:
    """Return ∫|Δg| dr (Å) and its share of ∫|g_ref − 1| dr (%) by pair; None without a reference."""
    if not isinstance(run.reference, PeriodicReference) or not found:
        return None
    targets = run.reference.rdfs_for(run.start)
    return {
        name: {"error_A": g.error(targets[name]), "error_percent": g.error_percent(targets[name])}
        for name, g in found.items()
        if name in targets
    }


def to_draw(
    run: MDRun, found: dict[str, RDF], h: float | None
) -> tuple[RDF | DistanceHistogram | None, RDF | DistanceHistogram | None, str]:
    """Return what the figure shows: the function of the run, that of the reference and the error as it is printed."""
    if not run.atoms.pbc.any() or isinstance(run.reference, MoleculeReference):
        known = run.reference.histogram if isinstance(run.reference, MoleculeReference) else None
        return run.histogram, known if h is not None else None, "" if h is None else f"{h:.3f}"
    if isinstance(run.reference, PeriodicReference) and "all" in found:
        target = run.reference.rdfs_for(run.start)["all"]
        return found["all"], target, f"{found['all'].error_percent(target):.0f} %"
    return found.get("all"), None, ""
