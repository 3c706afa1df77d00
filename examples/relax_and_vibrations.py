"""Relax a molecule and print its vibrations (harmonic frequencies).

python examples/relax_and_vibrations.py                 # the shipped aspirin
python examples/relax_and_vibrations.py my.pt my.xyz
"""

import sys
import tempfile

from ase.io import read
from ase.optimize import BFGS
from ase.vibrations import Vibrations

from asecalc_mlip import PIWSLCalculator, zoo


def main(model: str = "aspirin.pt", structure: str | None = None) -> None:
    """Print frequencies in cm⁻¹; imaginary ones, which a minimum does not have, as negative numbers."""
    atoms = read(structure) if structure else zoo.structure("aspirin")
    # Frequencies are second differences of the energy: float64 keeps their digits.
    atoms.calc = PIWSLCalculator.load(model, dtype="float64")
    BFGS(atoms, logfile=None).run(fmax=1e-4, steps=1000)
    print(f"relaxed: {atoms.get_potential_energy():.4f} eV")

    with tempfile.TemporaryDirectory() as folder:  # ASE keeps one file per displacement
        vibrations = Vibrations(atoms, name=f"{folder}/vib", delta=0.005)
        vibrations.run()
        frequencies = sorted(f.real - f.imag for f in vibrations.get_frequencies())  # imaginary ones below zero

    # The six lowest are the translations and rotations of a rigid molecule and should be near zero.
    print("rigid molecule (cm⁻¹):", " ".join(f"{f:.1f}" for f in frequencies[:6]))
    print("vibrations (cm⁻¹):")
    for start in range(6, len(frequencies), 9):
        print(" ".join(f"{f:8.1f}" for f in frequencies[start : start + 9]))
    print(f"zero-point energy {vibrations.get_zero_point_energy():.3f} eV")


if __name__ == "__main__":
    main(*sys.argv[1:])
