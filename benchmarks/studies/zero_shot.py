"""Published models on data that they have not seen, without training: force errors and mean energy errors.

    python benchmarks/studies/zero_shot.py --models FOLDER --data FOLDER

FOLDER of models holds MatGL's, one folder each, as `asecalc convert matgl` takes them. Writes zero_shot.json into
benchmarks/results; pairs that are there already are skipped. Energies are of other levels of theory, so of them only
the mean error, its spread, and what of it is left after a constant for each element are told. 20 frames of each file,
evenly spread, float64.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from ase import Atoms

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from asecalc_mlip import PIWSLCalculator  # noqa: E402
from asecalc_mlip.checkpoint import LoadedModel  # noqa: E402
from asecalc_mlip.data.error_tables import without_shifts  # noqa: E402
from asecalc_mlip.data.readers import read_frames  # noqa: E402
from asecalc_mlip.files import read_json, write_json  # noqa: E402
from asecalc_mlip.zoo.catalogue import CATALOGUE, Published  # noqa: E402
from asecalc_mlip.zoo.matgl import read_matgl  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "zero_shot.json"
# Every n-th frame; TiO2 has frames far from anything, so only those with forces up to 5 eV/Å are taken.
DATA = {"silica_zeo22_test": None, "limno_electrode_val": None, "tio2_test": 5.0, "rmd17_aspirin_test": None}
MOLECULES = ("3bpa_train_300K", "rmd17_aspirin_test")
FRAMES = 20


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@click.option("--models", type=click.Path(exists=True, path_type=Path), default=ROOT.parent / "shared" / "models")
@click.option("--data", type=click.Path(exists=True, path_type=Path), default=ROOT.parent / "shared" / "data")
def main(models: Path, data: Path) -> None:
    """Measure what is missing and print the table."""
    found: dict[str, Any] = read_json(RESULTS) if RESULTS.exists() else {}
    for model in CATALOGUE:
        for name in MOLECULES if model.elements == "H C N O" else DATA:
            key = f"{model.name} on {name}"
            if key not in found:
                found[key] = measure(model, models, chosen(data / f"{name}.xyz", DATA.get(name)))
                write_json(RESULTS, found)
            row = found[key]
            click.echo(
                f"{key:<45} F {row['forces_mae_meV_per_A']:6.1f} meV/Å; "
                f"E {row['energy_mean_eV_per_atom']:+.3f} eV/atom, "
                f"spread {row['energy_std_meV_per_atom']:.1f} ({row['energy_rest_meV_per_atom']:.1f}) meV/atom"
            )


def chosen(path: Path, largest: float | None) -> list[Atoms]:
    """Frames evenly spread over a file, of those whose forces are not larger than `largest` (eV/Å)."""
    frames = read_frames(path)
    if largest is not None:
        frames = [atoms for atoms in frames if np.abs(atoms.arrays["forces"]).max() <= largest]
    return [frames[k * len(frames) // FRAMES] for k in range(FRAMES)]


def measure(model: Published, folder: Path, frames: Sequence[Atoms]) -> dict[str, float]:
    """Errors of a published model on labelled frames."""
    loaded = LoadedModel(read_matgl(folder / model.folder).potential, {"name": model.name}, Path(f"{model.name}.pt"))
    results = PIWSLCalculator(loaded, dtype="float64", device="cpu").evaluate(frames)
    forces = [np.abs(r["forces"] - atoms.arrays["forces"]) for atoms, r in zip(frames, results, strict=True)]
    energies = [(r["energy"] - atoms.info["energy"]) / len(atoms) for atoms, r in zip(frames, results, strict=True)]
    return {
        "frames": len(frames),
        "forces_mae_meV_per_A": 1e3 * float(np.concatenate(forces).mean()),
        "energy_mean_eV_per_atom": float(np.mean(energies)),
        "energy_std_meV_per_atom": 1e3 * float(np.std(energies)),
        "energy_rest_meV_per_atom": 1e3 * float(np.std(without_shifts(frames, np.array(energies)))),
    }


if __name__ == "__main__":
    main()
