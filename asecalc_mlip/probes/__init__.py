"""The energy landscape of a potential: pure functions on any ASE calculator."""

from asecalc_mlip.probes.diatomic import DiatomicCurve, diatomic_curve, diatomic_curves
from asecalc_mlip.probes.diatomic_flags import Flag, Hole, attractive_hole, diatomic_flags, shortest_distances
from asecalc_mlip.probes.diatomic_metrics import DiatomicMetrics, diatomic_metrics, wall_distance_error
from asecalc_mlip.probes.diatomic_report import DiatomicReport, attractive_holes, diatomic_report
from asecalc_mlip.probes.dimers import DimerDifference, compare_dimers, dimer_table, reference_dimers
from asecalc_mlip.probes.displacements import DisplacementReport, displacement_scan
from asecalc_mlip.probes.elastic import ElasticConstants, elastic_constants
from asecalc_mlip.probes.eos import EquationOfState, equation_of_state
from asecalc_mlip.probes.phonons import PhononResult, phonons
from asecalc_mlip.probes.relax import RelaxResult, relax
from asecalc_mlip.probes.scans import Scan, angle_scan, bond_scan, dihedral_scan
from asecalc_mlip.probes.smoothness import BondStretch, SmoothnessReport, bond_smoothness
from asecalc_mlip.probes.vibrations import Vibrations, vibrations

__all__ = [
    "BondStretch",
    "DiatomicCurve",
    "DiatomicMetrics",
    "DiatomicReport",
    "DimerDifference",
    "DisplacementReport",
    "ElasticConstants",
    "EquationOfState",
    "Flag",
    "Hole",
    "PhononResult",
    "RelaxResult",
    "Scan",
    "SmoothnessReport",
    "Vibrations",
    "angle_scan",
    "attractive_hole",
    "attractive_holes",
    "bond_scan",
    "bond_smoothness",
    "compare_dimers",
    "diatomic_curve",
    "diatomic_curves",
    "diatomic_flags",
    "diatomic_metrics",
    "diatomic_report",
    "dihedral_scan",
    "dimer_table",
    "displacement_scan",
    "elastic_constants",
    "equation_of_state",
    "phonons",
    "reference_dimers",
    "relax",
    "shortest_distances",
    "vibrations",
    "wall_distance_error",
]
