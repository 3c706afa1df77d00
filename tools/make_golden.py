"""Golden model files: one small random model of each architecture, with its energies and forces of two structures.

    python tools/make_golden.py        # after a new architecture, or a new version of the file format

Files are kept for ever as they were written: tests load those of every version and compare. What is there already is
left alone. Folders are named by the version of the format: tests/golden/v1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, molecule

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.analysis import make_reference
from asecalc_mlip.checkpoint import FORMAT_VERSION, save
from asecalc_mlip.files import read_json, write_json
from asecalc_mlip.models import ARCHITECTURES, Potential, build_potential

ROOT = Path(__file__).resolve().parents[1]
E0 = {1: -13.6, 6: -1029.0, 8: -2041.0, 14: -7000.0}
ELEMENTS = ["H", "C", "O", "Si"]
SMALL = {"cutoff": 4.0, "n_features": 16, "n_interactions": 2, "n_rbf": 8}
# Where sizes differ from SMALL, and variants that a file must carry too.
OTHERS: dict[str, dict[str, Any]] = {
    "eam": {"elements": ELEMENTS, "cutoff": 4.5, "n_exponentials": 4, "core": "zbl"},
    "equiformer_v2": {
        **SMALL,
        "n_features": 8,
        "n_interactions": 1,
        "n_heads": 2,
        "n_alpha": 4,
        "n_value": 4,
        "n_hidden": 4,
        "n_feed": 8,
        "n_edge": 4,
        "l_max": 2,
        "m_max": 1,
    },
    "escn": {**SMALL, "n_features": 8, "n_hidden": 8, "n_edge": 8, "l_max": 2, "m_max": 1},
    "sum": {
        "parts": [
            {"architecture": "painn", "hyperparameters": SMALL, "scale": 0.7},
            {"architecture": "zbl", "hyperparameters": {}, "scale": 1.0},
        ]
    },
    "m3gnet": {"cutoff": 4.0, "n_features": 8, "n_hidden": 8, "n_interactions": 2, "three_body_cutoff": 3.5},
    "spinconv": {**SMALL, "n_features": 8, "n_hidden": 4, "n_interactions": 1},
    "tensornet": {**SMALL, "n_features": 8},
    "torchmd_et": {**SMALL, "n_features": 8},
}
VARIANTS = {"painn_direct_forces": ("painn", {**SMALL, "direct_forces": True})}
LARGEST = 60_000  # bytes


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@click.option("--folder", type=click.Path(path_type=Path), default=ROOT / "tests" / "golden", help="Where they stand.")
def main(folder: Path) -> None:
    """Write the files that the present version of the format does not have yet."""
    folder = folder / f"v{FORMAT_VERSION}"
    path = folder / "expected.json"
    start: dict[str, Any] = {"structures": {name: atoms.todict() for name, atoms in structures().items()}, "models": {}}
    content = read_json(path) if path.exists() else start
    for name, (architecture, hyperparameters) in plan().items():
        if name in content["models"]:
            continue
        file = folder / f"{name}.pt"
        write_model(file, random_potential(architecture, hyperparameters))
        content["models"][name] = expected(file, content["structures"])
        click.echo(f"{file.name}: {file.stat().st_size} bytes")
        if file.stat().st_size > LARGEST:
            raise click.ClickException(f"{file} has more than {LARGEST} bytes; give {architecture} smaller sizes")
    write_json(path, content)


def plan() -> dict[str, tuple[str, dict[str, Any]]]:
    """Names of the files with architecture and hyper-parameters."""
    return {name: (name, OTHERS.get(name, SMALL)) for name in sorted(ARCHITECTURES)} | VARIANTS


def structures() -> dict[str, Atoms]:
    """Return a molecule and a crystal whose cell is smaller than the cutoff, both without symmetry."""
    rng = np.random.default_rng(0)
    found = {"molecule": molecule("CH3CH2OH"), "crystal": bulk("SiO", "rocksalt", a=4.4)}
    for atoms in found.values():
        atoms.positions += rng.uniform(-0.15, 0.15, atoms.positions.shape)
    return found


def random_potential(architecture: str, hyperparameters: dict[str, Any]) -> Potential:
    """Random weights, and biases that are not zero, so that every term counts."""
    torch.manual_seed(0)
    potential = build_potential(architecture, hyperparameters, reference_energies=E0, scale=1.3)
    with torch.no_grad():
        for parameter in potential.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return potential.eval().requires_grad_(False)


def write_model(file: Path, potential: Potential) -> None:
    """Return the file with all its optional entries."""
    file.parent.mkdir(parents=True, exist_ok=True)
    card = {"name": f"golden {file.stem}", "licence": "MIT", "training_data": {"file": "none: random weights"}}
    reference = make_reference([structures()["molecule"]] * 3, "one structure").to_dict()
    save(file, potential, card=card, reference_energies={"method": "given"}, reference=reference)


def expected(file: Path, described: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Energy in eV and forces in eV/Å of each structure, in float64."""
    calculator = PIWSLCalculator.load(file, dtype="float64", device="cpu", compile="eager")
    found = {}
    for name, description in described.items():
        atoms = Atoms.fromdict({key: np.array(value) for key, value in description.items()})
        (result,) = calculator.evaluate([atoms])
        found[name] = {"energy": result["energy"], "forces": result["forces"]}
    return found


if __name__ == "__main__":
    main()
