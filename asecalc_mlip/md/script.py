"""Command line shared by nvt.py, nve.py, npt.py and anneal.py: options, structure, model, reference, exit codes."""

from __future__ import annotations

import argparse
import hashlib
import sys
import traceback
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms

import asecalc_mlip
from asecalc_mlip.analysis.periodic import PeriodicReference
from asecalc_mlip.analysis.reference import MoleculeReference
from asecalc_mlip.analysis.references import ContactReference, load_reference
from asecalc_mlip.analysis.stability import THRESHOLD, worst_deviation
from asecalc_mlip.errors import InputError
from asecalc_mlip.md.conditions import (
    conditions,
    forget_notes,
    note,
    warn_direct_forces,
    warn_temperature,
    warn_time_step,
)
from asecalc_mlip.md.files import RunFiles
from asecalc_mlip.md.lifecycle import continue_run, start_run
from asecalc_mlip.md.progress import program
from asecalc_mlip.md.settings import (
    BAROSTATS,
    DTYPES,
    THERMOSTATS,
    Dtype,
    MDSettings,
    continue_settings,
    make_settings,
    protocol_plan,
)
from asecalc_mlip.md.summary import summary_text

ZOO = Path(next(iter(asecalc_mlip.__path__))) / "zoo"
STABLE, UNSTABLE, BAD_INPUT, CRASH = 0, 1, 2, 3
EXIT_CODES = "Exit code: 0 stable, 1 unstable, 2 bad input, 3 another error, 128 + signal if stopped."


def main(ensemble: str, description: str, argv: list[str] | None = None, *, calculator=None) -> int:
    """Run a protocol from the command line; returns the exit code.

    Parameters
    ----------
    ensemble : "nvt", "nve", "npt" or "anneal"
    description : first lines of --help
    argv : arguments; None: those of the process
    calculator : any ASE calculator to use in place of the model file
    """
    forget_notes()
    options = vars(build_parser(ensemble, description).parse_args(argv))
    try:
        summary, directory = _run(ensemble, options, calculator)
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:  # before or after the dynamics, which has its own way to stop
        print("Interrupted; if the run had begun, --restart continues it.", file=sys.stderr)
        return 130
    except Exception:  # Python would exit with 1, which here means unstable
        traceback.print_exc()
        print("The run stopped by an error that is not its physics; --restart continues it.", file=sys.stderr)
        return CRASH
    print(summary_text(summary, directory))
    if summary["signal"] and summary["stable"]:
        return 128 + summary["signal"]
    return STABLE if summary["stable"] else UNSTABLE


def build_parser(ensemble: str, description: str) -> argparse.ArgumentParser:
    """Options; None everywhere means "not given", so that a protocol or a restart can fill it in."""
    default = make_settings(ensemble, {})
    parser = argparse.ArgumentParser(program(), description=description, epilog=EXIT_CODES)
    add = parser.add_argument
    add("--model", help=f"shipped model or path of a .pt file (default {default.model})")
    add("--structure", metavar="FILE", help="start structure, any file ASE reads (default: the model's own)")
    add("--protocol", metavar="NAME", help="named settings from protocols.yaml, e.g. md17 or piwsl")
    add("--temperature", dest="temperature_K", type=float, metavar="K", help=f"default {default.temperature_K:g} K")
    if ensemble == "anneal":
        end = f"end of the ramp, default {default.temperature_end_K:g} K"
        add("--end-temperature", dest="temperature_end_K", type=float, metavar="K", help=end)
        add("--ramp-steps", type=int, metavar="N", help="steps of the ramp; then the temperature stays (default: all)")
    if ensemble == "npt":
        add("--pressure", dest="pressure_GPa", type=float, metavar="GPA", help="default 0 GPa")
        add("--barostat", choices=BAROSTATS, help=f"whether the shape may change (default {default.barostat})")
        add("--tau-p", dest="tau_p_fs", type=float, metavar="FS", help="relaxation time of the barostat (500 fs)")
    add("--timestep", dest="timestep_fs", type=float, metavar="FS", help=f"default {default.timestep_fs} fs")
    add("--steps", type=int, metavar="N", help=f"default {default.steps}")
    if ensemble in ("nvt", "anneal"):
        add("--thermostat", choices=THERMOSTATS, help=f"default {default.thermostat}")
    if ensemble != "nve":
        add("--tau", dest="tau_fs", type=float, metavar="FS", help="relaxation time of the thermostat (50 or 100 fs)")
    add("--seed", type=int, metavar="N", help=f"of velocities and noise (default {default.seed})")
    add("--interval", type=int, metavar="N", help=f"steps between frames (default {default.interval})")
    add("--dtype", choices=DTYPES, help=f"precision of the model (default {default.dtype})")
    add("--device", default="auto", help="cpu, cuda, cuda:1 ... (default auto)")
    add("--reference", metavar="FILE", help="reference (JSON) for bonds and h(r) of a molecule, or for g(r)")
    add("--no-bond-rule", dest="bond_rule", action="store_const", const=False, help="let bonds break (reactions)")
    add("--no-rdf-rule", dest="rdf_rule", action="store_const", const=False, help="let g(r) change (melting)")
    add("--output", metavar="DIR", help="new directory for the run (default: a name made from the settings)")
    add("--restart", action="store_true", help="continue the run in --output exactly")
    add("--progress", action="store_true", default=None, help="progress bar even if this is not a terminal")
    return parser


def _run(ensemble: str, options: dict, calculator) -> tuple[dict, str]:
    restart, output, progress = options.pop("restart"), options.pop("output"), options.pop("progress")
    device, reference_file = options.pop("device"), options.pop("reference")
    if options["structure"]:
        options["structure"] = str(Path(options["structure"]).resolve())
    if restart:
        return _restart(ensemble, options, output, device, calculator, progress)
    settings = make_settings(ensemble, {**meant_for(options, ensemble, reference_file, calculator), **options})
    output = output or _free_name(settings)
    RunFiles(output).check_free()  # before the model is loaded
    path = model_path(settings.model) if calculator is None else None
    atoms = _structure(settings, path)
    reference = find_reference(atoms, path, reference_file)
    warn_time_step(atoms, settings)
    atoms.calc = calculator or _load_model(path, device, settings.dtype)
    warn_direct_forces(ensemble, atoms.calc)
    warn_temperature(settings, atoms.calc, reference)
    print(f"{atoms.get_chemical_formula()}, {conditions(settings)}; output in {output}", file=sys.stderr)
    identity = _identity(path)
    return start_run(atoms, settings, output, reference=reference, identity=identity, progress=progress), output


def _restart(ensemble, options, output, device, calculator, progress) -> tuple[dict, str]:
    if output is None:
        raise InputError("--restart needs the directory of the run: --output DIR.")
    run_files = RunFiles(output)
    broken = run_files.summary_of_broken_run()
    if broken:
        print("The run broke and cannot be continued; its result:", file=sys.stderr)
        return broken, output
    stored = run_files.load_restart()[1]["settings"]
    model = options.pop("model") or stored["model"]  # may have moved: its content decides, see _identity
    settings = continue_settings(stored, ensemble, options)
    path = model_path(model) if calculator is None else None
    calculator = calculator or _load_model(path, device, settings.dtype)
    warn_direct_forces(ensemble, calculator)
    return continue_run(calculator, settings, output, identity=_identity(path), progress=progress), output


def model_path(model: str) -> Path:
    """Path of a model file: as given, or among the shipped ones, with or without .pt."""
    for path in (Path(model), ZOO / model, ZOO / f"{model}.pt"):
        if path.is_file():
            return path.resolve()
    shipped = ", ".join(sorted(p.name for p in ZOO.glob("*.pt"))) or "none"
    raise InputError(f"There is no model {model!r}. Give the path of a .pt file or a shipped model ({shipped}).")


def find_reference(atoms: Atoms, model: Path | None, given: str | None) -> MoleculeReference | PeriodicReference | None:
    """The reference for a structure: the given file, the one beside the model, or None (the start structure).

    A reference found beside the model is used only if it fits: the same molecule, whole by its bonds, or a periodic
    system of elements that the reference data have.
    """
    path = Path(given) if given else beside(model, ".reference.json")
    if path is None:
        return None
    reference = load_reference(path)
    if isinstance(reference, ContactReference):  # it has neither bonds nor g(r), which the start structure may have
        return None
    problem = _misfit(atoms, reference)
    if problem is None:
        return reference
    if given:
        raise InputError(f"The reference {path} does not fit the structure: {problem}.")
    instead = "g(r) is not watched" if atoms.pbc.any() else "the start structure is used instead"
    note(f"the reference {path.name} does not fit the structure ({problem}); {instead}")
    return None


def _misfit(atoms: Atoms, reference: MoleculeReference | PeriodicReference) -> str | None:
    """Why a reference is not one for a structure, or None."""
    if isinstance(reference, PeriodicReference):
        if reference.matches(atoms):
            if reference.groups and reference.group_of(atoms) is None:
                note(
                    f"the structure does not say by info[{reference.group_by!r}] which of the reference's groups it "
                    f"belongs to ({', '.join(reference.groups)}); its g(r) is compared with the mean of all"
                )
            return None
        pairs = ", ".join(name for name in reference.rdfs if name != "all")
        return f"it is for systems periodic in three directions with the pairs {pairs}"
    if atoms.pbc.any():
        return "it is for a molecule, and the structure is periodic"
    if not reference.matches(atoms):
        return f"it has {len(reference.symbols)} atoms in another order or of other elements"
    if worst_deviation(atoms.positions, reference)[0] > THRESHOLD:
        return "the start structure breaks its bonds (another order of atoms?)"
    return None


def meant_for(options: dict, ensemble: str, given: str | None, calculator=None) -> dict:
    """Protocol, or temperature, that the model's reference file or card names, unless the options say otherwise."""
    if options["protocol"] or options["temperature_K"]:
        return {}
    path = model_path(options["model"] or MDSettings.model) if calculator is None else None
    reference_file = Path(given) if given else beside(path, ".reference.json")
    reference = load_reference(reference_file) if reference_file else None
    named = {} if path is None else describe_card(path)
    if isinstance(reference, PeriodicReference):
        named = {"protocol": reference.protocol, "temperature_K": reference.temperature_K, **named}
    named = {name: named.get(name) for name in ("protocol", "temperature_K")}
    if named["protocol"] and protocol_plan(named["protocol"])[0] == ensemble:
        options["protocol"] = named["protocol"]
    return {"temperature_K": named["temperature_K"]}


def describe_card(model: Path) -> dict:
    """What the card of a model file says of the dynamics it is meant for: protocol, temperature_K; {} if nothing."""
    from asecalc_mlip.checkpoint import load

    card = load(model).card
    return {name: card[name] for name in ("protocol", "temperature_K") if card.get(name)}


def _structure(settings: MDSettings, model: Path | None) -> Atoms:
    path = Path(settings.structure) if settings.structure else beside(model, ".xyz")
    if path is None:
        raise InputError(f"The model {settings.model} comes without a start structure: give one with --structure FILE.")
    try:
        atoms = ase.io.read(path)
    except Exception as error:  # ASE's readers raise anything
        raise InputError(f"The structure {path} cannot be read: {error or type(error).__name__}.") from None
    if not isinstance(atoms, Atoms) or len(atoms) == 0:
        raise InputError(f"The structure {path} has no atoms.")
    if not np.isfinite(atoms.positions).all():
        raise InputError(f"The structure {path} has positions that are NaN or infinite.")
    if atoms.pbc.any() and atoms.cell.rank < 3:
        raise InputError(f"The structure {path} is periodic but its cell has fewer than three vectors: complete it.")
    atoms.calc = None
    return atoms


def beside(model: Path | None, suffix: str) -> Path | None:
    """aspirin.xyz or aspirin.reference.json beside aspirin.pt, or the shipped one of the same name."""
    if model is None:
        return None
    for folder in (model.parent, ZOO):
        path = folder / (model.stem + suffix)
        if path.is_file():
            return path
    return None


def _load_model(path: Path | None, device: str, dtype: Dtype):
    from asecalc_mlip import PIWSLCalculator

    assert path is not None  # it is only where a calculator was handed over
    return PIWSLCalculator.load(path, device=device, dtype=dtype)


def _identity(model: Path | None) -> dict:
    """Hash of the model file; empty if there is none (a calculator was handed over)."""
    return {"model_sha256": hashlib.sha256(model.read_bytes()).hexdigest()} if model else {}


def _free_name(settings: MDSettings) -> str:
    """A directory name made from the settings that is not taken yet."""
    stem = f"{settings.ensemble}-{Path(settings.model).stem}-{settings.temperature_K:g}K-seed{settings.seed}"
    number, name = 1, stem
    while Path(name).exists():
        number += 1
        name = f"{stem}-{number}"
    return name
