"""Make a labelled data set with GFN2-xTB, for users who have no ab-initio data.

Langevin dynamics of one structure at one temperature; every few femtoseconds a frame is appended to an extended XYZ
file. The random numbers between two frames come from the seed and the number of the frame, and the file keeps positions
and momenta to the last bit, so a run that was killed goes on as if it had not been.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.constraints import FixAtoms, FixCartesian, FixCom, FixConstraint
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.optimize import BFGS
from tqdm import tqdm

from asecalc_mlip import quantities
from asecalc_mlip.data.label_files import is_begun, whole_frames
from asecalc_mlip.data.readers import iter_frames
from asecalc_mlip.digests import digest_of, word_of
from asecalc_mlip.errors import DataError, InputError
from asecalc_mlip.extras import needs
from asecalc_mlip.files import append_text, read_structure
from asecalc_mlip.locks import locked_file
from asecalc_mlip.teachers.base import TeacherOptions

Method = Literal["GFN2-xTB", "GFN1-xTB"]
# Constraints that are kept.
FIXED = (FixAtoms, FixCartesian)
PROPERTIES = "Properties=species:S:1:pos:R:3:momenta:R:3:REF_forces:R:3"
QUANTITIES = {
    "temperature_K": quantities.TEMPERATURE,
    "spacing_fs": quantities.SPACING,
    "timestep_fs": quantities.TIMESTEP,
    "equilibration_fs": quantities.TIME,
    "friction_per_fs": quantities.WEIGHT,
    "seed": quantities.SEED,
    "charge": quantities.CHARGE,
    "multiplicity": quantities.MULTIPLICITY,
}


@dataclass(frozen=True)
class XtbSettings:
    """Settings that define a data set; a file is only continued with the settings it was begun with.

    Attributes
    ----------
    temperature_K : float
        Temperature of the dynamics, K.
    spacing_fs : float
        Time between two frames, fs. Frames closer than about 10 fs tell little new.
    timestep_fs : float
        Time step, fs.
    equilibration_fs : float
        Time before the first frame, fs.
    friction_per_fs : float
        Friction of the Langevin thermostat, 1/fs.
    seed : int
        Seed of all random numbers.
    method : {"GFN2-xTB", "GFN1-xTB"}
        ``GFN2-xTB`` or ``GFN1-xTB``.
    charge : int
        Total charge, e; 0 takes what the start structure states, see `asecalc_mlip.teachers.bare`.
    multiplicity : int, optional
        2S+1; None takes what the start structure states, else the lowest that the number of electrons allows.
    """

    temperature_K: float = 500.0
    spacing_fs: float = 10.0
    timestep_fs: float = 0.5
    equilibration_fs: float = 500.0
    friction_per_fs: float = 0.01
    seed: int = 0
    method: Method = "GFN2-xTB"
    charge: int = 0
    multiplicity: int | None = None

    def __post_init__(self) -> None:
        for name, quantity in QUANTITIES.items():
            if name != "multiplicity" or self.multiplicity is not None:
                quantity.check(getattr(self, name), name)
        if self.temperature_K >= 20000:
            raise InputError(f"a temperature of {self.temperature_K} K is not possible here; give 1 to 20000")
        if self.timestep_fs > 2:
            raise InputError(f"a time step of {self.timestep_fs} fs; give 0.1 to 2, with hydrogen 0.5")
        if self.spacing_fs < self.timestep_fs:
            raise InputError(
                f"spacing_fs is {self.spacing_fs:g}; expected at least a time step of {self.timestep_fs:g} fs"
            )


def make_dataset(
    molecule: str | Path | Atoms,
    output: str | Path,
    *,
    n_frames: int = 500,
    settings: XtbSettings | None = None,
    progress: bool = True,
) -> Path:
    """Write a labelled data set, or continue one.

    Parameters
    ----------
    molecule : path or Atoms
        Start structure, or a file of it that ASE reads; it is relaxed first. Atoms or coordinates that it fixes stay
        where they are, and have the forces that act on them. It may state its charge and its multiplicity.
    output : path
        Extended XYZ with REF_energy (eV), REF_forces (eV/Å) and momenta; appended to if it exists.
    n_frames : int
        Frames the file has in the end.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        tblite is not installed, the structure cannot be read, has constraints of another kind or a multiplicity that
        its electrons do not allow, the file belongs to another run or start structure, or the disk is full.
    DataError
        A calculation failed. The frames before it are in the file.
    """
    output = Path(output)
    start = molecule.copy() if isinstance(molecule, Atoms) else read_structure(molecule)
    settings = _with_state(settings or XtbSettings(), start)
    _check_constraints(start)
    calculator = xtb_calculator(settings)
    output.parent.mkdir(parents=True, exist_ok=True)
    with locked_file(output):
        done, atoms = _resume(output, start, settings)
        with tqdm(total=n_frames, initial=min(done, n_frames), unit="frame", disable=None if progress else True) as bar:
            for number in range(done, n_frames):
                atoms = _next_frame(atoms, start, number, calculator, settings)
                append_text(output, _format(atoms, start, number, settings))
                bar.set_postfix(T=f"{atoms.get_temperature():.0f} K", E=f"{atoms.info['energy']:.3f} eV")
                bar.update()
    return output


def xtb_calculator(settings: XtbSettings) -> Calculator:
    """Return tblite's ASE calculator, silent; without a multiplicity that of a singlet."""
    try:
        from tblite.ase import TBLite
    except ImportError:
        raise needs(f"labelling by {settings.method}", "tblite") from None
    multiplicity = settings.multiplicity or 1
    return TBLite(None, method=settings.method, charge=settings.charge, multiplicity=multiplicity, verbosity=0)


def _with_state(settings: XtbSettings, start: Atoms) -> XtbSettings:
    """Return the settings with the charge and multiplicity of the start structure, as a teacher takes them."""
    options = TeacherOptions(settings.charge, settings.multiplicity)
    return replace(settings, charge=options.charge_of(start), multiplicity=options.unpaired(start) + 1)


def _check_constraints(start: Atoms) -> None:
    if unknown := sorted({type(c).__name__ for c in start.constraints if not isinstance(c, (*FIXED, FixCom))}):
        raise InputError(
            f"the start structure has constraints ({', '.join(unknown)}) that these dynamics do not support; fix atoms "
            "or their coordinates, or save it without constraints"
        )


def _fixed(start: Atoms) -> list[FixAtoms | FixCartesian]:
    return [c for c in start.constraints if isinstance(c, FIXED)]


def _next_frame(atoms: Atoms | None, start: Atoms, number: int, calculator: Calculator, settings: XtbSettings) -> Atoms:
    """Run from one frame to the next, the first time from the relaxed start, and label the end."""
    rng = np.random.default_rng([settings.seed, number])
    try:
        if atoms is None:
            atoms = _relaxed(start, calculator)
            MaxwellBoltzmannDistribution(atoms, temperature_K=settings.temperature_K, rng=rng)
            if not _fixed(start):
                Stationary(atoms)
        steps = round((settings.spacing_fs if number else settings.equilibration_fs) / settings.timestep_fs)
        # What is fixed holds the centre of mass.
        _run(atoms, _fixed(start) or [FixCom()], calculator, steps, rng, settings)
        # Without the wave function of the step before, a label depends on its structure alone.
        calculator.reset()
        atoms.info["energy"] = float(atoms.get_potential_energy())
        atoms.arrays["forces"] = atoms.get_forces(apply_constraint=False)
    except (RuntimeError, ValueError) as error:
        raise DataError(
            f"{settings.method} failed on the way to frame {number} ({error}). The frames before it are kept. "
            "Is the charge right? Else lower the temperature or the time step"
        ) from error
    return atoms


def _relaxed(start: Atoms, calculator: Calculator) -> Atoms:
    atoms = Atoms(start.numbers, start.positions, cell=start.cell, pbc=start.pbc, calculator=calculator)
    atoms.set_constraint(_fixed(start))
    BFGS(atoms, logfile=None).run(fmax=0.05, steps=200)
    return atoms


def _run(
    atoms: Atoms, constraints: Sequence[FixConstraint], calculator: Calculator, steps: int, rng: np.random.Generator,
    settings: XtbSettings,
) -> None:  # fmt: skip
    """Langevin dynamics under constraints, begun from scratch so that it can be repeated."""
    calculator.reset()
    atoms.calc = calculator
    atoms.set_constraint(list(constraints))
    dynamics = Langevin(
        atoms,
        settings.timestep_fs * units.fs,
        temperature_K=settings.temperature_K,
        friction=settings.friction_per_fs / units.fs,
        fixcm=False,  # ASE's own fixcm changes the distribution of small systems
        rng=rng,
    )
    dynamics.run(steps)


def _resume(output: Path, start: Atoms, settings: XtbSettings) -> tuple[int, Atoms | None]:
    """Return the number of frames in the file and the last one; a frame that was being written is removed."""
    if not output.exists() or output.stat().st_size == 0:
        return 0, None
    good, end = whole_frames(output)
    if good == 0:
        if not is_begun(output, PROPERTIES):
            raise InputError(f"{output} is no file of labelled structures; choose another output file")
        last = None
    else:
        last = deque(iter_frames(output, index=f":{good}"), maxlen=1)[0]
        _same_run(output, last, good - 1, start, settings)
    if end < output.stat().st_size:
        os.truncate(output, end)
    if last is None:
        return 0, None
    atoms = Atoms(last.numbers, last.positions, cell=last.cell, pbc=last.pbc)
    atoms.set_momenta(last.arrays["momenta"])
    return good, atoms


def _same_run(output: Path, last: Atoms, number: int, start: Atoms, settings: XtbSettings) -> None:
    expected = {"fixed": None, **_metadata(start, settings)}
    structure = expected.pop("start")
    unlike = [f"{key}={last.info.get(key)} there, {value} now" for key, value in expected.items()
              if str(last.info.get(key)) != str(value)]  # fmt: skip
    if (time := last.info.get("time_fs")) != _time(number, settings):  # equilibration_fs is not written
        unlike.append(f"frame {number} at {time} fs there, at {_time(number, settings)} fs now")
    if list(last.numbers) != list(start.numbers):
        unlike.append(f"{last.get_chemical_formula()} there, {start.get_chemical_formula()} now")
    elif last.info.get("start", structure) != structure:  # files of before do not say
        unlike.append("its start structure has other positions or another cell")
    if "momenta" not in last.arrays:
        unlike.append("no momenta there")
    if unlike:
        raise InputError(f"{output} belongs to another run ({'; '.join(unlike)}). Choose another output file")


def _metadata(start: Atoms, settings: XtbSettings) -> dict[str, object]:
    fixed = np.zeros((len(start), 3), dtype=bool)
    for constraint in _fixed(start):
        fixed[constraint.index] |= constraint.mask if isinstance(constraint, FixCartesian) else True
    return {
        "start": word_of(digest_of([start.positions, start.cell.array, start.pbc])),
        **({"fixed": word_of(digest_of([fixed]))} if fixed.any() else {}),
        "method": settings.method,
        "tblite": f"v{version('tblite')}",
        "temperature_K": float(settings.temperature_K),
        "spacing_fs": float(settings.spacing_fs),
        "timestep_fs": float(settings.timestep_fs),
        "friction_per_fs": float(settings.friction_per_fs),
        "seed": settings.seed,
        "charge": settings.charge,
        "multiplicity": settings.multiplicity,
    }


def _time(number: int, settings: XtbSettings) -> float:
    return settings.equilibration_fs + number * settings.spacing_fs


def _format(atoms: Atoms, start: Atoms, number: int, settings: XtbSettings) -> str:
    """Return a frame as extended XYZ with all digits, which ASE's writer would round."""
    comment = f"{PROPERTIES} REF_energy={atoms.info['energy']!r} time_fs={_time(number, settings)!r}"
    comment += "".join(f" {key}={value}" for key, value in _metadata(start, settings).items())
    comment += f' pbc="{" ".join("FT"[int(p)] for p in atoms.pbc)}"'
    if atoms.cell.rank:
        comment += f' Lattice="{" ".join(map(repr, atoms.cell.array.reshape(-1).tolist()))}"'
    table = np.hstack([atoms.positions, atoms.get_momenta(), atoms.arrays["forces"]])
    rows = [f"{s} {' '.join(map(repr, row))}" for s, row in zip(atoms.symbols, table.tolist(), strict=True)]
    return "\n".join([str(len(atoms)), comment, *rows]) + "\n"
