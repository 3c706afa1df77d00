"""Relax a structure, and its cell where it is a crystal.

python md_protocols/relax.py aspirin.pt                  # the structure that comes with the model
python md_protocols/relax.py silica.pt quartz.cif        # writes relaxed.xyz

`asecalc relax` does the same with options.
"""

import sys

from asecalc_mlip.calculators.loading import load_calculator, load_structure
from asecalc_mlip.probes import relax


def main(model: str = "aspirin.pt", structure: str | None = None) -> None:
    """Relax to forces below 0.001 eV/Å, in float64, and write the structure."""
    calculator = load_calculator(model, dtype="float64")
    atoms = load_structure(model, structure)
    result = relax(atoms, calculator, fmax_eV_per_A=1e-3, cell="full" if atoms.pbc.all() else "fixed")
    print(result)
    if result.converged:
        result.atoms.write("relaxed.xyz")


if __name__ == "__main__":
    main(*sys.argv[1:])
