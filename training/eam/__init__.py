"""Embedded-atom potentials: fitted to labelled structures, and as a source of labels."""

from training.eam.fit import EAMFit, fit_eam
from training.eam.labelling import label
from training.eam.settings import FitSettings

__all__ = ["EAMFit", "FitSettings", "fit_eam", "label"]
