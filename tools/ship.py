"""Put a trained model into the zoo: the .pt file, a relaxed start geometry, and the reference of its training data.

    python tools/ship.py runs/aspirin ../shared/data/rmd17_aspirin_train.xyz
    python tools/ship.py runs/silica ../shared/data/silica_zeo22_train.xyz --group-by topology --start sod \
        --protocol eam-silica --temperature 2000 --range 298 1000

The geometry is relaxed with the model itself (0.001 eV/Å, in the cell of the data); the reference (mean bond lengths
and h(r) of a molecule, g(r) of a crystal) is taken over the training frames, so no frame of the data is shipped. A
model without a ZBL core gets one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from ase import Atoms
from ase.io import write
from ase.optimize import BFGS

from asecalc_mlip import PIWSLCalculator
from asecalc_mlip.additions.core import add_core
from asecalc_mlip.analysis import Reference, make_reference
from asecalc_mlip.checkpoint import load, save
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.models import has_core
from asecalc_mlip.zoo import FOLDER as ZOO


@click.command(help=__doc__)
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.argument("data", type=click.Path(exists=True))
@click.option("--group-by", help="Entry of `info` that names the kind of a crystal.")
@click.option("--start", help="Kind of crystal to start from; default: that of the first frame.")
@click.option("--protocol", help="Of runs of a crystal.")
@click.option("--temperature", "temperature_K", type=float, help="Of runs of a crystal, K.")
@click.option("--range", "temperatures_K", type=(float, float), help="Lowest and highest temperature of the data, K.")
def main(run: Path, data: str, group_by: str | None, start: str | None, **options: Any) -> None:
    """Copy, relax, and derive the reference."""
    (model,) = run.glob("*.pt")
    frames = read_frames(data)
    training = [frames[i] for i in json.loads((run / "split.json").read_text())["train"]]
    calculator = PIWSLCalculator.load(model, dtype="float64")
    if start is not None and group_by is None:
        raise click.UsageError("--start names a kind of --group-by: give both")
    source = f"{calculator.card['source']}; {calculator.card['level_of_theory']}; {len(training)} training frames"
    if training[0].pbc.all():
        # The data are colder than the dynamics: peaks of a sound crystal broaden by more than the limit of a solid.
        options["kind"] = "liquid"
    reference = make_reference(training, source, group_by=group_by, most=None, **options)
    info = {} if group_by is None else {group_by: start or training[0].info[group_by]}
    candidates = [atoms for atoms in training if info.items() <= atoms.info.items()]
    if not candidates:
        kinds = ", ".join(sorted({str(atoms.info.get(group_by)) for atoms in training}))
        raise click.UsageError(f"no training frame has {group_by} {start!r}; there are {kinds}")
    relaxed = _relaxed(candidates[0], calculator)
    relaxed.calc = None
    relaxed.info = {**info, "comment": f"relaxed with {model.name}, fmax 0.001 eV/Å"}
    _ship(model, training, reference)
    if relaxed.pbc.any():
        write(ZOO / f"{model.stem}.xyz", relaxed, format="extxyz", columns=["symbols", "positions"])
    else:
        write(ZOO / f"{model.stem}.xyz", relaxed, comment=relaxed.info["comment"], format="xyz")
    reference.save(ZOO / f"{model.stem}.reference.json")
    click.echo(f"{model.name}, {model.stem}.xyz and {model.stem}.reference.json are in {ZOO}")


def _ship(path: Path, training: list[Atoms], reference: Reference) -> None:
    """Copy a model with its reference, and with a core if it has none."""
    model = load(path)
    if not has_core(model.potential):
        model, check = add_core(model, training)
        click.echo(f"core added; it {check}")
    e0 = model.reference_energies
    save(ZOO / path.name, model.potential, card=model.card, reference_energies=e0, reference=reference.to_dict())


def _relaxed(frame: Atoms, calculator: PIWSLCalculator) -> Atoms:
    atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc, calculator=calculator)
    if not BFGS(atoms, logfile=None).run(fmax=0.001, steps=2000):
        raise click.ClickException("the relaxation did not reach 0.001 eV/Å in 2000 steps: do not ship this model")
    if not atoms.pbc.any():
        atoms.positions -= atoms.get_center_of_mass()
    return atoms


if __name__ == "__main__":
    main()
