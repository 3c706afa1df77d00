"""A ZBL core for a model that is trained already: it keeps atoms apart where the model has seen nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from asecalc_mlip.calculators.piwsl import PIWSLCalculator
from asecalc_mlip.checkpoint import LoadedModel
from asecalc_mlip.errors import InputError
from asecalc_mlip.models import add_potentials, core_potential, has_core
from asecalc_mlip.models.zbl import OUTER

__all__ = ["CoreCheck", "add_core", "check_core"]

# eV/Å on an atom of the data; beyond, the core would repeat what the model has learned there.
MOST = 0.05


@dataclass(frozen=True)
class CoreCheck:
    """Effect of a core on structures that a model was made for.

    Attributes
    ----------
    structures, touched : int
        How many there are, and in how many it acts at all.
    largest_energy_mev, largest_force_mev_per_A : float
        Of a structure, and on an atom (largest component).
    """

    structures: int
    touched: int
    largest_energy_mev: float
    largest_force_mev_per_A: float

    def __repr__(self) -> str:
        return (
            f"acts in {self.touched} of {self.structures} structures, by at most {self.largest_energy_mev:.3g} meV and "
            f"{self.largest_force_mev_per_A:.3g} meV/Å"
        )


def check_core(frames: Sequence[Atoms]) -> CoreCheck:
    """Take energies and forces of the core alone in some structures, least where atoms keep apart by 0.8 of a bond."""
    elements = {int(z) for atoms in frames for z in atoms.numbers}
    core = LoadedModel(core_potential(elements).eval(), {}, Path("zbl"))
    calculator = PIWSLCalculator(core, device="cpu", dtype="float64")
    calculator.tell_state.told = True  # a core has no data
    results = calculator.evaluate(frames)
    energies = np.array([result["energy"] for result in results])
    forces = np.array([np.abs(result["forces"]).max(initial=0.0) for result in results])
    return CoreCheck(len(results), int((energies > 0).sum()), 1e3 * float(energies.max()), 1e3 * float(forces.max()))


def add_core(model: LoadedModel, frames: Sequence[Atoms] = ()) -> tuple[LoadedModel, CoreCheck | None]:
    """Join a model and a ZBL core, which ends at 0.8 of the sum of two covalent radii, in one.

    Parameters
    ----------
    model : LoadedModel
    frames : sequence of Atoms
        Structures that the model was trained on, to see that the core leaves them as they are.

    Returns
    -------
    LoadedModel, CoreCheck or None
        The sum, in whose card the core is named, and what the core does to the structures, if there are any.

    Raises
    ------
    InputError
        The model has a core or a force head, or the core acts on the structures by more than 50 meV/Å.
    """
    potential = model.potential
    if has_core(potential):
        raise InputError(
            f"{model.path.name} has a ZBL core already, as every training adds one (model.prior): nothing to do"
        )
    found = check_core(frames) if len(frames) else None
    if found is not None and found.largest_force_mev_per_A > 1e3 * MOST:
        raise InputError(
            f"the core {found!r}: atoms of these data are closer than 0.8 of a bond, which the model has learned, and "
            "would have twice. Train with the core in place instead: finetune.delta=zbl"
        )
    both = [potential, core_potential(potential.elements)]
    total = add_potentials(both, reference_energies=potential.reference_energies)
    core: dict[str, Any] = {
        "kind": "ZBL, added after training",
        "ends": f"at {OUTER:g} of the sum of covalent radii",
        "checked": "against no data" if found is None else asdict(found),
    }
    card = {**model.card, "core": core}
    return LoadedModel(total.eval(), card, model.path, model.reference_energies, model.reference), found
