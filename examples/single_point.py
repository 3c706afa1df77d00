"""Energy and forces of one molecule with a shipped potential.

python examples/single_point.py                 # the shipped aspirin
python examples/single_point.py my.pt my.xyz    # your own model and structure
"""

import sys

import numpy as np
from ase.io import read

from asecalc_mlip import PIWSLCalculator, zoo


def main(model: str = "aspirin.pt", structure: str | None = None) -> None:
    """Print the energy, the forces and the card of the model."""
    atoms = read(structure) if structure else zoo.structure("aspirin")
    atoms.calc = PIWSLCalculator.load(model)  # the one line that matters
    forces = atoms.get_forces()
    print(f"{atoms.get_chemical_formula()}: {atoms.get_potential_energy():.4f} eV")
    print(f"largest force {np.linalg.norm(forces, axis=1).max():.4f} eV/Å, sum of forces {forces.sum(0).round(6)} eV/Å")

    # A molecule pushed out of its minimum is pulled back: the force on the moved atom points against the push.
    atoms.positions[0, 0] += 0.05
    print(f"first atom moved by 0.05 Å along x: force {atoms.get_forces()[0, 0]:+.3f} eV/Å along x")

    print(atoms.calc)  # what the model is: data, level of theory, errors, licence


if __name__ == "__main__":
    main(*sys.argv[1:])
