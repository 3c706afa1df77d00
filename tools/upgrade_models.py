"""Write model files again in the present version of the format; weights, metadata and numbers stay the same.

python tools/upgrade_models.py asecalc_mlip/zoo/*.pt
"""

from __future__ import annotations

from pathlib import Path

import click
import torch

from asecalc_mlip.checkpoint import FORMAT_VERSION, load, save


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(files: tuple[Path, ...]) -> None:
    """Write each file in place, and compare."""
    for file in files:
        before = load(file)
        save(
            file,
            before.potential,
            card=before.card,
            reference_energies=before.reference_energies,
            reference=before.reference,
        )
        after = load(file)
        state = after.potential.state_dict()
        equal = all(torch.equal(value, state[name]) for name, value in before.potential.state_dict().items())
        if not equal or (before.card, before.reference) != (after.card, after.reference):
            raise click.ClickException(f"{file} did not come back as it was: restore it from a copy")
        click.echo(f"{file}: version {FORMAT_VERSION}, SHA-256 of the content {after.checksum}")


if __name__ == "__main__":
    main()
