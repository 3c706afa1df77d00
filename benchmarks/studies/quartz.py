"""α-quartz with silica.pt, trained on zeolites only: cell, elastic constants and phonons beside measured ones.

    python benchmarks/studies/quartz.py [--model silica.pt] [--model other.pt]

Writes benchmarks/results/quartz.json, quartz.md and quartz_phonons.png. Measured values, all at room temperature:
cell       Levien, Prewitt, Weidner, Am. Mineral. 65 (1980) 920
elastic    McSkimin, Andreatch, Thurston, J. Appl. Phys. 36 (1965) 1624
phonons    Raman and infrared lines at Γ, transverse where both are known: Scott, Porto, Phys. Rev. 161 (1967) 903
The sign of C14 depends on the axes, so its size is compared.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from ase import Atoms
from ase.spacegroup import crystal

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from asecalc_mlip import PIWSLCalculator  # noqa: E402
from asecalc_mlip.files import write_json  # noqa: E402
from asecalc_mlip.plots.probes import phonon_figure  # noqa: E402
from asecalc_mlip.probes import elastic_constants, phonons, relax  # noqa: E402
from asecalc_mlip.probes.phonons import IMAGINARY_THz  # noqa: E402
from benchmarks.studies.markdown_tables import table as markdown_table  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
INVERSE_CM_PER_THz = 33.35641
CELL = {"a_A": 4.916, "c_A": 5.4054, "Si-O-Si_deg": 143.7}
ELASTIC_GPa = {"C11": 86.80, "C33": 105.75, "C44": 58.20, "C66": 39.88, "C12": 7.04, "C13": 11.91, "|C14|": 18.04}
# Symmetry and cm⁻¹; E modes are twofold. In order of frequency, as the calculated ones are compared.
LINES = {
    "A1": [207.0, 356.0, 464.0, 1082.0],
    "A2": [364.0, 495.0, 778.0, 1080.0],
    "E": [128.0, 265.0, 394.0, 450.0, 697.0, 795.0, 1072.0, 1162.0],
}


@click.command(help=__doc__)
@click.option("--model", "models", multiple=True, default=["silica.pt"], show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, show_default=True)
def main(models: tuple[str, ...], output: Path) -> None:
    """Measure, tabulate and draw."""
    found, drawn = {}, []
    for model in models:
        result, bands = study(PIWSLCalculator.load(model, dtype="float64", device="cpu"))
        found[Path(model).stem] = result
        drawn.append(bands)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "quartz.json", found)
    (output / "quartz.md").write_text(text := table(found))
    phonon_figure(drawn, path=output / "quartz_phonons.png", title="α-quartz")
    click.echo(text)


def quartz() -> Atoms:
    """α-quartz, P3₂21, measured (9 atoms)."""
    basis = [(0.4697, 0.0, 2 / 3), (0.4135, 0.2669, 0.1191 + 2 / 3)]
    atoms = crystal(("Si", "O"), basis, spacegroup=154, cellpar=[CELL["a_A"], CELL["a_A"], CELL["c_A"], 90, 90, 120])
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)


def study(calc: Any) -> tuple[dict[str, Any], Any]:
    """Numbers of one model, and its phonons."""
    start = time.perf_counter()
    relaxed = relax(quartz(), calc, fmax_eV_per_A=1e-4, cell="full", keep_symmetry=True)
    atoms = relaxed.atoms
    elastic = elastic_constants(atoms, calc)
    c = elastic.constants_GPa
    # α-quartz has 32: the two equal ones of each pair are averaged.
    constants = {
        "C11": (c[0, 0] + c[1, 1]) / 2,
        "C33": c[2, 2],
        "C44": (c[3, 3] + c[4, 4]) / 2,
        "C66": c[5, 5],
        "C12": c[0, 1],
        "C13": (c[0, 2] + c[1, 2]) / 2,
        "|C14|": abs(c[0, 3]),
    }
    # Three layers of 5 Å reach 15 Å: forces of a displaced atom end within half of this cell, not of the default one.
    bands = phonons(atoms, calc, relax_first=False, supercell=(5, 5, 5))
    modes = gamma_modes(bands)
    return {
        "a_A": float(atoms.cell.lengths()[0]),
        "c_A": float(atoms.cell.lengths()[2]),
        "Si-O-Si_deg": float(np.mean(_bridges(atoms))),
        "converged": relaxed.converged,
        "max_force_eV_per_A": relaxed.max_force_eV_per_A,
        "elastic_GPa": {name: float(value) for name, value in constants.items()},
        "bulk_modulus_GPa": elastic.bulk_modulus_GPa,
        "shear_modulus_GPa": elastic.shear_modulus_GPa,
        "mechanically_stable": elastic.stable,
        "gamma_inverse_cm": modes,
        "lowest_THz": bands.lowest_THz,
        "lowest_at": bands.lowest_at,
        "imaginary_percent": bands.imaginary_percent,
        "supercell": list(bands.supercell),
        "spacegroup": bands.spacegroup,
        "seconds": round(time.perf_counter() - start, 1),
    }, bands


def gamma_modes(bands: Any) -> dict[str, list[float]]:
    """Optical frequencies at Γ by symmetry, cm⁻¹, ascending; of a twofold one once."""
    irreps = bands.phonopy.run_irreps([0.0, 0.0, 0.0], degeneracy_tolerance=1e-3)
    modes: dict[str, list[float]] = {name: [] for name in LINES}
    for members, characters in zip(irreps.band_indices, irreps.characters.real, strict=True):
        if abs(irreps.frequencies[members[0]]) < IMAGINARY_THz:  # acoustic
            continue
        # Of the point group 32: the twofold axes change the sign of A2.
        name = "E" if len(members) == 2 else "A1" if characters.min() > 0.5 else "A2"
        modes[name].append(float(irreps.frequencies[members[0]]) * INVERSE_CM_PER_THz)
    return {name: sorted(values) for name, values in modes.items()}


def table(found: dict[str, Any]) -> str:
    """Markdown."""
    names = list(found)
    rows = []
    for name, measured in CELL.items():
        label = name.replace("_A", ", Å").replace("_deg", ", °")
        rows.append(_row(label, measured, [found[n][name] for n in names], 3))
    for name, measured in ELASTIC_GPa.items():
        values = [found[n]["elastic_GPa"][name] for n in names]
        rows.append(_row(f"{name.replace('|', '&#124;')}, GPa", measured, values, 1))
    for symmetry, measured_lines in LINES.items():
        for k, measured in enumerate(measured_lines):
            # A model in which quartz turns into something of other symmetry has other numbers of modes.
            modes = [found[n]["gamma_inverse_cm"][symmetry] for n in names]
            values = [found_modes[k] if len(found_modes) == len(measured_lines) else None for found_modes in modes]
            rows.append(_row(f"{symmetry}({k + 1}), cm⁻¹", measured, values, 0))
    lowest = [f"{found[n]['lowest_THz']:.2f} THz at {found[n]['lowest_at']}" for n in names]
    rows.append(["lowest phonon", "", *lowest])
    return "\n".join(markdown_table(["", "measured", *names], rows)) + "\n"


def _row(name: str, measured: float, values: Sequence[float | None], digits: int) -> list[str]:
    cells = ["" if v is None else f"{v:.{digits}f} ({100 * (v / measured - 1):+.1f} %)" for v in values]
    return [name, f"{measured:.{digits}f}", *cells]


def _bridges(atoms: Atoms) -> list[float]:
    distances = atoms.get_all_distances(mic=True)
    silicon = np.flatnonzero(atoms.numbers == 14)
    nearest = {o: silicon[np.argsort(distances[o, silicon])[:2]] for o in np.flatnonzero(atoms.numbers == 8)}
    return [float(atoms.get_angle(a, o, b, mic=True)) for o, (a, b) in nearest.items()]


if __name__ == "__main__":
    main()
