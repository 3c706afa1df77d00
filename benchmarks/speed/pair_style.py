"""How fast is pair_style asecalc, beside the calculator in ASE, beside the bridge, and on two ranks?

python benchmarks/speed/pair_style.py                                    # every row that is not there yet
python benchmarks/speed/pair_style.py --atoms 576 2025 --ranks 1         # some of them
python benchmarks/speed/pair_style.py --atoms 1016064 --model painn-64 --way pair

NVE of α-quartz at 300 K, 1 fs, float32, one thread a rank. Networks have random weights, with forces scaled down so
that the crystal stays one. A row is the shortest of `--repeats` runs. Rows in results/lammps.json are kept, so
the same command goes on after an interruption; `--again` measures them anew. Two ranks need two free cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.io import write
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.bench.structures import quartz
from asecalc_mlip.checkpoint import save
from asecalc_mlip.files import write_json
from asecalc_mlip.lammps import plugin
from asecalc_mlip.lammps.export import exported
from asecalc_mlip.models import build_potential

RESULT = Path(__file__).parents[1] / "results" / "lammps.json"
REPEATS = {576: (4, 4, 4), 2025: (5, 5, 9), 4608: (8, 8, 8), 15552: (12, 12, 12), 104976: (24, 27, 18)}
REPEATS |= {1016064: (49, 48, 48)}
ATOMS = (576, 2025, 15552, 104976)
MODELS = ("silica", "painn-64", "painn-128", "tensornet-64")
WAYS = ("ase", "bridge", "pair")
BRIDGED = 15552  # atoms up to which ASE and the bridge are measured


def main() -> None:
    """Measure what is missing and print all rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--atoms", type=int, nargs="*", default=ATOMS)
    parser.add_argument("--model", nargs="*", default=MODELS)
    parser.add_argument("--way", nargs="*", default=WAYS)
    parser.add_argument("--ranks", type=int, nargs="*", default=(1, 2))
    parser.add_argument("--steps", type=int, help="default: as many as take about two seconds, 2 to 200")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--note", default="", help="kept with the rows, such as: beside other work")
    parser.add_argument("--again", action="store_true", help="measure rows anew that are there")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else {}
    for model in chosen.model:
        for atoms in chosen.atoms:
            for way in chosen.way:
                for ranks in chosen.ranks if way == "pair" else (1,):
                    key = f"{model} {atoms} {way} {ranks}"
                    if (key in rows and not chosen.again) or (way != "pair" and atoms > BRIDGED):
                        continue
                    steps = chosen.steps or int(np.clip(2.0 / (30e-6 * atoms / ranks), 2, 200))
                    rows[key] = measure(model, atoms, way, ranks, steps, chosen.repeats)
                    if chosen.note:
                        rows[key]["note"] = chosen.note
                    write_json(RESULT, {"machine": platform.processor() or platform.machine(), "rows": rows})
    for key, row in rows.items():
        print(f"{key:<32} {row['us_per_atom']:8.2f} µs/atom {row['ms_per_step']:10.2f} ms", end="")
        print(f" {row['cpu_us_per_atom']:8.2f} µs of CPU/atom", row.get("note", ""))


def measure(model: str, n_atoms: int, way: str, ranks: int, steps: int, repeats: int) -> dict[str, float]:
    """Shortest time of a step, and what else LAMMPS tells."""
    atoms = quartz() * REPEATS[n_atoms]
    with tempfile.TemporaryDirectory() as folder:
        path = model_file(model, Path(folder))
        if way == "ase":
            found = [by_ase(path, atoms, steps) for _ in range(repeats)]
        else:
            found = [by_lammps(path, atoms, steps, ranks, Path(folder), way == "bridge") for _ in range(repeats)]
    best = min(found, key=lambda one: one["seconds"])
    seconds, busy = best.pop("seconds") / steps, min(one.pop("cpu_seconds") for one in found) / steps
    best["cpu_us_per_atom"] = 1e6 * busy * ranks / len(atoms)
    return {
        "atoms": len(atoms), "ranks": ranks, "steps": steps, "ms_per_step": 1e3 * seconds,
        "us_per_atom": 1e6 * seconds / len(atoms), **best,
    }  # fmt: skip


def model_file(name: str, folder: Path) -> str:
    """Name of a shipped model, or a file with random weights."""
    if name == "silica":
        return "silica.pt"
    architecture, features = name.split("-")
    torch.manual_seed(0)
    sizes = {"cutoff": 5.0, "n_features": int(features)}
    potential = build_potential(architecture, sizes, reference_energies={14: 0.0, 8: 0.0}, scale=1e-3)
    # The same file gets the same export, which is made once.
    save(folder / f"{name}.pt", potential.eval(), card={"name": name})
    return str(folder / f"{name}.pt")


def by_ase(model: str, atoms: Atoms, steps: int) -> dict[str, float]:
    """Seconds of some steps of ASE's integrator with the calculator, after two that warm up."""
    atoms = atoms.copy()
    atoms.calc = PIWSLCalculator.load(model)
    MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=np.random.default_rng(1))
    dynamics = VelocityVerlet(atoms, 1.0 * units.fs)
    dynamics.run(2)
    start, busy = time.perf_counter(), time.process_time()
    dynamics.run(steps)
    return {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - busy}


def by_lammps(model: str, atoms: Atoms, steps: int, ranks: int, folder: Path, bridge: bool) -> dict[str, float]:
    """Seconds of some steps by LAMMPS' own clock, after two that warm up; ghosts and bytes per rank."""
    if not (folder / "x.data").exists():
        write(folder / "x.data", atoms, format="lammps-data", specorder=["Si", "O"], units="metal", masses=True)
    style = "fix mlip all external pf/callback 1 1"
    if not bridge:
        style = f"pair_style asecalc\npair_coeff * * {exported(model)} Si O"
    (folder / "in.x").write_text(
        f"{'' if bridge else f'plugin load {plugin.build()}'}\nunits metal\natom_style atomic\nneighbor 1.0 bin\n"
        f"read_data x.data\n{style}\nvelocity all create 300 1\ntimestep 0.001\nfix 1 all nve\nthermo 1000\n"
        f"run 2\nrun {steps}\n"
    )
    program = [str(plugin._lammps_package() / "lmp"), "-in", "in.x", "-log", "log.x"]
    if bridge:
        program = [
            sys.executable,
            "-m",
            "asecalc_mlip.cli",
            "lammps",
            "run",
            model,
            *("in.x -log log.x -screen none".split()),
        ]
    if ranks > 1:
        program = [str(Path(sys.prefix) / "bin" / "mpirun"), "-n", str(ranks), *program]
    root = str(Path(__file__).resolve().parents[2])
    library = str(Path(sys.prefix) / "lib")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root, "LD_LIBRARY_PATH": library}
    with open(folder / "out.x", "w+") as out:
        process = subprocess.Popen(program, cwd=folder, env=environment, stdout=out, stderr=out)
        _, status, used = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{' '.join(program)}\n{(folder / 'out.x').read_text()[-2000:]}")
    text = (folder / "log.x").read_text()
    seconds = float(re.findall(r"Loop time of (\S+) on", text)[-1])
    # Beside other work the time that the processor gave is the fairer measure, of one rank: two wait for each other.
    found = {"seconds": seconds, "cpu_seconds": seconds * float(re.findall(r"(\S+)% CPU use", text)[-1]) / 100}
    if not bridge:
        if ranks == 1:
            found["peak_kB_per_atom"] = used.ru_maxrss / len(atoms)
        found["ghosts_per_rank"] = float(re.findall(r"Nghost:\s+(\S+) ave", text)[-1])
        found["bytes_per_ghost"] = float(re.findall(r"(\d+) bytes per ghost", text)[-1])
        for part in ("Pair", "Neigh", "Comm"):
            rows = re.findall(rf"^{part}\s+\|\s+\S+\s+\|\s+(\S+)", text, re.MULTILINE)
            found[f"{part.lower()}_ms"] = 1e3 * float(rows[-1]) / steps
    return found


if __name__ == "__main__":
    main()
