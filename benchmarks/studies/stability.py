"""Does a potential hold a molecule together, keep its structure, and conserve energy?

    python benchmarks/studies/stability.py --jobs 2                    # the full study of the PaiNN of aspirin
    python benchmarks/studies/stability.py --only nve --seeds 1        # a part of it

NVT at 500 K (Nosé-Hoover, 0.5 fs: the protocol md17) for several seeds, judged by the 0.5 Å bond rule; h(r) against the
reference of the model. NVE at 0.5 fs in float32 and float64: each seed starts from the last frame of 2 ps of NVT at
500 K with velocities drawn anew from Maxwell-Boltzmann at 500 K (positions and velocities of thermal equilibrium are
independent), the same for both precisions. Runs go to runs/stability/<model>-<hash>/; the same command continues what
was interrupted, skips what is done, and extends runs when more picoseconds are asked for. The table is printed and
written to benchmarks/results/stability_<model>.json, the figure beside it.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import click
from ase.io import write

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # a checkout that is not installed
    sys.path.insert(0, str(ROOT))

from asecalc_mlip import zoo  # noqa: E402
from asecalc_mlip.digests import sha256_of  # noqa: E402
from asecalc_mlip.files import read_structure  # noqa: E402
from asecalc_mlip.md.files import RESTART, SUMMARY, TRAJECTORY, RunFiles  # noqa: E402
from benchmarks.studies.stability_report import report  # noqa: E402

TIMESTEP_FS = 0.5
TEMPERATURE_K = 500.0
EQUILIBRATION_PS = 2.0
NVE_INTERVAL = 20  # 10 fs: a drift is fitted to many points
DTYPES = ("float32", "float64")
STABLE, UNSTABLE = 0, 1  # exit codes


@dataclass(frozen=True)
class Task:
    """One run of the study."""

    kind: str
    """equilibration, nvt or nve."""
    seed: int
    dtype: str
    picoseconds: float
    folder: Path
    structure: Path | None = None

    @property
    def steps(self) -> int:
        """Number of time steps."""
        return round(1e3 * self.picoseconds / TIMESTEP_FS)

    @property
    def directory(self) -> Path:
        """Where the run is."""
        return self.folder / f"{self.kind}-{self.dtype}-seed{self.seed}"


@click.command(help=__doc__)
@click.option("--model", default="aspirin_painn.pt", show_default=True, help="Shipped model or path of a .pt file.")
@click.option("--picoseconds", type=click.FloatRange(0.1), default=50.0, show_default=True, help="Of each NVT run.")
@click.option("--nve-picoseconds", type=click.FloatRange(0.1), help="Default: 10, at most --picoseconds.")
@click.option("--only", type=click.Choice(["nvt", "nve"]), help="Only one of the two parts.")
@click.option("--seeds", default="1,2,3", show_default=True, help="Seeds, with commas between.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Runs at once.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of each run.")
@click.option("--runs", type=click.Path(path_type=Path), default=ROOT / "runs/stability", help="Folder of the runs.")
@click.option("--output", type=click.Path(path_type=Path), default=ROOT / "benchmarks/results", help="For results.")
def main(
    model: str, picoseconds: float, nve_picoseconds: float | None, only: str | None, seeds: str, jobs: int,
    threads: int, runs: Path, output: Path,
) -> None:  # fmt: skip
    """Run what is missing, then report."""
    path = zoo.find(model).resolve()
    digest = sha256_of(path)
    folder = runs.resolve() / f"{path.stem}-{digest[:8]}"
    numbers = [int(seed) for seed in seeds.split(",")]
    nve_ps = nve_picoseconds or min(10.0, picoseconds)
    first, second = plan(folder, numbers, picoseconds, nve_ps, only)
    for tasks in (first, second):
        run_all(tasks, path, jobs, threads)
    # Also what was done before and is not asked for now: a part of the study must not remove the other from the report.
    every = [task for part in plan(folder, numbers, picoseconds, nve_ps, None) for task in part]
    shown = [task for task in every if task.kind != "equilibration" and done(task)]
    study = {
        "model": path.name,
        "model_sha256": digest,
        "temperature_K": TEMPERATURE_K,
        "timestep_fs": TIMESTEP_FS,
        "seeds": numbers,
        "nve_start": f"last frame of {EQUILIBRATION_PS:g} ps NVT, Maxwell-Boltzmann velocities, {TEMPERATURE_K:g} K",
        "machine": {**machine(), "threads_per_run": threads, "runs_at_once": jobs},
    }
    click.echo(report(study, [(task.kind, task.seed, task.dtype, task.directory) for task in shown], output))


def plan(
    folder: Path, seeds: list[int], nvt_ps: float, nve_ps: float, only: str | None
) -> tuple[list[Task], list[Task]]:
    """Tasks that need nothing, and those that need an equilibration first."""
    first, second = [], []
    if only != "nvt":
        first += [Task("equilibration", seed, "float32", EQUILIBRATION_PS, folder) for seed in seeds]
        for task in first:
            start = folder / f"start-seed{task.seed}.xyz"
            second += [replace(task, kind="nve", dtype=d, picoseconds=nve_ps, structure=start) for d in DTYPES]
    if only != "nve":
        first += [Task("nvt", seed, "float32", nvt_ps, folder) for seed in seeds]
    return first, second


def run_all(tasks: list[Task], model: Path, jobs: int, threads: int) -> None:
    """Run tasks side by side; Ctrl-C lets those that run come to a restart point and starts no more."""
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for task, text in zip(tasks, pool.map(lambda task: run(task, model, threads), tasks), strict=True):
                click.echo(f"{task.directory.name}: {text}")
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            click.echo("Stopped; the same command continues.", err=True)
            raise


def run(task: Task, model: Path, threads: int) -> str:
    """Run, continue or skip one task, in a process of its own; returns what happened."""
    if done(task):
        return "was done before"
    if task.structure is not None and not task.structure.exists():
        return "left out, its equilibration did not finish"
    task.folder.mkdir(parents=True, exist_ok=True)
    with open(task.folder / f"{task.directory.name}.log", "a", encoding="utf-8") as log:
        ensemble = "nve" if task.kind == "nve" else "nvt"
        command = [sys.executable, "-m", "asecalc_mlip.cli", ensemble, *_arguments(task, model)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        code = subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=environment).returncode
    if code == STABLE and task.kind == "equilibration":
        _keep_last_frame(task)
    return {STABLE: "stable", UNSTABLE: "UNSTABLE"}.get(code, f"stopped with exit code {code}, see {log.name}")


def done(task: Task) -> bool:
    """Whether the run has reached its last step, or broke on the way."""
    try:
        summary = json.loads(RunFiles(task.directory).path(SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return summary["status"] == "unstable" or summary["steps_done"] >= task.steps


def machine() -> dict:
    """Return what the times belong to."""
    import torch

    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"cpu": cpu, "cores": os.cpu_count(), "torch": torch.__version__, "load_1min_at_end": load}


def _arguments(task: Task, model: Path) -> list[str]:
    common = ["--model", str(model), "--output", str(task.directory)]
    if (task.directory / RESTART).exists():
        # A run that was meant to be longer stays so.
        planned = RunFiles(task.directory).load_restart()[1]["settings"]["steps"]
        return [*common, "--restart", "--steps", str(max(planned, task.steps))]
    common += ["--seed", str(task.seed), "--dtype", task.dtype, "--steps", str(task.steps)]
    if task.kind != "nve":
        return [*common, "--protocol", "md17"]
    settings = ["--temperature", str(TEMPERATURE_K), "--timestep", str(TIMESTEP_FS), "--interval", str(NVE_INTERVAL)]
    return [*common, *settings, "--structure", str(task.structure)]


def _keep_last_frame(task: Task) -> None:
    """Write the start of the NVE runs, with all digits."""
    atoms = read_structure(task.directory / TRAJECTORY)
    atoms.info = {}
    write(task.folder / f"start-seed{task.seed}.xyz", atoms, format="extxyz", columns=["symbols", "positions"])


if __name__ == "__main__":
    main()
