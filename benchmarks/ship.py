"""Put a trained molecule into the zoo: the .pt file, a relaxed start geometry, and the reference of its training data.

    python benchmarks/ship.py runs/aspirin ../shared/data/rmd17_aspirin_train.xyz

The geometry is relaxed with the model itself (0.001 eV/Å); the reference (mean bond lengths, h(r)) is taken over the
training frames of the run, so no frame of the data is shipped.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click
from ase import Atoms
from ase.io import write
from ase.optimize import BFGS

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.analysis import MoleculeReference
from asecalc_mlip.checkpoint import ZOO
from training.readers import read_frames


@click.command(help=__doc__)
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.argument("data", type=click.Path(exists=True))
def main(run: Path, data: str) -> None:
    """Copy, relax, and derive the reference."""
    (model,) = run.glob("*.pt")
    frames = read_frames(data)
    training = [frames[i] for i in json.loads((run / "split.json").read_text())["train"]]
    calculator = PIWSLCalculator.load(model, dtype="float64")
    start = _relaxed(training[0], calculator)
    source = f"{calculator.card['source']}; {calculator.card['level_of_theory']}; {len(training)} training frames"
    shutil.copy(model, ZOO / model.name)
    write(ZOO / f"{model.stem}.xyz", start, comment=f"relaxed with {model.name}, fmax 0.001 eV/Å", format="xyz")
    MoleculeReference.from_frames(training, source).save(ZOO / f"{model.stem}.reference.json")
    click.echo(f"{model.name}, {model.stem}.xyz and {model.stem}.reference.json are in {ZOO}")


def _relaxed(frame: Atoms, calculator: PIWSLCalculator) -> Atoms:
    atoms = Atoms(frame.numbers, frame.positions, calculator=calculator)
    if not BFGS(atoms, logfile=None).run(fmax=0.001, steps=2000):
        raise click.ClickException("the relaxation did not reach 0.001 eV/Å in 2000 steps: do not ship this model")
    atoms.positions -= atoms.get_center_of_mass()
    return atoms


if __name__ == "__main__":
    main()
