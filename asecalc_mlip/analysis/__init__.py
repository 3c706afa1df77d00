"""Pure functions on trajectories: structure, stability and conservation. NumPy and ASE only, no models."""

from asecalc_mlip.analysis.distances import DistanceHistogram, distance_histogram
from asecalc_mlip.analysis.drift import EnergyDrift, energy_drift
from asecalc_mlip.analysis.periodic import PeriodicReference, load_reference
from asecalc_mlip.analysis.rdf import RDF, partial_rdfs, rdf
from asecalc_mlip.analysis.reference import MoleculeReference
from asecalc_mlip.analysis.stability import StabilityResult, stability

__all__ = [
    "RDF",
    "DistanceHistogram",
    "EnergyDrift",
    "MoleculeReference",
    "PeriodicReference",
    "StabilityResult",
    "distance_histogram",
    "energy_drift",
    "load_reference",
    "partial_rdfs",
    "rdf",
    "stability",
]
