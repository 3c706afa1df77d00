"""How wrong is the curvature of teachers and models? Their Hessian-vector products against those of a better model.

    python benchmarks/studies/curvature.py [FILE.pt...]  # teachers and models, into benchmarks/results/curvature.json

Test frames of aspirin (rMD17) are displaced along random directions d, each component uniform within ±0.05 Å. The
change of the forces from r - d to r + d is compared with that of the shipped aspirin.pt, which learned 950 frames, by
the root mean square over all components. Numbers that are there are not computed again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import numpy as np
from ase import Atoms

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from asecalc_mlip.data.readers import read_frames  # noqa: E402
from asecalc_mlip.files import write_text  # noqa: E402
from asecalc_mlip.teachers import Labels, Teacher, open_teacher  # noqa: E402
from asecalc_mlip.teachers.bare import bare  # noqa: E402
from benchmarks.studies.grid import add_result, load_results  # noqa: E402
from benchmarks.studies.markdown_tables import table  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "curvature.json"
TEST = ROOT.parent / "shared" / "data" / "rmd17_aspirin_test.xyz"
REFERENCE, TEACHERS = "aspirin.pt", ("xtb", "TensorNet-ANI-1x", "TensorNet-MatPES-PBE")
FRAMES, EPSILON, SEED = 50, 0.05, 0


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@click.argument("models", nargs=-1, type=click.Path(exists=True))
def main(models: tuple[str, ...]) -> None:
    """Compare what is not in the results yet."""
    done = load_results(RESULTS)
    frames = [bare(atoms) for atoms in read_frames(TEST)[:: max(1, 1000 // FRAMES)][:FRAMES]]
    rng = np.random.default_rng(SEED)
    shifts = [rng.uniform(-EPSILON, EPSILON, (len(atoms), 3)) for atoms in frames]
    reference = None
    names = {name: name for name in TEACHERS} | {_name(Path(model)): model for model in models}
    for name, source in names.items():
        if name not in done:
            reference = changes(open_teacher(REFERENCE), frames, shifts) if reference is None else reference
            error = changes(open_teacher(source), frames, shifts) - reference
            share = float(np.sqrt((error**2).mean() / (reference**2).mean()))
            settings = {"reference": REFERENCE, "frames": FRAMES, "epsilon": EPSILON, "seed": SEED}
            add_result(RESULTS, name, {"relative_rmse": round(share, 4), **settings})
        click.echo(f"{name}: {100 * load_results(RESULTS)[name]['relative_rmse']:.1f} %")
    found = sorted(load_results(RESULTS).items(), key=lambda pair: -pair[1]["relative_rmse"])
    cells = [[name.replace("_", " "), f"{100 * row['relative_rmse']:.1f} %"] for name, row in found]
    write_text(RESULTS.with_suffix(".md"), "\n".join(table(["teacher, or training of a study", "error"], cells)) + "\n")


def changes(teacher: Teacher, frames: list[Atoms], shifts: list[np.ndarray]) -> np.ndarray:
    """Return the change of all forces from r − d to r + d, eV/Å."""
    sides = []
    for sign in (-1, 1):
        moved = [atoms.copy() for atoms in frames]
        for atoms, shift in zip(moved, shifts, strict=True):
            atoms.positions += sign * shift
        labels = [one for one in teacher.label(moved) if isinstance(one, Labels)]
        sides.append(np.concatenate([one.forces for one in labels]))
    return sides[1] - sides[0]


def _name(path: Path) -> str:
    """Return the name of a model: that of its file, or of its folder below runs/ as the studies name those."""
    parts = path.resolve().parts
    if path.name != "model.pt" or "runs" not in parts:
        return path.name
    return "/".join(parts[len(parts) - parts[::-1].index("runs") : -1])


if __name__ == "__main__":
    main()
