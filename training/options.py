"""Options that settings and code share, by their names; each is declared here and nowhere else."""

from __future__ import annotations

from typing import Literal

__all__ = ["Distance", "E0Method", "Normalisation", "Order", "PerturbationName", "ResidualDistance"]

Distance = Literal["mae", "l2mae", "mse", "huber"]
ResidualDistance = Literal["mse", "mae", "huber"]
E0Method = Literal["fit", "isolated", "given", "zero"]
Normalisation = Literal["total", "per_atom"]
Order = Literal["first", "trapezoid", "antithetic"]
PerturbationName = Literal["uniform", "adversarial"]
