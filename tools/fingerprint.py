"""Numbers that a change of the house must not change, as hashes: energies and forces, a training, runs, a campaign.

    python tools/fingerprint.py before.json        # then change the code
    python tools/fingerprint.py after.json --against before.json

Every setting is written out, so that new defaults do not count as a difference. One thread, seeds fixed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np

from asecalc_mlip.files import write_json

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("aspirin", "aspirin_painn", "ethanol", "silica", "silica_eam")
TRAINING = {
    "data.n_train": 40,
    "data.n_val": 10,
    "model.architecture": "painn",
    "model.hyperparameters": "{cutoff: 5.0, n_features: 32, n_interactions: 2, n_rbf: 20, radial_basis: gaussian}",
    "loss.energy_weight": 1.0,
    "loss.forces_weight": 100.0,
    "optimizer.lr": 0.001,
    "optimizer.schedule": "plateau",
    "run.batch_size": 10,
    "run.steps_per_epoch": 10,
    "run.max_epochs": 5,
    "run.device": "cpu",
    "run.threads": 1,
    "run.progress": "false",
}
PIWSL = {"weak.method": "piwsl", "weak.order": "antithetic", "weak.pitc": 1.0, "weak.pisc": 0.01}


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--against", type=click.Path(exists=True, path_type=Path), help="File of an earlier call.")
@click.option("--extra", multiple=True, metavar="KEY=VALUE", help="Settings of the trainings beside those above.")
def main(output: Path, against: Path | None, extra: tuple[str, ...]) -> None:
    """Compute all fingerprints, write them, and exit with 1 where they differ from those of an earlier call."""
    found = {**energies()}
    with tempfile.TemporaryDirectory() as folder:
        found |= training(Path(folder), extra)
        found |= dynamics(Path(folder))
    write_json(output, found)
    if against is not None:
        before = json.loads(against.read_text())
        differ = [name for name in before if before[name] != found.get(name)]
        print(f"{len(before) - len(differ)} of {len(before)} as before" + "".join(f"\n  differs: {n}" for n in differ))
        sys.exit(bool(differ))


def energies() -> dict[str, str]:
    """Energies and forces of the shipped models, both precisions, by the engine of "auto" and eagerly."""
    import torch

    from asecalc_mlip import PIWSLCalculator
    from asecalc_mlip.checkpoint import load
    from asecalc_mlip.files import read_structure

    torch.set_num_threads(1)
    found = {}
    for name in MODELS:
        start = read_structure(ROOT / "asecalc_mlip" / "zoo" / f"{name.partition('_')[0]}.xyz")
        for dtype in ("float32", "float64"):
            for compile in ("auto", "eager"):
                atoms = start.copy()
                atoms.rattle(0.05, seed=1)
                atoms.calc = PIWSLCalculator(load(f"{name}.pt"), dtype=dtype, compile=compile, device="cpu")
                values = [np.array([atoms.get_potential_energy()]), atoms.get_forces()]
                found[f"{name} {dtype} {compile}"] = _digest(*(v.tobytes() for v in values))
    return found


def training(folder: Path, extra: tuple[str, ...]) -> dict[str, str]:
    """Weights after 50 steps, plain and with weak supervision, on the first frames of rMD17 aspirin."""
    import torch

    data = Path(os.environ.get("ASECALC_DATA", ROOT.parent / "shared" / "data")) / "rmd17_aspirin_train.xyz"
    found = {}
    for name, more in (("plain", {}), ("piwsl", PIWSL)):
        run = folder / f"train-{name}"
        settings = [f"{k}={v}" for k, v in {**TRAINING, **more}.items()]
        _asecalc("train", f"data.train={data}", f"run.output={run}", *settings, *extra)
        content = torch.load(next(run.glob("*.pt")), weights_only=True)
        weights = [value.numpy().tobytes() for _, value in sorted(content["state_dict"].items())]
        log = (run / "log.csv").read_text() if (run / "log.csv").exists() else ""
        found[f"training {name}"] = _digest(*weights)
        found[f"training {name}, log"] = _digest(_without_times(log).encode())
    return found


def dynamics(folder: Path) -> dict[str, str]:
    """Trajectories and logs of 1000 steps of NVT by each thermostat, 200 of NVE and NPT, and a campaign of 4."""
    runs = {
        **{f"nvt {t}": ("nvt", "--thermostat", t, "--steps", "1000") for t in ("langevin", "nose-hoover", "bussi")},
        "nve": ("nve", "--steps", "200"),
        "anneal": ("anneal", "--steps", "200"),
        "npt": ("npt", "--model", "silica.pt", "--steps", "100", "--temperature", "600"),
    }
    found = {}
    for name, (command, *options) in runs.items():
        run = folder / name.replace(" ", "-")
        _asecalc(command, *options, "--seed", "1", "--device", "cpu", "--output", str(run))
        found[name] = _digest(*((run / f).read_bytes() for f in ("trajectory.extxyz", "log.csv")))
    run = folder / "campaign"
    campaign = ("--seeds", "2", "--temperature", "300", "--temperature", "500", "--steps", "200", "--device", "cpu")
    _asecalc("campaign", *campaign, "--output", str(run))
    files = sorted(run.rglob("trajectory.extxyz")) + sorted(run.rglob("log.csv"))
    found["campaign of 4"] = _digest(*(file.read_bytes() for file in files))
    return found


def _asecalc(*arguments: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "asecalc_mlip.cli", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1):  # 1: a run that ended unstable
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")


def _without_times(log: str) -> str:
    """Return the log without the column of seconds."""
    rows = [line.split(",") for line in log.splitlines()]
    drop = {i for i, name in enumerate(rows[0]) if "second" in name or "time" in name} if rows else set()
    return "\n".join(",".join(v for i, v in enumerate(row) if i not in drop) for row in rows)


def _digest(*parts: bytes) -> str:
    from asecalc_mlip.digests import digest_of

    return digest_of(parts)[:16]


if __name__ == "__main__":
    main()
