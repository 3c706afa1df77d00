"""A model file as the calculator of its kind, and the structure that comes with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from asecalc_mlip import zoo
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import read_structure
from asecalc_mlip.units import Dtype

if TYPE_CHECKING:
    from ase import Atoms

    from asecalc_mlip.calculators.eam import EAMCalculator
    from asecalc_mlip.calculators.piwsl import PIWSLCalculator

__all__ = ["load_calculator", "load_structure"]


def load_calculator(
    model: str | Path, *, device: str = "auto", dtype: Dtype = "float32"
) -> PIWSLCalculator | EAMCalculator:
    """Load a model as the calculator of its kind: that of an embedded-atom potential knows its components.

    Parameters
    ----------
    model : path
        A .pt file, or the name of a shipped one.
    device : str
        "auto", "cpu", "cuda", "cuda:1" ...
    dtype : {"float32", "float64"}
        float64 for relaxations, phonons and whatever takes small differences.

    Raises
    ------
    CheckpointError
        Where there is no such model, or the file is none.
    """
    from asecalc_mlip import EAMCalculator, PIWSLCalculator
    from asecalc_mlip.checkpoint import load
    from asecalc_mlip.models import EAM

    loaded = load(model)
    kind = EAMCalculator if isinstance(loaded.potential.network, EAM) else PIWSLCalculator
    return kind(loaded, device=device, dtype=dtype)


def load_structure(model: str | Path, structure: str | Path | None = None) -> Atoms:
    """Read a structure from its file, or the one that comes with the model (aspirin.xyz beside aspirin.pt).

    Raises
    ------
    InputError
        Where there is none, or the file cannot be used.
    """
    path = structure or zoo.beside(model, ".xyz")
    if path is None:
        raise InputError(f"{model} comes without a structure: give a file after it")
    return read_structure(path, tell=structure is not None)
