"""Phonons of a crystal: band structure, density of states, thermal properties. Needs phonopy.

python md_protocols/phonons.py silica.pt quartz.cif      # prints a table and draws phonons.png

`asecalc phonons` does the same with options. `asecalc vibrations` is for molecules.
"""

import sys

from asecalc_mlip.calculators.loading import load_calculator, load_structure
from asecalc_mlip.plots.probes import phonon_figure
from asecalc_mlip.probes import phonons, relax


def main(model: str = "silica.pt", structure: str | None = None) -> None:
    """Relax cell and atoms until the forces are tiny, displace each atom, and sum over the Brillouin zone."""
    calculator = load_calculator(model, dtype="float64")
    crystal = load_structure(model, structure)
    relaxed = relax(crystal, calculator, fmax_eV_per_A=1e-4, cell="full")
    print(relaxed)
    result = phonons(relaxed.atoms, calculator, relax_first=False)
    print(result)
    phonon_figure([result], path="phonons.png", title=result.primitive.get_chemical_formula())


if __name__ == "__main__":
    main(*sys.argv[1:])
