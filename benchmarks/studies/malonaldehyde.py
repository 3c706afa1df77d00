"""Does a model of CCSD(T) energies know the proton transfer of malonaldehyde, and does it run?

    python benchmarks/studies/malonaldehyde.py [--model malonaldehyde.pt]
    python benchmarks/studies/malonaldehyde.py --beside "random weights" runs/malonaldehyde_plain/malonaldehyde.pt
    python benchmarks/studies/malonaldehyde.py --figure

The second command adds errors and barrier of another model to the result, the third draws the result.

- Errors on the 400 test frames, by their energy above the minimum: the frames reach 5 eV.
- Barrier of the proton transfer between the two oxygens: the top of a climbing-image nudged elastic band between the
  minimum and its mirror image. The surface that the data are of has 4.1 kcal/mol = 0.178 eV (Wang et al. 2008).
- Roughness (`displacement_scan`): the largest second difference of the force along one random line from the minimum and
  from each of the four lowest test frames, in steps of 0.005 Å; GFN2-xTB along the same lines.
- Dynamics: Nosé-Hoover, 0.5 fs, three runs of 300 ps at 500 K and of 50 ps at 1000 K, judged by the monitor.

Runs go to runs/malonaldehyde-md and go on where they were interrupted. Result: benchmarks/results/malonaldehyde.json.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
from ase import Atoms
from ase.mep import NEB
from ase.optimize import BFGS
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from asecalc_mlip import PIWSLCalculator, zoo  # noqa: E402
from asecalc_mlip.data.readers import read_frames  # noqa: E402
from asecalc_mlip.files import save_figure, write_json  # noqa: E402
from asecalc_mlip.plots.style import COLOURS, INK, LEGEND, new_figure, tidy  # noqa: E402
from asecalc_mlip.probes import displacement_scan  # noqa: E402
from benchmarks.studies.campaigns import run_campaign  # noqa: E402
from benchmarks.studies.grid import load_results  # noqa: E402

DATA = ROOT.parent / "shared" / "data" / "qm22_malonaldehyde_ccsdt_energies_train.xyz"
RESULT = ROOT / "benchmarks" / "results" / "malonaldehyde.json"
PICOSECONDS = {500: 300, 1000: 50}
STEPS_PER_PS = 2000
IMAGES, FMAX = 9, 0.005
# Of the recipe: training and validation frames, and the seed of their choice.
SPLIT = (1500, 100, 0)
RANGES_EV = ((0, 1), (1, 2), (2, 3), (3, 6))
KCAL_PER_EV = 23.0605
LARGEST_SHIFT_EV = 1.0
LINES, LENGTHS_A, STEP_A = 4, (0.1, 0.2, 0.3), 0.005


@click.command(help=__doc__)
@click.option("--model", default="malonaldehyde.pt", show_default=True)
@click.option("--beside", type=(str, click.Path(exists=True, path_type=Path)), help="Name and file of another model.")
@click.option("--figure", "only_figure", is_flag=True, help="Draw what was measured.")
def main(model: str, beside: tuple[str, Path] | None, only_figure: bool) -> None:
    """Measure errors and barrier, and run the dynamics that are missing."""
    path = zoo.find(model)
    result: dict[str, Any] = dict(load_results(RESULT))
    if only_figure:
        save_figure(figure(result), RESULT.with_suffix(".png"))
        return
    if beside is not None:
        name, other = beside
        result.setdefault("beside", {})[name] = {**barrier(other), "test_energy_mae": errors(other)}
        click.echo(f"{name}: {result['beside'][name]}")
        write_json(RESULT, result)
        return
    result |= {"model": Path(model).name, **barrier(path), "test_energy_mae": errors(path)}
    result["roughness_eV_per_A"] = roughness(path)
    click.echo(f"roughness {result['roughness_eV_per_A']}")
    click.echo(f"barrier {result['barrier_eV']:.4f} eV = {result['barrier_kcal_per_mol']:.2f} kcal/mol")
    write_json(RESULT, result)
    for temperature, length in PICOSECONDS.items():
        arguments = ["--model", str(path), "--seeds", "0,1,2", "--protocol", "md17"]
        arguments += ["--structure", str(path.with_suffix(".xyz")), "--temperature", str(temperature)]
        arguments += ["--steps", str(length * STEPS_PER_PS)]
        names = ("runs", "stable", "failures", "temperature_mean_K", "ms_per_replica_step")
        found = run_campaign(ROOT / "runs" / "malonaldehyde-md" / path.stem / f"{temperature} K", arguments, names)
        click.echo(f"{temperature} K: {found}")
        if "failed" not in found:
            result[f"{temperature} K"] = found
            write_json(RESULT, result)


def held_back() -> list[Atoms]:
    """Return the frames that the recipe leaves for testing."""
    from training.data.split import make_split

    frames = read_frames(DATA)
    n_train, n_val, seed = SPLIT
    return [frames[index] for index in make_split(len(frames), n_train, n_val, seed=seed).test]


def roughness(model: Path) -> dict[str, dict[str, float]]:
    """Return the roughness of the model and of GFN2-xTB, eV/Å, by the length of the lines, Å."""
    from asecalc_mlip.data.xtb import XtbSettings, xtb_calculator

    lowest = sorted(held_back(), key=lambda atoms: atoms.info["energy"])[:LINES]
    starts = [Atoms(atoms.numbers, atoms.positions) for atoms in (zoo.structure("malonaldehyde"), *lowest)]
    calculators = {
        "model": PIWSLCalculator.load(str(model), device="cpu", dtype="float64"),
        "GFN2-xTB": xtb_calculator(XtbSettings()),
    }
    found: dict[str, dict[str, float]] = {}
    for length in LENGTHS_A:
        points = round(length / STEP_A) + 1
        reports = {
            name: displacement_scan(starts, calc, length_A=length, points=points) for name, calc in calculators.items()
        }
        found[f"{length:g}"] = {name: round(float(max(r.roughness_eV_per_A)), 3) for name, r in reports.items()}
    return found


def errors(model: Path) -> list[dict[str, Any]]:
    """Return the mean absolute error of the test frames in ranges of their energy above the minimum."""
    calculator = PIWSLCalculator.load(str(model), device="cpu")
    found = []
    for frame in held_back():
        atoms = Atoms(frame.numbers, frame.positions, calculator=calculator)
        found.append((frame.info["energy"], atoms.get_potential_energy()))
    labels, energies = np.array(found).T
    shift = float(np.median(energies - labels))
    # A model of another level of theory has another zero.
    energies -= shift if abs(shift) > LARGEST_SHIFT_EV else 0.0
    rows = []
    for low, high in (*RANGES_EV, (RANGES_EV[0][0], RANGES_EV[-1][1])):
        inside = (labels >= low) & (labels < high)
        mae = float(np.abs(energies - labels)[inside].mean())
        rows.append({"from_eV": low, "to_eV": high, "frames": int(inside.sum()), "mae_meV": round(1000 * mae, 1)})
    return rows


def barrier(model: Path) -> dict[str, Any]:
    """Return the height of the proton transfer, the O-O distances and where the proton is at its ends and its top."""
    calculator = PIWSLCalculator.load(str(model), device="cpu", dtype="float64")
    start = zoo.structure("malonaldehyde")
    start.calc = calculator
    BFGS(start, logfile=None).run(fmax=FMAX, steps=500)
    end = mirror_image(start)
    band = [start, *[start.copy() for _ in range(IMAGES - 2)], end]
    for image in band:
        image.calc = calculator
    chain = NEB(
        band, climb=True, method="improvedtangent", allow_shared_calculator=True, remove_rotation_and_translation=True
    )
    chain.interpolate(method="idpp")
    converged = BFGS(cast(Any, chain), logfile=None).run(fmax=FMAX, steps=500)
    energies = [image.get_potential_energy() for image in band]
    top = int(np.argmax(energies))
    height = energies[top] - energies[0]
    return {
        "barrier_eV": round(height, 5),
        "barrier_kcal_per_mol": round(height * KCAL_PER_EV, 3),
        "converged": bool(converged),
        "minimum_A": _bridge(start),
        "top_A": _bridge(band[top]),
        "published_barrier_kcal_per_mol": 4.1,
        "path": [[round(_transfer(image), 3), round(energy - energies[0], 5)]
                 for image, energy in zip(band, energies, strict=True)],
    }  # fmt: skip


def figure(result: dict[str, Any]) -> Figure:
    """Draw the energy along the transfer, and the errors by the energy of the frames, of all models."""
    made = new_figure(9.5, 4.0, "Malonaldehyde by CCSD(T)")
    left, right = made.subplots(1, 2)
    models = {result["model"]: result, **result["beside"]}
    for (name, found), colour, marker in zip(models.items(), COLOURS, "os^vD", strict=False):
        if "path" in found:
            x, energies = np.array(found["path"]).T
            left.plot(x, KCAL_PER_EV * energies, "-", marker=marker, ms=4, color=colour)
        ranges = found["test_energy_mae"][: len(RANGES_EV)]
        right.plot(range(len(ranges)), [one["mae_meV"] for one in ranges], "-", marker=marker, color=colour, label=name)
    level = result["published_barrier_kcal_per_mol"]
    left.axhline(level, color=INK, lw=1.0, ls="--")
    left.text(0.02, level, "published barrier", transform=left.get_yaxis_transform(), va="bottom", fontsize=9)
    left.set(title="transfer of the proton", xlabel="d(O–H) − d(H···O′) (Å)", ylabel="energy (kcal/mol)")
    right.set(title="test frames", xlabel="energy above the minimum (eV)", ylabel="mean absolute error (meV)")
    right.set_xticks(range(len(RANGES_EV)), [f"{low} to {high}" for low, high in RANGES_EV])
    right.set_ylim(0)
    right.legend(**LEGEND)
    tidy(left, right)
    return made


def mirror_image(atoms: Atoms) -> Atoms:
    """Return the molecule after the transfer: each atom where the mirror image of its partner is.

    The mirror is normal to O-O and halves it; partners are the atoms that are nearest to the places where the mirror
    takes the others, by least squares of all assignments.
    """
    oxygens = np.flatnonzero(atoms.numbers == 8)
    normal = atoms.positions[oxygens[1]] - atoms.positions[oxygens[0]]
    normal /= np.linalg.norm(normal)
    middle = atoms.positions[oxygens].mean(0)
    mirrored = atoms.positions - 2.0 * np.outer((atoms.positions - middle) @ normal, normal)
    moved = atoms.copy()
    for number in np.unique(atoms.numbers):
        same = np.flatnonzero(atoms.numbers == number)
        distances = np.linalg.norm(atoms.positions[same][:, None] - mirrored[same][None], axis=-1)
        moved.positions[same] = mirrored[same[linear_sum_assignment(distances**2)[1]]]
    return moved


def _bridge(atoms: Atoms) -> dict[str, float]:
    oxygens, proton = _hydrogen_bond(atoms)
    near, far = sorted(atoms.get_distances(proton, oxygens))
    return {name: round(float(value), 3) for name, value in
            (("O-O", atoms.get_distance(*oxygens)), ("O-H", near), ("H...O", far))}  # fmt: skip


def _transfer(atoms: Atoms) -> float:
    """Return the distance of the proton from the first oxygen less that from the second, Å."""
    oxygens, proton = _hydrogen_bond(atoms)
    first, second = atoms.get_distances(proton, oxygens)
    return float(first - second)


def _hydrogen_bond(atoms: Atoms) -> tuple[np.ndarray, int]:
    """Return the oxygens and the hydrogen between them."""
    oxygens = np.flatnonzero(atoms.numbers == 8)
    hydrogens = np.flatnonzero(atoms.numbers == 1)
    reach = atoms.get_all_distances()[np.ix_(oxygens, hydrogens)]
    return oxygens, int(hydrogens[reach.sum(0).argmin()])


if __name__ == "__main__":
    main()
