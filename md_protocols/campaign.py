"""Many runs, starts × seeds × temperatures × models: replicas of a model advance together, each can be continued.

python md_protocols/campaign.py --seeds 64 --steps 20000                  # 64 replicas of the shipped aspirin
python md_protocols/campaign.py --model a.pt --model b.pt --structure test.xyz --starts 100 --protocol eam-silica
python md_protocols/campaign.py --restart --output campaign               # after any interruption
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

try:
    import asecalc_mlip  # noqa: F401
    import md_protocols  # noqa: F401
except ImportError:  # run from a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ase.io
from ase import Atoms
from tqdm import tqdm

from asecalc_mlip.errors import InputError
from asecalc_mlip.md.campaign.report import report_campaign
from asecalc_mlip.md.campaign.runs import Run, pick_frames, plan_runs, read_plan, run_share, shares, write_plan
from asecalc_mlip.md.campaign.workers import in_processes, on_dask
from asecalc_mlip.md.conditions import forget_notes, warn_time_step
from asecalc_mlip.md.progress import program
from asecalc_mlip.md.script import beside, meant_for, model_path
from asecalc_mlip.md.settings import DTYPES, MDSettings, make_settings, protocol_plan
from asecalc_mlip.stopping import SoftStop

EXIT_CODES = "Exit code: 0 all runs ended (stable or not), 2 bad input, 3 another error, 128 + signal if stopped."
BATCHED = ("langevin", "nose-hoover")


def main(argv: list[str] | None = None) -> int:
    """Run a campaign from command-line arguments; returns the exit code."""
    options = build_parser().parse_args(argv)
    directory = Path(options.output)
    forget_notes()
    try:
        _check_means(options)
        runs = read_plan(directory) if options.restart else _plan(options, directory)
        stopped = _run_all(options, directory, runs)
        print(report_campaign(directory, runs))
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; --restart continues the campaign.", file=sys.stderr)
        return 130
    except Exception:
        traceback.print_exc()
        print("The campaign stopped by an error that is not its physics; --restart continues it.", file=sys.stderr)
        return 3
    return 128 + stopped if stopped else 0


def build_parser() -> argparse.ArgumentParser:
    """Options; None means "not given", so that a protocol can fill it in."""
    parser = argparse.ArgumentParser(program(), description="Many molecular dynamics runs.", epilog=EXIT_CODES)
    add = parser.add_argument
    add("--model", dest="models", action="append", metavar="FILE", help="may be repeated (default aspirin.pt)")
    add("--structure", dest="structures", action="append", metavar="FILE", help="start structures; may be repeated")
    add("--starts", type=int, metavar="N", help="take N structures, evenly spread (default: all)")
    add("--seeds", metavar="N|A,B,C", help="number of seeds from 0 on, or the seeds (default: the protocol's, else 3)")
    add("--temperature", dest="temperatures", action="append", type=float, metavar="K", help="may be repeated")
    add("--ensemble", choices=("nvt", "nve"), help="default: the protocol's, else nvt")
    add("--protocol", metavar="NAME", help="named settings from protocols.yaml")
    add("--timestep", dest="timestep_fs", type=float, metavar="FS")
    add("--steps", type=int, metavar="N")
    add("--interval", type=int, metavar="N", help="steps between frames")
    add("--thermostat", choices=BATCHED)
    add("--tau", dest="tau_fs", type=float, metavar="FS", help="relaxation time of the thermostat")
    add("--dtype", choices=DTYPES)
    add("--reference", metavar="FILE", help="reference (JSON) for all runs (default: the model's own)")
    add("--no-bond-rule", dest="bond_rule", action="store_const", const=False, help="let bonds break")
    add("--no-rdf-rule", dest="rdf_rule", action="store_const", const=False, help="let g(r) change")
    add("--device", default="auto", help="cpu, cuda, cuda:1 ... (default auto)")
    add("--batch-size", type=int, default=64, metavar="N", help="most replicas that advance together (default 64)")
    add("--processes", type=int, default=1, metavar="N", help="default 1; each then uses one thread")
    add("--dask", metavar="ADDRESS", help="Dask scheduler; workers must see the same --output and models")
    add("--output", default="campaign", metavar="DIR", help="default campaign")
    add("--restart", action="store_true", help="continue the campaign in --output; other settings come from there")
    add("--progress", action="store_true", default=None, help="progress bar even if this is not a terminal")
    return parser


def _plan(options: argparse.Namespace, directory: Path) -> list[Run]:
    models = [model_path(model) for model in options.models or [MDSettings.model]]
    starts = _starts(options, models)
    names = ("protocol", "timestep_fs", "steps", "interval", "thermostat", "tau_fs", "dtype", "bond_rule", "rdf_rule")
    given = {name: getattr(options, name) for name in names}
    temperatures = options.temperatures or [None]
    own_ensemble, own_seeds = protocol_plan(options.protocol) if options.protocol else (None, None)
    # One that a campaign does not run is refused with the script that does.
    ensemble = options.ensemble or (own_ensemble if own_ensemble == "nve" else "nvt")
    seeds = _seeds(options.seeds) if options.seeds else own_seeds or [0, 1, 2]

    def make(model: str, temperature: float | None, seed: int) -> MDSettings:
        wanted = {**given, "model": model, "temperature_K": temperature, "seed": seed}
        # What the model is meant for holds unless the user, not this plan, gives a temperature.
        asked = {**wanted, "temperature_K": temperature if options.temperatures else None}
        meant = meant_for(asked, ensemble, options.reference)
        settings = make_settings(ensemble, {**meant, **wanted, "protocol": asked["protocol"]})
        if ensemble == "nvt" and settings.thermostat not in BATCHED:
            raise InputError(f"A campaign advances replicas by {' or '.join(BATCHED)}, not {settings.thermostat}.")
        return settings

    _check_same_conditions(models, [make(str(model), temperatures[0], 0) for model in models])
    if temperatures == [None]:
        temperatures = sorted({make(str(model), None, 0).temperature_K for model in models})
    reference = str(Path(options.reference).resolve()) if options.reference else None
    for atoms in {a.get_chemical_formula(): a for a in starts}.values():
        warn_time_step(atoms, make(str(models[0]), temperatures[0], 0))
    runs = plan_runs(models, len(starts), temperatures, seeds, make, reference)
    write_plan(directory, runs, starts)
    return runs


def _check_same_conditions(models: Sequence[Path], settings: Sequence[MDSettings]) -> None:
    """Refuse models that would run under unlike conditions beside each other in one table."""
    names = ("ensemble", "temperature_K", "timestep_fs", "steps", "thermostat", "tau_fs", "protocol")
    unlike = [name for name in names if len({getattr(s, name) for s in settings}) > 1]
    if unlike:
        told = "; ".join(
            f"{model.name}: {', '.join(f'{name} {getattr(s, name)}' for name in unlike)}"
            for model, s in zip(models, settings, strict=True)
        )
        raise InputError(
            f"The models are meant for unlike runs ({told}), which cannot be compared: give --protocol, or "
            "--temperature, --timestep, --steps and --thermostat, for all of them."
        )


def _starts(options: argparse.Namespace, models: Sequence[Path]) -> list[Atoms]:
    """Start structures from files, or the one that comes with the first model."""
    paths = [Path(path) for path in options.structures or []]
    if not paths and len(models) > 1:
        raise InputError("Several models need start structures that all of them know: give --structure FILE.")
    if not paths:
        path = beside(models[0], ".xyz")
        if path is None:
            raise InputError(f"The model {models[0].name} comes without a start structure: give --structure FILE.")
        paths = [path]
    frames: list[Atoms] = []
    for path in paths:
        try:
            frames += ase.io.read(path, index=":")
        except Exception as error:  # ASE's readers raise anything
            raise InputError(f"The structures {path} cannot be read: {error or type(error).__name__}.") from None
    return pick_frames(frames, options.starts, ", ".join(map(str, paths)))


def _seeds(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.removesuffix(",").split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers) or ("," not in text and numbers[0] == 0):
        raise InputError(f"--seeds is a number of seeds or a list such as 1234,2345,3456, not {text!r}.")
    return numbers if "," in text else list(range(numbers[0]))


def _check_means(options: argparse.Namespace) -> None:
    """Refuse what cannot be run with before a plan is written."""
    for name in ("batch_size", "processes"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(options, name)}.")
    if options.dask and find_spec("distributed") is None:
        raise InputError("--dask needs the package distributed: pip install distributed, or use --processes.")


def _run_all(options: argparse.Namespace, directory: Path, runs: Sequence[Run]) -> int | None:
    """Run what is left; the signal that stopped it, if one did."""
    todo = shares(directory, runs, options.batch_size, options.processes)
    hidden = _hidden(options)
    if options.dask:
        on_dask(directory, todo, address=options.dask, device=options.device, hidden=hidden)
        return None
    if options.processes > 1 and len(todo) > 1:
        return in_processes(directory, todo, processes=options.processes, device=options.device, hidden=hidden)
    total = sum(run.settings["steps"] for share in todo for run in share)
    with SoftStop() as interrupt, tqdm(total=total, unit="step", unit_scale=True, disable=hidden) as bar:
        for share in todo:
            if not interrupt.signal:
                run_share(
                    str(directory), share, device=options.device, stop=lambda: bool(interrupt.signal), tick=bar.update
                )
        return interrupt.signal


def _hidden(options: argparse.Namespace) -> bool | None:
    """For tqdm, whose None means: hidden unless this is a terminal."""
    return False if options.progress else None


if __name__ == "__main__":
    sys.exit(main())
