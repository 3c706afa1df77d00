"""The subject of a report: the model, the structure that moves, the reference it is compared with, labelled data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms

from asecalc_mlip import zoo
from asecalc_mlip.analysis.references import Reference, make_reference
from asecalc_mlip.calculators.piwsl import PIWSLCalculator
from asecalc_mlip.checkpoint import load
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import lacks_vectors
from asecalc_mlip.md.conditions import known_temperatures, usual_timestep_fs
from asecalc_mlip.md.fixed import only_fixed
from asecalc_mlip.md.resolving import Resolved, resolve
from asecalc_mlip.md.settings import MDSettings, make_settings
from asecalc_mlip.report.settings import ReportSettings

__all__ = ["Subject", "subject_of"]

# A reference made of fewer frames is too noisy to compare with.
LEAST_REFERENCE = 10
DEFAULT_K = {"molecule": 500.0, "periodic": 300.0}


@dataclass
class Subject:
    """A model with what it is judged by.

    Attributes
    ----------
    settings : ReportSettings
        As asked.
    path, sha256 : Path, str
        Of the model file.
    calculator : PIWSLCalculator
        Of the model, in the device and dtype asked for.
    atoms, structure_source : Atoms, str
        Start of the dynamics and where it comes from.
    reference, reference_source : Reference or None, str
        Reference and where it comes from, or None and why there is none.
    rule : bool
        Whether leaving the reference's g(r) counts as broken; not for one that was made of the data.
    frames : list of Atoms or None
        Labelled structures, or None.
    found : Resolved
        Model with structure and reference, as runs find them.
    """

    settings: ReportSettings
    path: Path
    sha256: str
    calculator: PIWSLCalculator
    atoms: Atoms
    structure_source: str
    reference: Reference | None
    reference_source: str
    rule: bool
    frames: list[Atoms] | None
    found: Resolved

    @property
    def card(self) -> dict[str, Any]:
        """Card of the model."""
        return self.calculator.card

    @property
    def periodic(self) -> bool:
        """Whether the structure is periodic in any direction."""
        return bool(self.atoms.pbc.any())

    def temperatures_K(self) -> tuple[float, float] | None:
        """Return the lowest and highest temperature of the training data, where the card or the reference tells."""
        return known_temperatures(self.card, self.reference)

    def dynamics(self, ensemble: str, **given: Any) -> MDSettings:
        """Return the settings of a run: as asked for, else as card or reference say, else by the kind of system."""
        asked, named = self.settings, self.found.suggestions("nvt") if self.settings.temperature_K is None else {}
        options: dict[str, Any] = {
            "model": str(self.path), "protocol": named.get("protocol"), "temperature_K": asked.temperature_K,
            "timestep_fs": asked.timestep_fs, "dtype": asked.dtype, "rdf_rule": self.rule,
        }  # fmt: skip
        if options["protocol"] is None:
            suggested = self.found.suggested.get("temperature_K")
            options["temperature_K"] = options["temperature_K"] or suggested or self._usual_K()
            options["timestep_fs"] = options["timestep_fs"] or usual_timestep_fs(self.atoms)
        as_nvt = make_settings("nvt", {**options, **given})
        if ensemble == "nvt":
            return as_nvt
        same = {"temperature_K": as_nvt.temperature_K, "timestep_fs": as_nvt.timestep_fs}
        return make_settings(ensemble, {**options, "protocol": None, **same, **given})

    def _usual_K(self) -> float:
        known = self.temperatures_K()
        return DEFAULT_K["periodic" if self.periodic else "molecule"] if known is None else float(np.mean(known))


def subject_of(settings: ReportSettings) -> Subject:
    """Load all that a report needs.

    Raises
    ------
    InputError
        Files that are missing or do not fit the model.
    """
    path = zoo.find(settings.model).resolve()
    calculator = PIWSLCalculator(load(path), device=settings.device, dtype=settings.dtype)
    found = resolve(path, settings.structure, settings.reference, calculator=calculator)
    frames = _frames(settings)
    atoms, source = _structure(settings, found, frames, calculator)
    calculator.check_elements(atoms.numbers)
    reference, told, rule = _reference(settings, found, atoms, frames)
    sha256 = found.sha256 or ""
    return Subject(settings, path, sha256, calculator, atoms, source, reference, told, rule, frames, found)


def _frames(settings: ReportSettings) -> list[Atoms] | None:
    if settings.data is None:
        return None
    frames = read_frames(settings.data)
    if not frames:
        raise InputError(f"--data {settings.data} has no structures: give a file with labelled ones, or leave it out")
    return frames


def _structure(
    settings: ReportSettings, found: Resolved, frames: list[Atoms] | None, calculator: PIWSLCalculator
) -> tuple[Atoms, str]:
    if found.structure_file is not None:
        calculator.tell_state(found.structure)  # the dynamics have no charge and spin
        return _checked(found.structure, str(found.structure_file)), found.structure_file.name
    if frames is None:
        name = Path(found.name)
        raise InputError(
            f"{name.name} comes without a start structure for dynamics ({name.with_suffix('.xyz').name} beside it): "
            "give one with --structure FILE, or labelled data with --data FILE, whose first is then taken"
        )
    calculator.tell_state(frames[0])
    return _checked(frames[0], str(settings.data)), f"first structure of {Path(str(settings.data)).name}"


def _checked(atoms: Atoms, source: str) -> Atoms:
    if len(atoms) == 0 or not np.isfinite(atoms.positions).all():
        raise InputError(f"structure {source} has no atoms, or positions that are not finite: give another")
    if lacks_vectors(atoms):
        raise InputError(f"structure {source} is periodic where its cell has no vector of its own: complete the cell")
    # Only what the dynamics need: labels of the data must not be taken for those of the model.
    bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    if atoms.has("masses"):
        bare.set_masses(atoms.get_masses())
    try:
        fixed = only_fixed(atoms)
    except InputError as error:
        raise InputError(f"structure {source}: {error}") from None
    if fixed.any():
        bare.set_constraint(FixAtoms(np.flatnonzero(fixed)))
    bare.info = {k: v for k, v in atoms.info.items() if isinstance(v, str)}
    return bare


def _reference(settings: ReportSettings, resolved: Resolved, atoms: Atoms, frames: list[Atoms] | None):
    """Return the reference, where it comes from or why there is none, and whether it is a rule."""
    if atoms.pbc.any() and not atoms.pbc.all():
        return None, "none: a slab or a wire has no density, so no g(r)", False
    found = resolved.reference_for(atoms)
    if found is not None:
        return found, found.source or "the reference beside the model", True
    same = [frame for frame in frames or [] if _alike(frame, atoms)]
    if len(same) < LEAST_REFERENCE:
        return None, "none: give --reference FILE, or --data with at least ten structures of this composition", True
    source = f"{len(same)} structures of {Path(str(settings.data)).name}"
    return make_reference(same, source), source, False


def _alike(frame: Atoms, atoms: Atoms) -> bool:
    """Tell whether h(r) or g(r) of a frame can be compared: the same molecule, or any cell of the same composition."""
    if frame.pbc.tolist() != atoms.pbc.tolist():
        return False
    if atoms.pbc.all():
        return frame.symbols.formula.reduce()[0].count() == atoms.symbols.formula.reduce()[0].count()
    return frame.get_chemical_symbols() == atoms.get_chemical_symbols()
