"""The runs of a campaign: what they are, where they lie, and how a share of them is run in one process."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from ase import Atoms

from asecalc_mlip.data.sampling import evenly
from asecalc_mlip.data.xyz_files import xyz_bytes
from asecalc_mlip.digests import sha256_of
from asecalc_mlip.errors import InputError
from asecalc_mlip.files import read_json, read_structures, write_bytes, write_json
from asecalc_mlip.md.files import RunFiles
from asecalc_mlip.md.fixed import settle_fixed
from asecalc_mlip.md.lifecycle import stored_run
from asecalc_mlip.md.replicas import Batch, BatchedModel, Replica, run_together
from asecalc_mlip.md.resolving import Resolved, resolve
from asecalc_mlip.md.settings import MDSettings
from asecalc_mlip.quantities import derived_seed
from asecalc_mlip.stopping import stop_wanted

PLAN = "campaign.json"
STARTS = "starts.extxyz"
VERSION = 1


@dataclass(frozen=True)
class Run:
    """One run of a campaign.

    Attributes
    ----------
    name : str
        Of its directory.
    model : str
        Path of the .pt file.
    sha256 : str
        Of the model's content.
    start : int
        Number of the start structure in starts.extxyz.
    settings : dict
        As `MDSettings.to_dict`.
    reference : str or None
        Path of a reference file given for all; None: the model's own.
    """

    name: str
    model: str
    sha256: str
    start: int
    settings: dict
    reference: str | None = None

    def make_settings(self) -> MDSettings:
        """Return its settings."""
        return MDSettings(**self.settings)


def plan_runs(
    models: Sequence[Path],
    n_starts: int,
    temperatures_K: Sequence[float],
    seeds: Sequence[int],
    make: Callable[[str, float, int], MDSettings],
    reference: str | None = None,
) -> list[Run]:
    """Return all combinations; `make` gives the settings of a model, a temperature (K) and a seed.

    The first model, start and temperature take the seeds as they are, all others numbers of their own made from them,
    which their settings have: under the same noise trajectories of like systems become one and the same (Uberuaga,
    Anghel, Voter, J. Chem. Phys. 120 (2004) 6363), and would be counted as several.

    Raises
    ------
    InputError
        Two models or runs of one name, nothing to run.
    """
    stems = [model.stem for model in models]
    twice = {stem for stem in stems if stems.count(stem) > 1}
    if twice:
        raise InputError(f"several models are called {', '.join(sorted(twice))}: runs are named by them, so rename one")
    digests = {model: sha256_of(model) for model in models}
    runs = []
    for system, (model, start, temperature) in enumerate(itertools.product(models, range(n_starts), temperatures_K)):
        for seed in seeds:
            name = f"{model.stem}-start{start:03d}-{temperature:g}K-seed{seed}"
            settings = make(str(model), temperature, _own_seed(seed, system))
            runs.append(Run(name, str(model), digests[model], start, settings.to_dict(), reference))
    if not runs:
        raise InputError("there is nothing to run: give at least one model, start, temperature and seed")
    if again := sorted({name for name, number in Counter(run.name for run in runs).items() if number > 1}):
        raise InputError(f"several runs are called {', '.join(again[:3])}: give each temperature and seed once")
    return runs


def _own_seed(seed: int, system: int) -> int:
    return seed if system == 0 else derived_seed(seed, system)


def write_plan(directory: Path, runs: Sequence[Run], starts: Sequence[Atoms]) -> None:
    """Write the runs and their start structures into a new directory.

    Raises
    ------
    InputError
        The directory has a campaign or cannot be written.
    """
    if (directory / PLAN).exists():
        raise InputError(f"{directory} has a campaign already: give another --output")
    write_bytes(directory / STARTS, xyz_bytes(starts))
    write_json(directory / PLAN, {"version": VERSION, "runs": [asdict(run) for run in runs]})


def read_plan(directory: Path) -> list[Run]:
    """Read the runs of a campaign.

    Raises
    ------
    InputError
        There is none, or its models have changed.
    """
    try:
        runs = [Run(**run) for run in read_json(directory / PLAN, "plan")["runs"]]
    except (InputError, KeyError, TypeError) as error:
        raise InputError(
            f"{directory} has no campaign to continue ({error}): leave --restart out to begin one"
        ) from None
    for model, sha256 in {run.model: run.sha256 for run in runs}.items():
        if not Path(model).is_file() or sha256_of(model) != sha256:
            raise InputError(f"the model {model} is gone or has changed since the campaign began: put it back")
    return runs


def summary_of(directory: Path, run: Run) -> dict | None:
    """Return summary of a run that has ended, else None."""
    return RunFiles(directory / run.name).summary_of_ended()


def shares(directory: Path, runs: Sequence[Run], batch_size: int, processes: int) -> list[list[Run]]:
    """Part what is left to do into shares of at most `batch_size` that one batch can hold, enough to keep all busy."""
    left = [run for run in runs if summary_of(directory, run) is None]
    pbc = [atoms.pbc.tolist() for atoms in read_starts(directory)]
    kinds: dict[tuple, list[Run]] = {}
    for run in left:
        kinds.setdefault((run.model, *pbc[run.start]), []).append(run)
    most = min(batch_size, max(1, -(-len(left) // processes)))
    return [group[k : k + most] for group in kinds.values() for k in range(0, len(group), most)]


def read_starts(directory: Path) -> list[Atoms]:
    """Read the start structures."""
    return read_structures(directory / STARTS)


def run_share(
    directory: str,
    runs: Sequence[Run],
    *,
    device: str = "auto",
    threads: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    tick: Callable[[int], None] = lambda steps: None,
    calculator=None,
) -> int:
    """Run one share to its end in this process, each run from where it was; return the number of runs that ended.

    `calculator` replaces the model of the file; `stop` and `tick` as in `run_replicas`.
    """
    import torch

    if threads:
        torch.set_num_threads(threads)
    found = resolve(runs[0].model, reference=runs[0].reference, calculator=calculator)
    calculator = found.calculator(device=device, dtype=runs[0].settings["dtype"])
    starts, ended = read_starts(Path(directory)), []
    replicas = [_replica(Path(directory), run, starts[run.start], found, calculator) for run in runs]
    batch_of = partial(Batch, calculator=calculator)
    run_together(replicas, batch_of, report=lambda replica, _: ended.append(replica), stop=stop, tick=tick)
    return len(ended)


def run_in_worker(directory: str, runs: Sequence[Run], device: str) -> int:
    """Run what is left of one share as a task of a worker, which leaves off when it is asked to."""
    for run in runs:
        RunFiles(Path(directory) / run.name).wait_until_free()
    left = [run for run in runs if summary_of(Path(directory), run) is None]
    return run_share(directory, left, device=device, threads=1, stop=stop_wanted) if left and not stop_wanted() else 0


def _replica(directory: Path, run: Run, start: Atoms, found: Resolved, calculator: Any) -> Replica:
    """Return a run that was begun, or a new one."""
    files, identity = RunFiles(directory / run.name), {"model_sha256": run.sha256}
    slot = BatchedModel(getattr(calculator, "card", None))
    if files.begun:
        return cast(Replica, stored_run(slot, None, files.directory, identity=identity, kind=Replica))
    files.check_free()
    atoms = start.copy()
    atoms.calc = slot
    reference = found.reference_for(atoms)
    return Replica(atoms, run.make_settings(), files.directory, reference=reference, identity=identity)


def pick_frames(frames: Sequence[Atoms], number: int | None, source: str) -> list[Atoms]:
    """Pick `number` frames, evenly spread over all (None: all), without calculators.

    Raises
    ------
    InputError
        Positions that are not finite, constraints other than FixAtoms, or fewer frames than asked for.
    """
    if number is not None and not 1 <= number <= len(frames):
        raise InputError(f"{source} has {len(frames)} structures; {number} starts cannot be taken from them")
    picked = []
    for k in evenly(len(frames), number or len(frames)):
        atoms = frames[k].copy()
        if len(atoms) == 0 or not np.isfinite(atoms.positions).all():
            raise InputError(f"structure {k} of {source} has no atoms, or positions that are NaN or infinite")
        try:
            settle_fixed(atoms)
        except InputError as error:
            raise InputError(f"structure {k} of {source}: {error}") from None
        picked.append(atoms)
    return picked
