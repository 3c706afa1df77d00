"""Put the reference that lies beside a shipped model into its .pt file, so that it travels with it.

    python tools/embed_reference.py aspirin ethanol
    python tools/embed_reference.py silica --data ../shared/data/silica_zeo22_train.xyz
    python tools/embed_reference.py silica_eam --reference silica

With --data, first shells, composition and density of a periodic reference are measured anew on these frames; g(r), the
closest approaches and the temperatures stay. With --reference, only the closest approaches are taken.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from asecalc_mlip.analysis import ContactReference, PeriodicReference, Reference, load_reference
from asecalc_mlip.analysis.periodic import composition_of, density_of
from asecalc_mlip.analysis.shells import shells_of
from asecalc_mlip.checkpoint import load, save
from asecalc_mlip.data.readers import read_frames
from asecalc_mlip.zoo import FOLDER as ZOO


@click.command(help=__doc__)
@click.argument("names", nargs=-1, required=True)
@click.option("--data", type=click.Path(exists=True), help="Frames of a periodic reference.")
@click.option("--reference", "source", help="Name of the model whose reference is taken; default: its own.")
def main(names: tuple[str, ...], data: str | None, source: str | None) -> None:
    """Rewrite each file with its reference."""
    for name in names:
        path = ZOO / f"{source or name}.reference.json"
        reference: Reference = load_reference(path)
        if data is not None and isinstance(reference, PeriodicReference):
            reference = _measured(reference, data)
            reference.save(path)
            reference = load_reference(path)  # to the digits of the file
        if source is not None:
            reference = ContactReference.of(reference)
        model = load(ZOO / f"{name}.pt")
        e0 = model.reference_energies
        save(model.path, model.potential, card=model.card, reference_energies=e0, reference=reference.to_dict())
        click.echo(f"{name}.pt has {reference!r}")


def _measured(reference: PeriodicReference, data: str) -> PeriodicReference:
    frames = read_frames(Path(data))
    formulas, densities = {composition_of(atoms) for atoms in frames}, [density_of(atoms) for atoms in frames]
    return replace(
        reference,
        shells=shells_of(frames, reference.rdfs),
        composition=formulas.pop() if len(formulas) == 1 else None,
        density=(min(densities), max(densities)),
    )


if __name__ == "__main__":
    main()
