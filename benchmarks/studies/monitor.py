"""Does the monitor stop what is broken, and let what is sound run on?

    python benchmarks/studies/monitor.py [PART...]      # planted, real, sound, hot; all by default

- planted: sound trajectories of the shipped models, into which failures are edited.
- attracted: runs of shipped models with an attraction added between one pair of elements, or with scaled weights.
- real: silica at 2000 K with networks trained on 25 frames, 2 ps, from test structures.
- sound: runs of the shipped models by their own protocols; every stop is a false alarm.
- verdicts: what the published campaign of the EAM study comes to under the present limits.
- cost: the monitor's share of a step.
- hot: how near the shipped models come to the limits, from half to eight times the temperature of their data.

The judge of a run of a bad model is the shipped model, whose energy of the last frames must not lie more than 0.15
eV/atom above (or below) that of its own runs at the same temperature. Needs the data folder (ASECALC_DATA) for `real`.
Each part writes benchmarks/results/monitor.json; a part that is there is left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.data import covalent_radii
from ase.io import write

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from asecalc_mlip import PIWSLCalculator, md  # noqa: E402
from asecalc_mlip.analysis import make_reference, shortest_by_pair  # noqa: E402
from asecalc_mlip.analysis.limits import ContactLimits  # noqa: E402
from asecalc_mlip.bench.structures import structure  # noqa: E402
from asecalc_mlip.checkpoint import load, save  # noqa: E402
from asecalc_mlip.data.readers import read_frames  # noqa: E402
from asecalc_mlip.files import read_structure, read_structures, write_json  # noqa: E402
from asecalc_mlip.neighbors.pairs import vectors_within  # noqa: E402
from benchmarks.studies.planted import EDITS, boxed  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "monitor.json"
RUNS = ROOT / "runs" / "monitor"
DATA = Path(os.environ.get("ASECALC_DATA", ROOT.parent / "shared" / "data"))
PROTOCOLS: dict[str, dict[str, Any]] = {
    "aspirin_painn": {"temperature_K": 500.0, "timestep_fs": 0.5, "steps": 4000, "interval": 20},
    "ethanol_painn": {"temperature_K": 500.0, "timestep_fs": 0.5, "steps": 8000, "interval": 20},
    "silica": {"temperature_K": 2000.0, "timestep_fs": 2.0, "steps": 1000, "interval": 10, "thermostat": "langevin"},
}
SEEDS = 8
# eV/atom beyond which a frame is not one of a sound run at the same temperature.
BROKEN = 0.15
NETWORKS = (("painn", 0, 60), ("painn", 1, 60), ("painn", 2, 30), ("torchmd_et", 3, 40), ("cgcnn", 4, 60))


@click.command(help=__doc__)
@click.argument("parts", nargs=-1)
@click.option("--models", type=click.Path(path_type=Path), default=RUNS / "models", help="Networks of few frames.")
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS)
def main(parts: tuple[str, ...], models: Path, output: Path) -> None:
    """Make the parts that are missing."""
    known: dict[str, Callable[[], Any]] = {
        "sound": sound,
        "hot": hot,
        "planted": planted,
        "attracted": attracted,
        "real": lambda: real(models),
        "cost": cost,
        "verdicts": verdicts,
    }
    results = json.loads(output.read_text()) if output.exists() else {}
    for part in parts or known:
        if part in results:
            continue
        begun = time.time()
        results[part] = {**known[part](), "seconds": round(time.time() - begun)}
        write_json(output, results)
        click.echo(f"{part}: {json.dumps({k: v for k, v in results[part].items() if k != 'runs'})}")


def sound() -> dict[str, Any]:
    """Run the shipped models by their protocols."""
    runs = [row for name, settings in PROTOCOLS.items() for row in _campaign(f"{name}.pt", "sound", settings)]
    return {"runs": runs, "stopped": sum(not row["stable"] for row in runs), "of": len(runs)}


def hot() -> dict[str, Any]:
    """Run the shipped models far from the temperature of their data, and see how near contacts come to the limit."""
    rows = []
    for name, kelvins in {"aspirin_painn": (250, 500, 1000, 1500), "silica": (500, 1000, 2000, 3000, 4000)}.items():
        for kelvin in kelvins:
            settings = {**PROTOCOLS[name], "temperature_K": float(kelvin), "steps": 500, "bond_rule": False}
            found = _campaign(f"{name}.pt", f"hot-{kelvin}", settings, seeds=4)
            rows.append(
                {
                    "model": name,
                    "temperature_K": kelvin,
                    "least_distance_over_limit": min(row["margin"] for row in found),
                    "pair": min(found, key=lambda row: row["margin"])["margin_pair"],
                    "stopped": dict(Counter(row["failure"] for row in found if not row["stable"])),
                }
            )
    return {"runs": rows}


def planted() -> dict[str, Any]:
    """Edit failures into sound trajectories, frame after frame, and see whether and when they are found."""
    rows = []
    for name in ("ethanol_painn", "silica"):
        for folder in sorted((RUNS / "sound" / name).glob("*-seed*"))[:6]:
            frames = read_structures(folder / "trajectory.extxyz")
            for kind, edit in EDITS[name].items():
                settings = md.resolve(f"{name}.pt").settings("nvt", **PROTOCOLS[name])
                in_box = kind.endswith("box")
                changed = list(edit([boxed(a) if in_box else a.copy() for a in frames], np.random.default_rng(0)))
                found = md.resolve(f"{name}.pt").reference_for(changed[0])
                watch = md.Monitor.for_run(changed[0], settings, found)
                hits = ((k, failure) for k, a in enumerate(changed) if (failure := watch.check(a)) is not None)
                number, failure = next(hits, (None, None))
                caught = failure.kind if failure else None
                rows.append({"model": name, "planted": kind, "frame": number, "caught": caught, "of": len(changed)})
    return _counted(rows)


def attracted() -> dict[str, Any]:
    """Run shipped models with an attraction between one pair of elements, or with scaled weights."""
    rows = []
    for name, pairs in {"ethanol_painn": ("H-H", "C-O"), "silica": ("Si-Si", "O-O", "O-Si")}.items():
        settings = {**PROTOCOLS[name], "steps": PROTOCOLS[name]["steps"] // 4}
        for pair in pairs:
            for depth in (4.0, 8.0):
                calculator = Attracted(PIWSLCalculator.load(f"{name}.pt", device="cpu"), pair, depth)
                rows.append({"fault": f"{pair} {depth:g} eV", **_one(name, calculator, settings, f"{pair}-{depth:g}")})
        for factor in (0.8, 1.2, 1.5):
            scaled = PIWSLCalculator.load(_scaled(name, factor), device="cpu")
            rows.append({"fault": f"weights × {factor}", **_one(name, scaled, settings, f"scaled-{factor}")})
    return _judged(rows)


def real(models: Path) -> dict[str, Any]:
    """Run networks of 25 frames at 2000 K."""
    rows = []
    for architecture, seed, epochs in NETWORKS:
        path = _network(models, architecture, seed, epochs)
        starts = read_frames(DATA / "silica_zeo22_test.xyz")[::57][:6]
        write(RUNS / "starts.xyz", starts, format="extxyz", columns=["symbols", "positions"])
        rows += _campaign(str(path), "real", PROTOCOLS["silica"], seeds=1, structures=[RUNS / "starts.xyz"])
    return _judged(rows)


def cost() -> dict[str, Any]:
    """Time the monitor beside a step, on aspirin and on quartz of 576 atoms."""
    found = md.resolve("aspirin_painn.pt")
    rows = {}
    for name, atoms in {"aspirin": found.atoms, "quartz 576": structure("quartz-576")}.items():
        model = "aspirin_painn.pt" if name == "aspirin" else "silica.pt"
        resolved = md.resolve(model, atoms)
        settings = resolved.settings("nvt", **PROTOCOLS[Path(model).stem])
        atoms.calc = resolved.calculator(device="cpu")
        watch = md.Monitor.for_run(atoms, settings, resolved.reference)
        md.maxwell_boltzmann(atoms, settings.temperature_K, rng := np.random.default_rng(0))
        integrator = md.make_integrator(atoms, settings, rng)
        step, check = _timed(integrator.step, 20), _timed(partial(watch.check, atoms, temperature=1.0e3), 10)
        rows[name] = {"ms_per_step": step, "ms_per_check": check, "share": check / (check + settings.interval * step)}
    return {"runs": rows}


def verdicts() -> dict[str, Any]:
    """Judge again what the numbers of the campaign eam_md allow; its trajectories were not kept.

    A pair closer than the smallest limit of any pair (over the covalent radii) breaks the present rule; one that is
    further than the largest keeps it. In between, the pair decides, which was not recorded.
    """
    known = json.loads((RESULTS.parent / "eam_md.json").read_text())
    rows = {}
    for data, file, hottest in (
        ("silica", "silica_zeo22_train.xyz", 1000.0),
        ("limno", "limno_electrode_train.xyz", None),
        ("tio2", "tio2_train.xyz", None),
    ):
        closest = shortest_by_pair(read_frames(DATA / file))
        atoms = Atoms(sorted({symbol for pair in closest for symbol in pair.split("-")}))
        models = [row for row in known.values() if row.get("data") == data and "failures" in row]
        limits = ContactLimits.of(atoms, closest, hottest).table(models[0]["temperature_K"])
        radii = covalent_radii[np.unique(atoms.numbers)]
        ratios = limits / (radii[:, None] + radii)
        fell = {
            key: f"{row['stable']} of {row['runs']} stable, closest {row['closest_ratio']:.2f}"
            for key, row in known.items()
            if row in models and row["closest_ratio"] < ratios.min() and set(row["failures"]) <= {"rdf"}
        }
        rows[data] = {
            "runs": sum(row["runs"] for row in models),
            "stable": sum(row["stable"] for row in models),
            "failures": dict(sum((Counter(row["failures"]) for row in models), Counter())),
            "limits_over_covalent_radii": [round(float(ratios.min()), 3), round(float(ratios.max()), 3)],
            "models_with_a_collapse_that_was_not_found": fell,
            "stable_in_models_that_keep_every_limit": sum(
                row["stable"] for row in models if row["closest_ratio"] >= ratios.max()
            ),
        }
    return {"runs": rows}


class Attracted(Calculator):
    """A calculator with a Gaussian well between two elements added, narrow enough to be a hole behind their wall."""

    implemented_properties = ["energy", "free_energy", "forces"]

    def __init__(self, inner: PIWSLCalculator, pair: str, depth_eV: float, width_A: float = 0.6) -> None:
        super().__init__()
        self.inner, self.pair, self.depth, self.width = inner, pair.split("-"), depth_eV, width_A

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Add −D exp(−(r/2w)²) for every pair."""
        super().calculate(atoms, properties, system_changes)
        self.inner.calculate(atoms, properties, system_changes)
        energy, forces = self.inner.results["energy"], self.inner.results["forces"].copy()
        i, j, vectors = vectors_within(atoms, 4.0)
        symbols = np.array(atoms.get_chemical_symbols())
        a, b = self.pair
        keep = ((symbols[i] == a) & (symbols[j] == b)) | ((symbols[i] == b) & (symbols[j] == a))
        i, vectors = i[keep], vectors[keep]
        well = self.depth * np.exp(-((vectors**2).sum(axis=1)) / (2 * self.width) ** 2)
        np.add.at(forces, i, (2 * well / (2 * self.width) ** 2)[:, None] * vectors)
        self.results = {"energy": energy - 0.5 * well.sum(), "forces": forces}
        self.results["free_energy"] = self.results["energy"]


def _campaign(
    model: str, part: str, settings: dict[str, Any], *, seeds: int = SEEDS, structures: list[Path] | None = None
) -> list[dict[str, Any]]:
    """Run replicas of a model and return a row for each."""
    name = Path(model).stem
    folder = RUNS / part / name
    options = {key: value for key, value in settings.items() if key != "temperature_K"}
    campaign = md.plan_campaign(
        [model],
        structures or (),
        output=folder,
        temperatures_K=[settings["temperature_K"]],
        seeds=range(seeds),
        **options,
    )
    md.run_campaign(campaign, device="cpu")
    return [_row(name, folder / run.name) for run in campaign.runs]


def _one(name: str, calculator: Any, settings: dict[str, Any], folder: str) -> dict[str, Any]:
    """Run a shipped structure with a bad calculator and the reference of the shipped model."""
    found = md.resolve(f"{name}.pt")
    atoms = found.atoms
    atoms.calc = calculator
    directory = RUNS / "attracted" / name / folder
    wanted = found.settings("nvt", **settings)
    md.run_md(atoms, wanted, directory, reference=found.reference)
    return _row(name, directory)


def _row(name: str, folder: Path) -> dict[str, Any]:
    summary = json.loads((folder / "summary.json").read_text())
    failure, extremes = summary["failure"] or {}, summary["extremes"]
    return {
        "model": name,
        "folder": str(folder.relative_to(RUNS)),
        "stable": summary["stable"],
        "stable_ps": summary["stable_ps"],
        "failure": failure.get("kind"),
        "brief": failure.get("brief"),
        **{key: extremes[key] for key in ("margin", "margin_A", "margin_limit_A", "margin_pair", "closest_ratio")},
    }


def _judged(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Judge runs by the energy that the shipped model gives their last frames."""
    judges = {name: PIWSLCalculator.load(f"{name}.pt", device="cpu") for name in ("ethanol_painn", "silica")}
    for row in rows:
        name = "ethanol_painn" if row["model"] == "ethanol_painn" else "silica"
        heat = 1.5 * units.kB * PROTOCOLS[name]["temperature_K"]
        folder = RUNS / row["folder"]
        frames = read_structures(folder / "trajectory.extxyz")
        energies = np.array([one["energy"] for one in judges[name].evaluate(frames)]) / len(frames[0])
        above = energies - energies[0] - (heat if np.ptp(energies) else 0.0)
        last = above[-max(1, len(above) // 10) :]
        row["last_above_thermal_eV_per_atom"] = round(float(last.mean()), 3)
        row["highest_above_thermal_eV_per_atom"] = round(float(above.max()), 3)
        broken = folder / "unstable.extxyz"
        if broken.exists():
            row["broken_frame_above_eV_per_atom"] = _energy_above(judges[name], broken, energies[0], heat)
        row["broken"] = bool(row["highest_above_thermal_eV_per_atom"] > BROKEN or not row["stable"])
        row["caught"] = row["failure"]
    missed = [row["folder"] for row in rows if row["broken"] and row["stable"]]
    broken = sum(row["broken"] for row in rows)
    return {"runs": rows, "broken": broken, "caught": broken - len(missed), "missed": missed, "of": len(rows)}


def _energy_above(judge: PIWSLCalculator, path: Path, start: float, heat: float) -> float | None:
    frame = read_structure(path)
    try:
        (found,) = judge.evaluate([Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)])
    except ValueError:
        return None
    return round(float(found["energy"] / len(frame) - start - heat), 3)


def _counted(rows: list[dict[str, Any]]) -> dict[str, Any]:
    missed = Counter(f"{row['model']}: {row['planted']}" for row in rows if row["caught"] is None)
    return {"runs": rows, "planted": len(rows), "caught": len(rows) - sum(missed.values()), "missed": dict(missed)}


def _network(models: Path, architecture: str, seed: int, epochs: int) -> Path:
    """Train a small network on 25 frames, unless it is there; give it the reference of its frames as of now."""
    name = f"{architecture}_{seed}"
    path = models / name / f"{name}.pt"
    if not path.exists():
        sizes = "model.hyperparameters={cutoff: 5.0, n_features: 32, n_interactions: 3}"
        command = [sys.executable, "-m", "asecalc_mlip.cli", "train", f"data.train={DATA / 'silica_zeo22_train.xyz'}"]
        command += ["data.n_train=25", "data.n_val=5", f"model.architecture={architecture}", "model.prior=none", sizes]
        command += ["loss.energy_per_atom=true", "loss.energy_weight=1", "loss.forces_weight=100", "optimizer.lr=0.002"]
        command += [f"run.seed={seed}", "run.batch_size=4", f"run.max_epochs={epochs}", "run.threads=1"]
        command += ["run.device=cpu", f"run.output={models / name}", f"run.name={name}"]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    known = RUNS / "real-models" / f"{name}.pt"
    if not known.exists():
        known.parent.mkdir(parents=True, exist_ok=True)
        frames = read_frames(DATA / "silica_zeo22_train.xyz")
        split = json.loads((models / name / "split.json").read_text())["train"]
        model, reference = load(path), make_reference([frames[k] for k in split], "25 frames")
        e0 = model.reference_energies
        save(known, model.potential, card=model.card, reference_energies=e0, reference=reference.to_dict())
    return known


def _scaled(name: str, factor: float) -> Path:
    """Write a shipped model with the weights of its network scaled."""
    model = load(f"{name}.pt")
    path = RUNS / "scaled" / f"{name}_{factor}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    for key, value in model.potential.network.named_parameters():
        if value.ndim == 2 and "bond" not in key and "eam" not in key:
            value.data.mul_(factor)
    save(path, model.potential, card=model.card, reference_energies=model.reference_energies)
    return path


def _timed(call: Callable[[], Any], n: int) -> float:
    call()
    times = []
    for _ in range(n):
        begun = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - begun))
    return round(float(np.median(times)), 3)


if __name__ == "__main__":
    main()
