"""What a potential's energy landscape looks like: pure functions on any ASE calculator."""

from asecalc_mlip.probes.diatomic import DiatomicCurve, diatomic_curve, diatomic_curves
from asecalc_mlip.probes.diatomic_flags import Flag, Hole, attractive_hole, diatomic_flags, shortest_distances
from asecalc_mlip.probes.diatomic_metrics import DiatomicMetrics, diatomic_metrics, wall_distance_error
from asecalc_mlip.probes.diatomic_report import DiatomicReport, attractive_holes, diatomic_report

__all__ = [
    "DiatomicCurve",
    "DiatomicMetrics",
    "DiatomicReport",
    "Flag",
    "Hole",
    "attractive_hole",
    "attractive_holes",
    "diatomic_curve",
    "diatomic_curves",
    "diatomic_flags",
    "diatomic_metrics",
    "diatomic_report",
    "shortest_distances",
    "wall_distance_error",
]
