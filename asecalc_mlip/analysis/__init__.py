"""Pure functions on trajectories: structure, stability, motion and conservation. NumPy and ASE only, no models."""

from asecalc_mlip.analysis.blocks import BlockAverage, block_average
from asecalc_mlip.analysis.bond_drift import BondDrift, bond_drift
from asecalc_mlip.analysis.contacts import (
    ClosestApproach,
    Coordination,
    closest_approach,
    coordination,
    shortest_by_pair,
)
from asecalc_mlip.analysis.distances import DistanceHistogram, distance_histogram
from asecalc_mlip.analysis.drift import EnergyDrift, energy_drift
from asecalc_mlip.analysis.kinetics import Equipartition, degrees_by_atom, equipartition, temperatures
from asecalc_mlip.analysis.molecule_reference import MoleculeReference
from asecalc_mlip.analysis.msd import MSD, Diffusion, msd
from asecalc_mlip.analysis.periodic_reference import PeriodicReference
from asecalc_mlip.analysis.rdf import RDF, partial_rdfs, rdf
from asecalc_mlip.analysis.references import ContactReference, Reference, load_reference, make_reference
from asecalc_mlip.analysis.stability import StabilityResult, stability
from asecalc_mlip.analysis.survival import Survival, survival
from asecalc_mlip.analysis.vdos import VDOS, vdos

__all__ = [
    "MSD",
    "RDF",
    "VDOS",
    "BlockAverage",
    "BondDrift",
    "ClosestApproach",
    "ContactReference",
    "Coordination",
    "Diffusion",
    "DistanceHistogram",
    "EnergyDrift",
    "Equipartition",
    "MoleculeReference",
    "PeriodicReference",
    "Reference",
    "StabilityResult",
    "Survival",
    "block_average",
    "bond_drift",
    "closest_approach",
    "coordination",
    "degrees_by_atom",
    "distance_histogram",
    "energy_drift",
    "equipartition",
    "load_reference",
    "make_reference",
    "msd",
    "partial_rdfs",
    "rdf",
    "shortest_by_pair",
    "stability",
    "survival",
    "temperatures",
    "vdos",
]
